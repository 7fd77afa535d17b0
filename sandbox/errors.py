"""The errors of the sandbox's infrastructure.

::

    SandboxError                  the infrastructure failed; not the model's fault, the call may be retried
    ├── SandboxUnavailable        this machine cannot isolate code as requested (no tier works)
    ├── SandboxClosed             used before ``async with`` or after it ended
    ├── KernelStartError          a kernel did not start, twice in a row
    │   └── HostFull              no file descriptor or process is left for it; may work later
    ├── SandboxFaulty             too many kernels failed to start: stop the run
    └── KernelProtocolError       a kernel that has not run any code yet sent an invalid message

Errors of the *code* are never one of these: they are a `sandbox.Result` with a `sandbox.Outcome`.
"""

from __future__ import annotations

import errno

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
