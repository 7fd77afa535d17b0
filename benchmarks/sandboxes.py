"""Sandboxes around another one, whose cells take longer, or are not run again."""

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
    """A sandbox that is open as long as the one within.

    Args:
        box: open; it runs the cells.
    """

    def __init__(self, box: BaseSandbox) -> None:
        self.limits, self.size = box.limits, box.size
        self._box = box

    @property
    def isolation(self) -> str:
        """That of the sandbox within."""
        return self._box.isolation

    @property
    def stats(self) -> Stats:
        """Those of the sandbox within."""
        return self._box.stats

    async def __aenter__(self) -> Self:
        """Nothing is to be opened."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be closed."""


class Slowed(Around):
    """A sandbox whose cells take longer: each by a time that follows from the seed, its code and its number.

    Args:
        box: open; it runs the cells.
        seed: decides the times.
        draw: a time, in seconds.
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
        """How much longer the cell takes."""
        return self._draw(random.Random(derive_seed(self._seed, f"cell {number}: {code}")))


class _SlowedSession(Session):
    def __init__(self, session: Session, seconds: Callable[[str, int], float]) -> None:
        self._session, self._seconds = session, seconds
        self._cells = 0

    async def execute(
        self, code: str, *, timeout: float | None = None, stdin: str | None = None, fork: bool = False
    ) -> Result:
        self._cells += 1
        begun = time.perf_counter()
        result = await self._session.execute(code, timeout=timeout, stdin=stdin)
        await asyncio.sleep(self._seconds(code, self._cells))
        return dataclasses.replace(result, duration_s=time.perf_counter() - begun)


_Cell = tuple[str, float | None, str | None]
"""Code, time limit, standard input."""


class Recorded(Around):
    """A sandbox that, once it has recorded, runs no cell again: the same session's cells give the same results.

    They take as long as they took, but for what waiting for a kernel took.

    Args:
        box: open; it runs the cells.

    Attributes:
        again: cells that it has run nevertheless.
    """

    def __init__(self, box: BaseSandbox) -> None:
        super().__init__(box)
        self.recording = True
        self.again = 0
        self.results: dict[tuple[_Cell, ...], Result] = {}  # by the session's cells so far

    @asynccontextmanager
    async def session(self, *, seed: int | None = None) -> AsyncIterator[Session]:
        """See ``BaseSandbox.session``."""
        async with self._box.session(seed=seed) if self.recording else nullcontext() as session:
            yield _RecordedSession(self, session)

    async def run_again(self, cells: tuple[_Cell, ...]) -> Result:
        """The result of the last of a session's cells that nobody has run yet, since its trace took another way."""
        self.again += 1
        async with self._box.session() as session:
            for code, timeout, stdin in cells:
                result = await session.execute(code, timeout=timeout, stdin=stdin)
        return result


class _RecordedSession(Session):
    def __init__(self, box: Recorded, session: Session | None) -> None:
        self._box, self._session, self._cells = box, session, tuple[_Cell, ...]()

    async def execute(
        self, code: str, *, timeout: float | None = None, stdin: str | None = None, fork: bool = False
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
