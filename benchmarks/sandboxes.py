"""Sandbox wrappers for benchmarks: one slows cells down, one replays recorded results."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from types import TracebackType
from typing import Self

from sandbox import BaseSandbox, Result, Session
from sandbox.base import Stats
from start_agent.seeds import derive_seed


class Around(BaseSandbox):
    """A wrapper around an open sandbox.

    Args:
        box: an open sandbox, which runs the cells.
    """

    def __init__(self, box: BaseSandbox) -> None:
        self.limits, self.size = box.limits, box.size
        self._box = box

    @property
    def isolation(self) -> str:
        """The isolation of the wrapped sandbox."""
        return self._box.isolation

    @property
    def stats(self) -> Stats:
        """The counts of the wrapped sandbox."""
        return self._box.stats

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


class Slowed(Around):
    """A sandbox whose cells take longer, each by a time that is determined by the seed, its code and its number.

    Args:
        box: an open sandbox, which runs the cells.
        seed: seed of the times.
        draw: draws a time, in seconds.
    """

    def __init__(self, box: BaseSandbox, seed: int, draw: Callable[[random.Random], float]) -> None:
        super().__init__(box)
        self._seed, self._draw = seed, draw

    @asynccontextmanager
    async def session(self, *, seed: int | None = None) -> AsyncIterator[Session]:
        """See ``BaseSandbox.session``."""
        async with self._box.session(seed=seed) as session:
            yield _SlowedSession(session, self.seconds)

    def seconds(self, code: str, number: int) -> float:
        """The added time of a cell."""
        return self._draw(random.Random(derive_seed(self._seed, f"cell {number}: {code}")))


class _SlowedSession(Session):
    def __init__(self, session: Session, seconds: Callable[[str, int], float]) -> None:
        self._session, self._seconds = session, seconds
        self._cells = 0

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        fork: bool = False,
        images: bool = False,
    ) -> Result:
        self._cells += 1
        begun = time.perf_counter()
        result = await self._session.execute(code, timeout=timeout, stdin=stdin)
        await asyncio.sleep(self._seconds(code, self._cells))
        return dataclasses.replace(result, duration_s=time.perf_counter() - begun)


_Cell = tuple[str, float | None, str | None]
"""Code, timeout, standard input."""


class Recorded(Around):
    """A sandbox that records the results of cells, and later replays them instead of running the cells.

    Replayed cells take as long as the recorded ones, without the time of waiting for a kernel.

    Args:
        box: an open sandbox, which runs the cells.

    Attributes:
        recording: whether cells are run and recorded; otherwise they are replayed.
        again: number of cells that had to be run during replay.
    """

    def __init__(self, box: BaseSandbox) -> None:
        super().__init__(box)
        self.recording = True
        self.again = 0
        self.results: dict[tuple[_Cell, ...], Result] = {}  # keyed by the session's cells so far

    @asynccontextmanager
    async def session(self, *, seed: int | None = None) -> AsyncIterator[Session]:
        """See ``BaseSandbox.session``."""
        async with self._box.session(seed=seed) if self.recording else nullcontext() as session:
            yield _RecordedSession(self, session)

    async def run_again(self, cells: tuple[_Cell, ...]) -> Result:
        """Run all cells of a session that was not recorded because its trace diverged. Returns the last result."""
        self.again += 1
        async with self._box.session() as session:
            for code, timeout, stdin in cells:
                result = await session.execute(code, timeout=timeout, stdin=stdin)
        return result


class _RecordedSession(Session):
    def __init__(self, box: Recorded, session: Session | None) -> None:
        self._box, self._session, self._cells = box, session, tuple[_Cell, ...]()

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        fork: bool = False,
        images: bool = False,
    ) -> Result:
        self._cells += ((code, timeout, stdin),)
        results = self._box.results
        if self._session is not None:
            results[self._cells] = await self._session.execute(code, timeout=timeout, stdin=stdin)
        elif self._cells in results:
            await asyncio.sleep(results[self._cells].duration_s)
        else:
            results[self._cells] = await self._box.run_again(self._cells)
        return results[self._cells]
