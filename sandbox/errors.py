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
    """A file operation failed. The sandbox works, and so does the session, except after `FilesLost`.

    Attributes:
        name: of the file; empty if no single file is meant.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name[:_SHOWN_CHARS]!r}: {reason}" if name else reason)
        self.name = name


class FileNameError(FileError, ValueError):
    """The name is not allowed; see `Session.write_file`."""


class FileNotFound(FileError):  # noqa: N818 - reads better where it is caught
    """There is no file of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "no such file")


class NotAFile(FileError):  # noqa: N818
    """A folder, link, FIFO or similar has this name, or a component of the path is not a folder."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "not a regular file, or not in a folder")


class FileTooLarge(FileError):  # noqa: N818
    """The file is larger than `Limits.file_bytes`.

    Attributes:
        size: of the file, in bytes.
        limit: `Limits.file_bytes`.
    """

    def __init__(self, name: str, size: int, limit: int) -> None:
        super().__init__(name, f"the file has {size:,} bytes, the limit is {limit:,}")
        self.size, self.limit = size, limit


class TooManyFiles(FileError):  # noqa: N818
    """There are more files than `Limits.files`, or there would be after writing this one.

    Attributes:
        limit: `Limits.files`.
    """

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, f"more than {limit:,} files")
        self.limit = limit


class FileRefused(FileError):  # noqa: N818
    """Linux refused the operation: the disk is full (`errno.ENOSPC`), a permission or a descriptor is missing.

    Attributes:
        errno: the error number.
    """

    def __init__(self, name: str, number: int) -> None:
        super().__init__(name, os.strerror(number))
        self.errno = number


Loss = Literal["timeout", "died", "garbage", "flood", "memory"]
"""Why a kernel was lost: it did not answer in time, ended, sent invalid or too much data, or used too much memory."""


class FilesLost(FileError):  # noqa: N818
    """The kernel died or was killed during a file operation: the session's variables and files are gone.

    Caused by the session's own code, like a `Result` with `state_lost`.

    Attributes:
        reason: see `Loss`.
    """

    def __init__(self, name: str, reason: Loss) -> None:
        super().__init__(name, f"the Python process was lost ({reason}), with all variables and files")
        self.reason = reason


class FilesUnsupported(FileError):  # noqa: N818
    """This sandbox has no file access; see `BaseSandbox.files`."""

    def __init__(self) -> None:
        super().__init__("", "this sandbox has no file access")
