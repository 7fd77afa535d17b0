"""The exit codes of all commands, and the code for each error (see ``errors``)."""

from __future__ import annotations

import signal
from enum import IntEnum

from start_agent.errors import INPUT_ERROR, InputError, StartAgentError


class ExitCode(IntEnum):
    """The exit code of a command."""

    COMPLETE = 0, "complete: everything was done, whatever the answers are"
    FAILED = 1, "something failed or is still pending; run the same command again to resume"
    INPUT_ERROR = INPUT_ERROR, "an option, a file or a folder cannot be used; one line on stderr says why"
    ENGINE_DIED = 3, "the engine of a server died; restart the server"
    INTERRUPTED = 128 + signal.SIGINT, "interrupted (Ctrl-C)"
    TERMINATED = 128 + signal.SIGTERM, "terminated (SIGTERM)"

    about: str

    def __new__(cls, code: int, about: str) -> ExitCode:
        """A code with its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.about = about
        return member


def exit_code_of(error: Exception) -> ExitCode | None:
    """The exit code for an error; None for an error that is a bug in start-agent."""
    if isinstance(error, InputError):
        return ExitCode.INPUT_ERROR
    if isinstance(error, StartAgentError):
        return ExitCode.FAILED
    # Imported here, because commands like --version do not need them.
    from hints import HintError
    from sandbox import SandboxError

    if isinstance(error, HintError):
        return ExitCode.INPUT_ERROR
    return ExitCode.FAILED if isinstance(error, SandboxError) else None


def described() -> str:
    """All exit codes, one per line."""
    return "\n".join(["exit codes:", *(f"  {code.value:>3}  {code.about}" for code in ExitCode)])
