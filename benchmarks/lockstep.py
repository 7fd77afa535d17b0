"""An engine wrapper for lockstep rounds: generate until all traces have stopped, run all tools, repeat."""

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
    """Run this thread, and processes and threads that it starts meanwhile, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Gate:
    """A barrier that opens whenever all remaining participants wait at it."""

    def __init__(self, participants: int) -> None:
        self._participants, self._waiting = participants, 0
        self._opening = asyncio.Event()

    async def wait(self) -> None:
        """Wait until all participants wait."""
        opening = self._opening
        self._waiting += 1
        self._open_if_all()
        await opening.wait()

    def leave(self) -> None:
        """Leave for good: the others no longer wait for this participant."""
        self._participants -= 1
        self._open_if_all()

    def _open_if_all(self) -> None:
        if self._waiting == self._participants:
            self._opening.set()
            self._opening, self._waiting = asyncio.Event(), 0


class InRounds(Engine):
    """An engine that runs the turns of all traces together, and starts the next only after all tools have returned.

    Args:
        engine: the open engine to wrap.
        traces: number of traces, all solved concurrently.
    """

    def __init__(self, engine: Engine, traces: int) -> None:
        self.name, self.model, self.tokenizer = engine.name, engine.model, engine.tokenizer
        self.context_length = engine.context_length
        self.rounds, self.idle_seconds = 0, 0.0
        self._engine, self._gate = engine, Gate(traces)
        self._turns: Counter[str] = Counter()
        self._running, self._idle_since = 0, time.perf_counter()

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """See ``Engine.stream``: all ids of the turn at once, at the end of the round."""
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
