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
            images: whether to return the images that a notebook would show, in `Result.images`: matplotlib figures at
                `plt.show()` and those left open at the end of the cell, and displayed objects that have a PNG or JPEG
                form. Rendering counts towards the time of the cell; its text does not change. Forks return no images.
                See also `BaseSandbox.images`.

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
        """Write a file into the session's working folder, where code can open it. Missing folders are created.

        An existing file is replaced atomically.

        Args:
            name: path relative to the working folder, with at most 8 components and 512 bytes in UTF-8. No component
                may start with a dot; control characters, backslashes and bidirectional controls are not allowed.
            data: the content; at most `Limits.file_bytes`.
            timeout: wall time in seconds; `Limits.seconds` when None.

        Files belong to the kernel, as variables do: when a `Result` says `state_lost`, they are gone, too. File
        operations wait for a running cell to end, leave variables alone, and do not count towards `Limits.cells`.

        Raises:
            FileNameError: the name is not allowed.
            FileTooLarge: the data is larger than `Limits.file_bytes`.
            TooManyFiles: there are already `Limits.files` files.
            NotAFile: a folder, link, FIFO or similar has this name, or a component of the path is not a folder.
            FileRefused: Linux refused, for example because the disk is full.
            FilesLost: the kernel died, did not answer in time, or sent an invalid answer. The next cell starts on a
                fresh kernel, without variables and files.
            FilesUnsupported: this sandbox has no file access; see `BaseSandbox.files`.
            SandboxClosed, SandboxError, ValueError: as for `execute`. Cancelling has the same effect as there, too.
        """
        raise FilesUnsupported

    async def read_file(self, name: str, *, timeout: float | None = None) -> bytes:
        """Read a file from the working folder, as long as it was when reading began; at most `Limits.file_bytes`.

        Only regular files are opened, and links are never followed.

        Raises FileNotFound if there is no such file; otherwise as `write_file`.
        """
        raise FilesUnsupported

    async def list_files(self, *, timeout: float | None = None) -> tuple[FileInfo, ...]:
        """List the files in the working folder and its subfolders, sorted by name.

        Only regular files are listed, and only those with a name that `write_file` accepts.

        Raises TooManyFiles if there are more than `Limits.files`; otherwise as `write_file`.
        """
        raise FilesUnsupported

    async def remove_file(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a file from the working folder. Empty folders remain.

        Raises FileNotFound if there is no such file; otherwise as `write_file`.
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
        """Whether sessions support `write_file`, `read_file`, `list_files` and `remove_file`."""
        return False

    @property
    def images(self) -> bool:
        """Whether ``execute(images=True)`` returns images; if not, the option has no effect."""
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
