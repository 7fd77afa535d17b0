"""How many traces may be open at once in an engine whose KV cache is elsewhere.

The room that a trace will need is not known before its end. To reserve the most that it may need (prompt and
``max_tokens``) leaves most of a cache empty; so the need is estimated from the traces that have ended, and where the
estimate was too low, the engine must be able to preempt: to drop a trace's KV and compute it again later.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass

_WINDOW = 256  # traces that are remembered: the mixture of problems may change in the course of a run
_PRIOR = 2  # traces of the largest growth that count as seen before the first; their weight wanes as others end
_QUANTILE = 1.645  # standard deviations above the mean: the normal distribution's 95%


class Growth:
    """By how many tokens traces grow between their first prompt and their end, learned from those that have ended.

    The short ones end first, so the first to end say too little of the others. ``prior`` traces that grew by as much as
    they could count as seen at the start: before anything has ended, the estimate is the worst case.

    Args:
        window: ended traces that are remembered, the latest ones.
        prior: traces of the largest growth, counted besides those.
    """

    def __init__(self, window: int = _WINDOW, prior: int = _PRIOR) -> None:
        self._seen: deque[int] = deque()
        self._window, self._prior = window, prior
        self._sum = self._squares = 0

    def add(self, tokens: int) -> None:
        """A trace has ended that grew by so many tokens."""
        self._count(tokens, 1)
        self._seen.append(tokens)
        if len(self._seen) > self._window:
            self._count(self._seen.popleft(), -1)

    def moments(self, most: int) -> tuple[float, float]:
        """Mean and variance of the growth of a trace that may grow by ``most`` tokens; the mean is no larger.

        The prior counts in the mean alone: with it the variance would say how unsure the prior is.
        """
        number = len(self._seen)
        mean = min((self._prior * most + self._sum) / (self._prior + number), most)
        return mean, max(self._squares / number - (self._sum / number) ** 2, 0.0) if number else 0.0

    def _count(self, tokens: int, sign: int) -> None:
        self._sum += sign * tokens
        self._squares += sign * tokens**2


@dataclass(slots=True)
class _Open:
    """An open trace, in tokens: its first prompt, what it holds, and what it may come to hold."""

    rank: int
    first: int
    now: int
    most: int


class Admission:
    """Open traces, and the room in the KV cache that they will probably need.

    A trace is let in where the room that all open ones are expected to need at their ends, at the 95% quantile of its
    sum, is within the capacity. A trace that is open never waits here again, and what it holds while its code runs is
    for the engine to keep or to drop: so nothing can lock up. New ones are let in strictly in order. One trace alone
    is let in whatever its size.

    Args:
        places: traces that are open at once.
        capacity: tokens that the cache holds; None where the engine does not know.
        block: tokens in a block of the cache; a trace takes whole blocks.
    """

    def __init__(self, places: int, capacity: int | None = None, block: int = 1) -> None:
        self.places, self.capacity, self.block = places, capacity, block
        self.growth = Growth()
        self._open: dict[str, _Open] = {}
        self._waiting: deque[tuple[str, _Open, asyncio.Future[None]]] = deque()
        self._entered = 0

    def __contains__(self, trace_id: str) -> bool:
        return trace_id in self._open

    def __len__(self) -> int:
        return len(self._open)

    def rank(self, trace_id: str) -> int:
        """How many traces were let in before this one: their turns should go before its own."""
        trace = self._open.get(trace_id)
        return self._entered if trace is None else trace.rank

    async def enter(self, trace_id: str, most: int, now: int | None = None) -> bool:
        """Wait until the trace may run a turn; returns whether it had been open before.

        Raises what ``refuse`` is given.

        Args:
            trace_id: names the trace.
            most: tokens that it may come to hold.
            now: tokens that it holds before the turn; unset, ``most``.
        """
        now = most if now is None else now
        if (known := self._open.get(trace_id)) is not None:
            known.now, known.most = now, most
            self._let_in()  # it may need less than it might have
            return True
        trace = _Open(0, now, now, most)
        if not self._waiting and self._fits(trace):
            self._let(trace_id, trace)
            return False
        entry = (trace_id, trace, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[2]
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self._open.pop(trace_id, None)  # let in and given up at the same moment
            self._let_in()
            raise
        return False

    def grown(self, trace_id: str, now: int) -> None:
        """A turn of an open trace has ended, after which it holds so many tokens."""
        if (trace := self._open.get(trace_id)) is not None:
            trace.now = now

    def leave(self, trace_id: str) -> None:
        """Close a trace, and learn from its length; unknown names are fine."""
        if (trace := self._open.pop(trace_id, None)) is not None:
            if trace.now > trace.first:  # else no turn of it has ended
                self.growth.add(trace.now - trace.first)
            self._let_in()

    def refuse(self, error: BaseException) -> None:
        """Let those that wait wait no longer: each raises the error."""
        while self._waiting:
            _, _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def expected(self, traces: list[tuple[int, int, int]]) -> float:
        """Tokens of room that traces need at their ends, at the 95% quantile of the sum, taken as normal.

        Args:
            traces: tokens of the first prompt, held now, and at most.
        """
        total = variance = 0.0
        for first, now, most in traces:
            mean, own = self.growth.moments(most - first)
            total += self._rounded(max(now, min(first + mean, most)))
            variance += own
        worst = sum(self._rounded(most) for _, _, most in traces)
        return min(total + _QUANTILE * math.sqrt(variance), worst)

    def _rounded(self, tokens: float) -> int:
        return math.ceil(tokens / self.block) * self.block

    def _fits(self, trace: _Open) -> bool:
        if not self._open:
            return True
        if len(self._open) >= self.places:
            return False
        traces = [(one.first, one.now, one.most) for one in (*self._open.values(), trace)]
        return self.capacity is None or self.expected(traces) <= self.capacity

    def _let(self, trace_id: str, trace: _Open) -> None:
        trace.rank = self._entered
        self._entered += 1
        self._open[trace_id] = trace

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][1]):
            trace_id, trace, future = self._waiting.popleft()
            if not future.done():
                self._let(trace_id, trace)
                future.set_result(None)
