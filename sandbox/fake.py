"""A sandbox that runs no code and answers from a script, for tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from sandbox.base import BaseSandbox, Session, Stats
from sandbox.errors import FileNotFound, NotAFile, SandboxClosed, SandboxError, TooManyFiles
from sandbox.files import FileInfo, check_size, checked
from sandbox.limits import Limits
from sandbox.result import Outcome, Result

Answer = Result | str | SandboxError
"""The answer to a cell: a result, its printed text (outcome OK), or an infrastructure fault to raise."""

Script = Mapping[str, Answer] | Callable[[str], Answer | Awaitable[Answer]]
"""Maps code to answers. A callable may be async, to wait or to hang, and may raise a SandboxError."""


class FakeSandbox(BaseSandbox):
    """Answers each cell from a script instead of running it.

    ``FakeSandbox({"1+1": "2"})``, or ``FakeSandbox(lambda code: Result(Outcome.ERROR, error="..."))``. Code
    that is missing from a mapping is answered with `Outcome.ERROR` and a message that names it.
    Files of a session are kept in memory.

    Attributes:
        codes: all cells executed, in order, in all sessions.
        seeds: the seeds of all sessions, in order.
        open_sessions: sessions open now; should be 0 at the end of a test.
    """

    def __init__(self, script: Script | None = None, *, limits: Limits | None = None, size: int = 8) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.limits = limits or Limits()
        self.size = size
        self.codes: list[str] = []
        self.seeds: list[int | None] = []
        self.open_sessions = 0
        self._script: Script = {} if script is None else script
        self._faults: list[SandboxError] = []
        self._stats = Stats()
        self._places = asyncio.Semaphore(size)
        self._open = False

    @property
    def isolation(self) -> str:
        """Always "fake"."""
        return "fake"

    @property
    def stats(self) -> Stats:
        """Sessions, cells, outcomes and faults so far."""
        return self._stats

    @property
    def files(self) -> bool:
        """Always True."""
        return True

    @property
    def images(self) -> bool:
        """Always True: those of the script's results."""
        return True

    def fail_next(self, error: SandboxError, times: int = 1) -> None:
        """Make the next `times` cells raise this infrastructure fault."""
        self._faults.extend([error] * times)

    def session(self, *, seed: int | None = None) -> AbstractAsyncContextManager[Session]:
        """A new session, once a place is free. The seed is recorded in `seeds`."""
        return self._session(seed)

    @asynccontextmanager
    async def _session(self, seed: int | None) -> AsyncIterator[Session]:
        self.require_open()
        self._stats.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._stats.waiting -= 1
        try:
            self.require_open()
            self._stats.sessions += 1
            self.seeds.append(seed)
            self.open_sessions += 1
            session = _FakeSession(self)
            try:
                yield session
            finally:
                session.closed = True
                self.open_sessions -= 1
        finally:
            self._places.release()

    def require_open(self) -> None:
        """Raise SandboxClosed if it is not open."""
        if not self._open:
            raise SandboxClosed("the sandbox is not open")

    async def answer(self, code: str) -> Result:
        """Look a cell up in the script."""
        self.require_open()
        self.codes.append(code)
        try:
            if self._faults:
                raise self._faults.pop(0)
            if callable(self._script):
                answer = self._script(code)
                if inspect.isawaitable(answer):
                    answer = await answer
            else:
                unknown = Result(Outcome.ERROR, error=f"FakeSandbox: no answer for {code!r}")
                answer = self._script.get(code, unknown)
            if isinstance(answer, SandboxError):
                raise answer
        except SandboxError:
            self._stats.faults += 1
            raise
        result = Result(Outcome.OK, stdout=answer) if isinstance(answer, str) else answer
        self._stats.cells += 1
        self._stats.outcomes[result.outcome] += 1
        return result

    async def __aenter__(self) -> Self:
        """Open the sandbox."""
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sandbox and raise SandboxClosed in waiting callers."""
        self._open = False
        # Each waiter that wakes up finds the sandbox closed and, on leaving, wakes the next one.
        self._places.release()


class _FakeSession(Session):
    def __init__(self, box: FakeSandbox) -> None:
        self.closed = False
        self._box = box
        self._turn = asyncio.Lock()
        self._cells = 0
        self._files: dict[str, bytes] = {}

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        fork: bool = False,
        images: bool = False,
    ) -> Result:
        _check_timeout(timeout)
        async with self._turn:
            self._require_open()
            if self._cells >= self._box.limits.cells:
                return Result.no_more_cells(self._box.limits.cells)
            self._cells += 1
            result = await self._box.answer(code)
            return replace(result, images=()) if result.images and (fork or not images) else result

    def _require_open(self) -> None:
        if self.closed:
            raise SandboxClosed("the session is closed")
        self._box.require_open()

    async def write_file(self, name: str, data: bytes, *, timeout: float | None = None) -> None:
        limits = self._box.limits
        check_size(name, len(data), limits)
        async with self._file_turn(name, timeout):
            parts = name.split("/")
            folders = {"/".join(parts[:count]) for count in range(1, len(parts))}
            if folders & self._files.keys() or any(other.startswith(f"{name}/") for other in self._files):
                raise NotAFile(name)
            if name not in self._files and len(self._files) >= limits.files:
                raise TooManyFiles(name, limits.files)
            self._files[name] = bytes(data)

    async def read_file(self, name: str, *, timeout: float | None = None) -> bytes:
        async with self._file_turn(name, timeout):
            return self._files[name]

    async def list_files(self, *, timeout: float | None = None) -> tuple[FileInfo, ...]:
        async with self._file_turn(None, timeout):
            return tuple(FileInfo(name, len(data)) for name, data in sorted(self._files.items()))

    async def remove_file(self, name: str, *, timeout: float | None = None) -> None:
        async with self._file_turn(name, timeout):
            del self._files[name]

    @asynccontextmanager
    async def _file_turn(self, name: str | None, timeout: float | None) -> AsyncIterator[None]:
        _check_timeout(timeout)
        if name is not None:
            checked(name)
        async with self._turn:
            self._require_open()
            try:
                yield
            except KeyError:
                raise FileNotFound(name or "") from None


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be positive, got {timeout}")
