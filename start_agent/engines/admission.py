"""How many traces may be open at once in an engine whose KV cache is elsewhere."""

from __future__ import annotations

import asyncio
from collections import deque


class Admission:
    """Open traces, and the room in the KV cache that each may come to need.

    A paused trace (its code runs) keeps its place, so that what was computed for it is still cached when it goes on.
    A trace that is open never waits again: it holds what it needs, and nothing can lock up. New ones are let in
    strictly in order. One trace alone is let in whatever its size.

    Args:
        places: traces that are open at once.
        capacity: tokens that the cache holds; None where the engine does not know.
    """

    def __init__(self, places: int, capacity: int | None = None) -> None:
        self.places, self.capacity = places, capacity
        self._open: dict[str, int] = {}
        self._waiting: deque[tuple[str, int, asyncio.Future[None]]] = deque()

    def __contains__(self, trace_id: str) -> bool:
        return trace_id in self._open

    def __len__(self) -> int:
        return len(self._open)

    async def enter(self, trace_id: str, size: int) -> bool:
        """Wait until the trace may run a turn of at most ``size`` tokens in all; whether it had been open before.

        Raises what ``refuse`` is given.
        """
        if trace_id in self._open:
            self._open[trace_id] = size
            self._let_in()  # it may need less than it might have
            return True
        if not self._waiting and self._fits(size):
            self._open[trace_id] = size
            return False
        entry = (trace_id, size, asyncio.get_running_loop().create_future())
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

    def leave(self, trace_id: str) -> None:
        """Close a trace; unknown names are fine."""
        if self._open.pop(trace_id, None) is not None:
            self._let_in()

    def refuse(self, error: BaseException) -> None:
        """Let those that wait wait no longer: each raises the error."""
        while self._waiting:
            _, _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def _fits(self, size: int) -> bool:
        if not self._open:
            return True
        room = self.capacity is None or sum(self._open.values()) + size <= self.capacity
        return room and len(self._open) < self.places

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][1]):
            trace_id, size, future = self._waiting.popleft()
            if not future.done():
                self._open[trace_id] = size
                future.set_result(None)
