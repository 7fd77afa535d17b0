"""The errors of the sandbox's infrastructure.

::

    SandboxError                  the infrastructure failed; not the model's fault, the call may be retried
    ├── SandboxUnavailable        this machine cannot isolate code as requested (no tier works)
    ├── SandboxClosed             used before ``async with`` or after it ended
    ├── KernelStartError          a kernel did not start, twice in a row
    │   └── HostFull              no file descriptor or process is left for it; may work later
    ├── SandboxFaulty             too many kernels failed to start: stop the run
    └── KernelProtocolError       a kernel that has not run any code yet sent an invalid message

Errors of the *code* are never one of these: they are a `sandbox.Result` with a `sandbox.Outcome`. Errors of file access
are separate, too, since they have no `Result`:

::

    FileError                     a file operation failed; the sandbox itself works
    ├── FileNameError             not a valid name (also a ValueError)
    ├── FileNotFound              no file of that name
    ├── NotAFile                  a folder, link, FIFO or similar, or a path component that is not a folder
    ├── FileTooLarge              larger than `Limits.file_bytes`
    ├── TooManyFiles              more than `Limits.files`
    ├── FileRefused               refused by Linux: the disk is full, a permission is missing
    ├── FilesLost                 the kernel died or misbehaved during the operation; variables and files are lost
    └── FilesUnsupported          this sandbox has no file access (`BaseSandbox.files`)
"""

from __future__ import annotations

import errno
import os
from typing import Literal

_SHOWN_CHARS = 80  # of a name, in a message
_FULL = {errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS, errno.EAGAIN}


class SandboxError(Exception):
    """The sandbox itself failed. Retry it, count it, but never grade it as a wrong answer."""


class SandboxUnavailable(SandboxError):  # noqa: N818 - reads better where it is caught
    """This machine cannot provide the requested isolation; the message says in one line what to do."""


class SandboxClosed(SandboxError):  # noqa: N818
    """The sandbox or the session was used before its ``async with`` or after it ended."""


class SandboxFaulty(SandboxError):  # noqa: N818
    """More kernels failed to start than `Sandbox(max_fault_rate=)` allows; retrying would only hide the cause."""


class KernelStartError(SandboxError):
    """A kernel could not be started, even at the second attempt."""


class HostFull(KernelStartError):  # noqa: N818
    """No file descriptor or process is left for a kernel: a limit of this process or of the machine is reached.

    Does not count towards `SandboxFaulty`: new sessions can be opened as soon as there is room. Open sessions are not
    affected.
    """


def start_error(error: OSError) -> KernelStartError:
    """The error to raise when a system call failed at the start of a kernel or a zygote."""
    words = f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)
    if error.errno in _FULL:
        return HostFull(f"no resources are left to start another kernel: {words}")
    return KernelStartError(f"no kernel can be started: {words}")


class KernelProtocolError(SandboxError):
    """A fresh kernel, which has not run any code yet, sent a message that does not follow `sandbox.inside.wire`."""


class FileError(Exception):
    """Something cannot be done with a session's file. The sandbox is well, and but for `FilesLost` so is the session.

    Attributes:
        name: of the file; empty where all are meant.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name[:_SHOWN_CHARS]!r}: {reason}" if name else reason)
        self.name = name


class FileNameError(FileError, ValueError):
    """No file of a session may have this name; see `Session.write_file`."""


class FileNotFound(FileError):  # noqa: N818 - reads better where it is caught
    """There is no file of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "there is no such file")


class NotAFile(FileError):  # noqa: N818
    """What has this name is a folder, a link, a FIFO or the like; or what is on the way to it is no folder."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "it is no ordinary file, or is not in a folder")


class FileTooLarge(FileError):  # noqa: N818
    """The file is larger than `Limits.file_bytes`.

    Attributes:
        size: of the file, in bytes.
        limit: the most that is allowed.
    """

    def __init__(self, name: str, size: int, limit: int) -> None:
        super().__init__(name, f"it has {size:,} bytes, and {limit:,} are allowed")
        self.size, self.limit = size, limit


class TooManyFiles(FileError):  # noqa: N818
    """There are more files than `Limits.files`, or there would be.

    Attributes:
        limit: the most that is allowed.
    """

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, f"there are more than {limit:,} files")
        self.limit = limit


class FileRefused(FileError):  # noqa: N818
    """Linux says no: the disk is full (`errno.ENOSPC`), a permission is missing, no descriptor is left.

    Attributes:
        errno: the number of the reason.
    """

    def __init__(self, name: str, number: int) -> None:
        super().__init__(name, os.strerror(number))
        self.errno = number


Loss = Literal["timeout", "died", "garbage", "flood", "memory"]
"""What became of a kernel: it did not answer in time, ended, said what is not of the wire's form or too much, or its
processes used too much memory."""


class FilesLost(FileError):  # noqa: N818
    """The kernel died, or was ended, as it was asked for a file: variables and files of the session are gone.

    This is what the session's code has brought about, as where a `Result` says `state_lost`.

    Attributes:
        reason: see `Loss`.
    """

    def __init__(self, name: str, reason: Loss) -> None:
        super().__init__(name, f"the Python process was lost ({reason}), with all variables and files")
        self.reason = reason


class FilesUnsupported(FileError):  # noqa: N818
    """The sessions of this sandbox have no files; see `BaseSandbox.files`."""

    def __init__(self) -> None:
        super().__init__("", "the sessions of this sandbox have no files")
