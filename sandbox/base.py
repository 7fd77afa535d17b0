"""The face of every sandbox: what callers may rely on, whatever runs the code behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from sandbox.limits import Limits
from sandbox.result import Outcome, Result


@dataclass(slots=True)
class Stats:
    """What a sandbox has done since it was opened.

    Attributes:
        sessions: sessions opened.
        kernels_started: kernels that came up.
        kernels_grouped: those of them that had cgroups of their own.
        kernels_live: kernels running or starting now.
        kernels_ready: those of them that wait for the next session.
        zygote_restarts: times that the process from which kernels are forked has died.
        waiting: callers waiting for a free place now.
        waited_s: seconds that callers have waited for their sessions, in sum.
        cells: cells executed.
        outcomes: cells by outcome.
        faults: infrastructure faults, those that a retry repaired among them.
    """

    sessions: int = 0
    kernels_started: int = 0
    kernels_grouped: int = 0
    kernels_live: int = 0
    kernels_ready: int = 0
    zygote_restarts: int = 0
    waiting: int = 0
    waited_s: float = 0.0
    cells: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    faults: int = 0


class Session(ABC):
    """One kernel with its variables, for one trace. Cells run one after the other."""

    @abstractmethod
    async def execute(
        self, code: str, *, timeout: float | None = None, stdin: str | None = None, fork: bool = False
    ) -> Result:
        """Run one cell and wait for its end.

        Args:
            code: Python as in a notebook cell; any text at all is accepted.
            timeout: wall time in seconds; `Limits.seconds` when None.
            stdin: what `input()` and `sys.stdin` read; empty when None.
            fork: whether to run it as a program that begins with the session's variables, in a fork of the kernel. What
                it does to variables, descriptors, threads and limits is gone afterwards, and what it has started ends
                with it. Its standard streams are files, whose content is given as it is: what it has not flushed
                before `os._exit` is lost, as in any program, and what it wrote to stderr comes last in `printed`.
                `sys.exit()` and `sys.exit(0)` are good ends. One that dies costs the session nothing; see
                `Result.exit_status`. Where there are no forks (see `BaseSandbox.forks`) the kernel itself ends as that
                program, and `state_lost` is set.

        Returns:
            The result, whatever the code did: raised, hung, crashed, flooded. When `state_lost` is set, the
            variables are gone and the next cell starts on a fresh kernel.

        Raises:
            SandboxClosed: the session or its sandbox is closed.
            SandboxError: the infrastructure failed (after one retry where nothing is lost by it). The session
                may be used again; it then has no variables.
            ValueError: the timeout is not positive.

        Cancelling it kills the kernel and leaves nothing running; the session may be used again, without its
        variables.
        """


class BaseSandbox(ABC):
    """A bounded supply of sessions. Used as an async context manager, whose end kills everything."""

    limits: Limits
    size: int

    @property
    @abstractmethod
    def isolation(self) -> str:
        """What stands between the code and the host, to be recorded with every trace. Never raises."""

    @property
    @abstractmethod
    def stats(self) -> Stats:
        """Counts since it was opened. Never raises; readable after the end."""

    @property
    def forks(self) -> bool:
        """Whether a session is as before after ``execute(fork=True)``: not where code may start no processes."""
        return True

    @abstractmethod
    def session(self, *, seed: int | None = None) -> AbstractAsyncContextManager[Session]:
        """A context manager that waits for a free place and gives a new session.

        Args:
            seed: any whole number. Sessions of one seed draw the same random numbers in the same cells, from
                `random`, `numpy.random` and sympy. None for numbers that nobody foresees.

        At most `size` sessions are open at once; those who wait are served in the order of asking. The end of
        the block frees the place and leaves nothing of the session behind. Cancelling the wait gives the
        place in the queue up.

        Entering it raises:
            SandboxClosed: the sandbox is not open, or was closed while waiting.
            SandboxError: no kernel could be started, even at the second attempt.
        """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            SandboxUnavailable: this machine cannot run it; the message says what to do.
        """

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it: sessions still open are killed, those who wait get SandboxClosed. Raises nothing else."""
