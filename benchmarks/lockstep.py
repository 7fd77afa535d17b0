"""An engine that solves in rounds: generate all until each has stopped, run all tools, repeat."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager

from start_agent.engines.base import Engine, Tokens, Turn, TurnRequest


@contextmanager
def on_cores(cores: Iterable[int]) -> Iterator[None]:
    """This thread, and what it starts meanwhile, run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Gate:
    """Opens each time that all who still come to it stand before it."""

    def __init__(self, coming: int) -> None:
        self._coming, self._waiting = coming, 0
        self._opening = asyncio.Event()

    async def wait(self) -> None:
        """Stand before the gate until it opens."""
        opening = self._opening
        self._waiting += 1
        self._open_if_all()
        await opening.wait()

    def leave(self) -> None:
        """Never come again."""
        self._coming -= 1
        self._open_if_all()

    def _open_if_all(self) -> None:
        if self._waiting == self._coming:
            self._opening.set()
            self._opening, self._waiting = asyncio.Event(), 0


class InRounds(Engine):
    """An engine that runs the turns of all traces together, and starts none before all tools have come back.

    Args:
        engine: open.
        traces: that will be solved, all at once.
    """

    def __init__(self, engine: Engine, traces: int) -> None:
        self.name, self.model, self.tokenizer = engine.name, engine.model, engine.tokenizer
        self.context_length = engine.context_length
        self.rounds, self.idle_seconds = 0, 0.0
        self._engine, self._gate = engine, Gate(traces)
        self._turns: Counter[str] = Counter()
        self._running, self._idle_since = 0, time.perf_counter()

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """See ``Engine.stream``: one run of ids, at the end of the round."""
        await self._gate.wait()
        if not self._running:
            self.idle_seconds += time.perf_counter() - self._idle_since
        self._running += 1
        turn = await self._engine.generate(request)
        self._running -= 1
        self._idle_since = time.perf_counter()
        self._turns[request.trace_id] += 1
        self.rounds = max(self.rounds, self._turns[request.trace_id])
        await self._gate.wait()
        if turn.token_ids:
            yield Tokens(turn.token_ids, turn.logprobs)
        yield turn

    async def release(self, trace_id: str) -> None:
        """See ``Engine.release``: the trace has ended."""
        await self._engine.release(trace_id)
        self._gate.leave()
