"""The interface of all sandboxes: what callers may rely on, whatever runs the code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from sandbox.errors import FilesUnsupported
from sandbox.files import FileInfo
from sandbox.limits import Limits
from sandbox.result import Outcome, Result


@dataclass(slots=True)
class Stats:
    """What a sandbox has done since it was opened.

    Attributes:
        sessions: sessions opened.
        kernels_started: kernels that started successfully.
        kernels_grouped: started kernels that had their own cgroups.
        kernels_live: kernels running or starting now.
        kernels_ready: idle kernels, ready for the next session.
        zygote_restarts: how often the process from which kernels are forked has died.
        waiting: callers waiting for a free place now.
        waited_s: total seconds that callers have waited for their sessions.
        cells: cells executed.
        outcomes: cells by outcome.
        faults: infrastructure faults, including those resolved by a retry.
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
        self,
        code: str,
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        fork: bool = False,
        images: bool = False,
    ) -> Result:
        """Run one cell and wait until it ends.

        Args:
            code: Python as in a notebook cell; any text is accepted.
            timeout: wall time in seconds; `Limits.seconds` when None.
            stdin: what `input()` and `sys.stdin` read; empty when None.
            fork: whether to run the code as a program that starts with the session's variables, in a fork of the
                kernel. Its changes to variables, descriptors, threads and limits are discarded afterwards, and its
                child processes end with it. Its standard streams are files whose content is returned unchanged: output
                not flushed before `os._exit` is lost, as in any program, and stderr comes last in `printed`.
                `sys.exit()` and `sys.exit(0)` count as success. A fork that dies does not affect the session; see
                `Result.exit_status`. Where forks are not available (see `BaseSandbox.forks`), the kernel itself runs
                the program and ends with it, and `state_lost` is set.
            images: whether `Result.images` has what the cell shows, as a notebook would: figures of matplotlib at
                `plt.show()` and those open at its end, and PNG or JPEG of what is displayed. They are drawn in the
                cell's time. The text is the same as without. A fork shows none; see `BaseSandbox.images`, too.

        Returns:
            The result, whatever the code did: raised, hung, crashed, or printed too much. When `state_lost` is set,
            the variables are gone and the next cell starts on a fresh kernel.

        Raises:
            SandboxClosed: the session or its sandbox is closed.
            SandboxError: the infrastructure failed (after one retry, if no state is lost by retrying). The session
                can be used again, without its variables.
            ValueError: the timeout is not positive.

        Cancelling kills the kernel and leaves nothing running; the session can be used again, without its variables.
        """

    async def write_file(self, name: str, data: bytes, *, timeout: float | None = None) -> None:
        """Write a file of the working folder, in which code finds it, and make the folders that it is to be in.

        An old one of that name is replaced when all of the new one is there; code that has it open keeps the old.

        Args:
            name: relative to the working folder: up to 8 parts with slashes in between and 512 bytes in UTF-8, of which
                no part begins with a dot, and none has controls, backslashes or what reverses the direction of writing.
            data: its content; at most `Limits.file_bytes`.
            timeout: wall time in seconds; `Limits.seconds` when None.

        Files are the session's as variables are: they go with its kernel. This waits for the cell that runs, changes no
        variable, and counts as none of `Limits.cells`.

        Raises:
            FileNameError: the name is none.
            FileTooLarge, TooManyFiles: it is larger than `Limits.file_bytes`, or there are `Limits.files` already.
            NotAFile: a folder, link, FIFO or the like has this name, or what is on the way to it is no folder.
            FileRefused: Linux says no, e.g. as the disk is full.
            FilesLost: the kernel has died, or has not answered in time or as it should. The next cell starts on a fresh
                one, without variables and files.
            FilesUnsupported: the sessions of this sandbox have no files; see `BaseSandbox.files`.
            SandboxClosed, SandboxError, ValueError: as `execute`, which says what cancelling does, too.
        """
        raise FilesUnsupported

    async def read_file(self, name: str, *, timeout: float | None = None) -> bytes:
        """The content of a file of the working folder: what was there when reading began, at most `Limits.file_bytes`.

        Links are not followed, and nothing but ordinary files is opened.

        Raises FileNotFound where there is none of that name, and else as `write_file`, whose arguments it has.
        """
        raise FilesUnsupported

    async def list_files(self, *, timeout: float | None = None) -> tuple[FileInfo, ...]:
        """The files of the working folder and of those in it, sorted by name.

        Only ordinary files, and only those whose names `write_file` allows.

        Raises TooManyFiles where there are more than `Limits.files`, and else as `write_file`.
        """
        raise FilesUnsupported

    async def remove_file(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a file of the working folder. Folders stay.

        Raises FileNotFound where there is none of that name, and else as `write_file`.
        """
        raise FilesUnsupported


class BaseSandbox(ABC):
    """A limited number of sessions. An async context manager; leaving it kills everything."""

    limits: Limits
    size: int

    @property
    @abstractmethod
    def isolation(self) -> str:
        """The isolation between the code and the host, recorded with every trace. Never raises."""

    @property
    @abstractmethod
    def stats(self) -> Stats:
        """Counts since the sandbox was opened. Never raises; still readable after closing."""

    @property
    def forks(self) -> bool:
        """Whether ``execute(fork=True)`` leaves the session unchanged: False where code may not start processes."""
        return True

    @property
    def files(self) -> bool:
        """Whether sessions have files that can be written and read: `Session.write_file` and what follows it."""
        return False

    @property
    def images(self) -> bool:
        """Whether ``execute(images=True)`` gives images; else it gives none."""
        return False

    @abstractmethod
    def session(self, *, seed: int | None = None) -> AbstractAsyncContextManager[Session]:
        """A context manager that waits for a free place and returns a new session.

        Args:
            seed: any integer. Sessions with the same seed draw the same random numbers in the same cells, from
                `random`, `numpy.random` and sympy. None for unpredictable numbers.

        At most `size` sessions are open at once; waiting callers are served first come, first served. Leaving the
        block frees the place and leaves nothing of the session behind. Cancelling while waiting gives up the place
        in the queue.

        Entering raises:
            SandboxClosed: the sandbox is not open, or was closed while waiting.
            SandboxError: no kernel could be started, even at the second attempt.
        """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open the sandbox.

        Raises:
            SandboxUnavailable: this machine cannot run it; the message says what to do.
        """

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sandbox: kill open sessions, raise SandboxClosed in waiting callers. Raises nothing itself."""
