"""What can go wrong on the host's side of the sandbox.

::

    SandboxError                  the infrastructure failed; the model is not to blame, the call may be retried
    ├── SandboxUnavailable        this machine cannot isolate code as asked (no tier holds)
    ├── SandboxClosed             used before ``async with`` or after it ended
    ├── KernelStartError          a kernel did not come up, twice in a row
    │   └── HostFull              since no descriptor or process is left for it: not now, but perhaps later
    ├── SandboxFaulty             too many kernels could not be started: stop the run
    └── KernelProtocolError       a kernel that has run no code yet said something that is not of the wire's form

What the *code* did wrong is never one of these: it is a `sandbox.Result` with a `sandbox.Outcome`.
"""

from __future__ import annotations

import errno

_FULL = {errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS, errno.EAGAIN}


class SandboxError(Exception):
    """The sandbox itself failed. Retry it, count it, but never grade it as a wrong answer."""


class SandboxUnavailable(SandboxError):  # noqa: N818 - reads better where it is caught
    """This machine cannot run the isolation that was asked for; the message says in one line what to do."""


class SandboxClosed(SandboxError):  # noqa: N818
    """The sandbox or the session is not open: before its ``async with``, or after it."""


class SandboxFaulty(SandboxError):  # noqa: N818
    """More kernels fail to start than `Sandbox(max_fault_rate=)` allows; trying on would only hide what is wrong."""


class KernelStartError(SandboxError):
    """A kernel could not be started, although starting was tried a second time."""


class HostFull(KernelStartError):  # noqa: N818
    """No file descriptor or process is left here for a kernel: a full table of this process's, or of the machine's.

    Does not count towards `SandboxFaulty`: sessions can be opened again as soon as there is room. Those that are
    open go on.
    """


def start_error(error: OSError) -> KernelStartError:
    """What a failed system call means for the start of a kernel or a zygote."""
    words = f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)
    if error.errno in _FULL:
        return HostFull(f"there is no room for another kernel here now: {words}")
    return KernelStartError(f"no kernel can be started: {words}")


class KernelProtocolError(SandboxError):
    """A fresh kernel, which has run no code yet, sent something that is not of the form of `sandbox.inside.wire`."""
