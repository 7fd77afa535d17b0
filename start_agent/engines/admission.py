"""Admission control: limits the open traces of an engine by the room in its KV cache.

The room that a trace will need is unknown until it ends. Reserving the most that it may need (prompt and
``max_tokens``) would leave most of a cache empty, so the need is estimated from finished traces. For estimates that are
too low, the engine must be able to preempt: to drop a trace's KV and compute it again later.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass

_WINDOW = 256  # remembered traces: the mixture of problems may change during a run
_PRIOR = 2  # assumed traces of the largest growth before any has ended; their weight decreases as traces end
_QUANTILE = 1.645  # standard deviations above the mean: the normal distribution's 95%


class Growth:
    """An estimate of how many tokens a trace grows from its first prompt to its end, based on finished traces.

    Short traces end first and are not representative. So ``prior`` traces of the largest possible growth are assumed at
    the start: before any trace has ended, the estimate is the worst case.

    Args:
        window: the number of latest finished traces to remember.
        prior: the number of assumed traces of the largest growth.
    """

    def __init__(self, window: int = _WINDOW, prior: int = _PRIOR) -> None:
        self._seen: deque[int] = deque()
        self._window, self._prior = window, prior
        self._sum = self._squares = 0

    def add(self, tokens: int) -> None:
        """Record the growth of a finished trace, in tokens."""
        self._count(tokens, 1)
        self._seen.append(tokens)
        if len(self._seen) > self._window:
            self._count(self._seen.popleft(), -1)

    def moments(self, most: int) -> tuple[float, float]:
        """Mean (at most ``most``) and variance of the growth of a trace that may grow by ``most`` tokens.

        The prior is part of the mean only; in the variance it would measure the uncertainty of the prior.
        """
        number = len(self._seen)
        mean = min((self._prior * most + self._sum) / (self._prior + number), most)
        return mean, max(self._squares / number - (self._sum / number) ** 2, 0.0) if number else 0.0

    def _count(self, tokens: int, sign: int) -> None:
        self._sum += sign * tokens
        self._squares += sign * tokens**2


@dataclass(slots=True)
class _Open:
    """An open trace: its rank, and the tokens of its first prompt, its current tokens and the most it may have."""

    rank: int
    first: int
    now: int
    most: int


class Admission:
    """Admits traces according to the room in the KV cache that open traces will probably need.

    A trace is admitted if the total that all open traces are expected to need at their ends, at its 95% quantile, is
    within the capacity. An open trace never waits here again, and the engine decides whether to keep or drop its KV
    while its code runs, so there is no deadlock. New traces are admitted strictly in order. A single trace is admitted
    whatever its size.

    Args:
        places: the most open traces.
        capacity: tokens that fit the cache; None if the engine does not know.
        block: tokens in a block of the cache; a trace takes complete blocks.
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
        """The number of traces admitted before this one; their turns should have priority."""
        trace = self._open.get(trace_id)
        return self._entered if trace is None else trace.rank

    async def enter(self, trace_id: str, most: int, now: int | None = None) -> bool:
        """Wait until the trace may run a turn; returns whether it was open before.

        Raises the error passed to ``fail_waiting``.

        Args:
            trace_id: identifies the trace.
            most: the most tokens that it may have.
            now: the tokens that it has before the turn; ``most`` if unset.
        """
        now = most if now is None else now
        if (known := self._open.get(trace_id)) is not None:
            known.now, known.most = now, most
            self._admit_waiting()  # the trace may need less than before
            return True
        trace = _Open(0, now, now, most)
        if not self._waiting and self._fits(trace):
            self._admit(trace_id, trace)
            return False
        entry = (trace_id, trace, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[2]
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self._open.pop(trace_id, None)  # admitted and cancelled at the same time
            self._admit_waiting()
            raise
        return False

    def grown(self, trace_id: str, now: int) -> None:
        """Record the number of tokens of an open trace after a turn."""
        if (trace := self._open.get(trace_id)) is not None:
            trace.now = now

    def leave(self, trace_id: str) -> None:
        """Close a trace and record its growth; unknown ids are ignored."""
        if (trace := self._open.pop(trace_id, None)) is not None:
            if trace.now > trace.first:  # otherwise none of its turns has ended
                self.growth.add(trace.now - trace.first)
            self._admit_waiting()

    def fail_waiting(self, error: BaseException) -> None:
        """Raise the error in all waiting calls of ``enter``."""
        while self._waiting:
            _, _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def expected(self, traces: list[tuple[int, int, int]]) -> float:
        """The tokens that traces need at their ends: the 95% quantile of the sum, assuming a normal distribution.

        Args:
            traces: for each trace the tokens of its first prompt, its current tokens, and the most it may have.
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

    def _admit(self, trace_id: str, trace: _Open) -> None:
        trace.rank = self._entered
        self._entered += 1
        self._open[trace_id] = trace

    def _admit_waiting(self) -> None:
        while self._waiting and self._fits(self._waiting[0][1]):
            trace_id, trace, future = self._waiting.popleft()
            if not future.done():
                self._admit(trace_id, trace)
                future.set_result(None)
