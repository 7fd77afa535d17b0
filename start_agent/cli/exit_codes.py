"""The exit codes of every command, in one place: what each means, and which error gives which (see ``errors``)."""

from __future__ import annotations

import signal
from enum import IntEnum

from start_agent.errors import INPUT_ERROR, InputError, StartAgentError


class ExitCode(IntEnum):
    """What a command's end means to a script."""

    COMPLETE = 0, "complete: everything asked for is done, whatever the answers are"
    FAILED = 1, "something failed or is still pending; the same command goes on from there"
    INPUT_ERROR = INPUT_ERROR, "an option, a file or a folder cannot be used; one line on stderr says why"
    ENGINE_DIED = 3, "the engine of a server died; starting the server again is what helps"
    INTERRUPTED = 128 + signal.SIGINT, "interrupted (Ctrl-C)"
    TERMINATED = 128 + signal.SIGTERM, "terminated (SIGTERM)"

    about: str

    def __new__(cls, code: int, about: str) -> ExitCode:
        """A code with what it means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.about = about
        return member


def exit_code_of(error: Exception) -> ExitCode | None:
    """The code of a command that ended with this error; None for an error that is a defect of start-agent."""
    if isinstance(error, InputError):
        return ExitCode.INPUT_ERROR
    if isinstance(error, StartAgentError):
        return ExitCode.FAILED
    # Imported here: a command that ends well, as --version does, may not need them.
    from hints import HintError
    from sandbox import SandboxError

    if isinstance(error, HintError):
        return ExitCode.INPUT_ERROR
    return ExitCode.FAILED if isinstance(error, SandboxError) else None


def described() -> str:
    """All of them, a line each."""
    return "\n".join(["exit codes:", *(f"  {code.value:>3}  {code.about}" for code in ExitCode)])
