"""Admission of rollouts: a maximum number runs, a bounded queue waits, clients take turns."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from start_agent.server.errors import APIError

_FIRST_GUESS = 5.0  # duration of a rollout in seconds, before one has ended
_WEIGHT = 0.1  # of the latest rollout in the moving average
_MAX_RETRY = 60


class Admission:
    """Admits rollouts round-robin over the clients, and in order for each client.

    Args:
        running: maximum number of running rollouts.
        waiting: maximum number of waiting rollouts.
        clock: the time in seconds.
    """

    def __init__(self, running: int, waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_running, self._most_waiting, self._clock = running, waiting, clock
        self._queues: dict[str, deque[Ticket]] = {}  # by client; the next one to be served is first
        self._seconds = _FIRST_GUESS
        self.running = 0
        self.waiting = 0

    def reserve(self, client: str, count: int = 1) -> list[Ticket]:
        """Reserve places for ``count`` rollouts: some may run now, the others wait. Each ticket must be closed.

        Raises:
            APIError: 429, the queue is too full for all of them; 400, they exceed its capacity.
        """
        if count > self._most_running + self._most_waiting:
            most = self._most_running + self._most_waiting
            raise APIError(400, f"the server takes at most {most} rollouts at once", param="n")
        at_once = 0 if self.waiting else self._most_running - self.running
        if self.waiting + max(0, count - at_once) > self._most_waiting:
            raise APIError(
                429,
                "the server's queue is full: try again later",
                code="server_overloaded",
                headers={"Retry-After": str(self.retry_after)},
            )
        tickets = [Ticket(self, client) for _ in range(count)]
        self._queues.setdefault(client, deque()).extend(tickets)
        self.waiting += count
        self._admit()
        return tickets

    @property
    def retry_after(self) -> int:
        """Estimated seconds until there is a free place."""
        ahead = self.waiting + 1
        return max(1, min(_MAX_RETRY, math.ceil(self._seconds * ahead / self._most_running)))

    def _admit(self) -> None:
        while self._queues and self.running < self._most_running:
            client, queue = next(iter(self._queues.items()))
            del self._queues[client]
            ticket = queue.popleft()
            if queue:
                self._queues[client] = queue  # behind the others
            self.waiting -= 1
            self.running += 1
            ticket.admit(self._clock())

    def leave(self, ticket: Ticket, begun: float | None) -> None:
        """Close a ticket; ``begun`` is when it was admitted, None if it was not."""
        if begun is None:
            queue = self._queues[ticket.client]
            queue.remove(ticket)
            if not queue:
                del self._queues[ticket.client]
            self.waiting -= 1
        else:
            self._seconds += _WEIGHT * (self._clock() - begun - self._seconds)
            self.running -= 1
            self._admit()


class Ticket:
    """The place of one rollout; ``async with`` waits until it may run, and closes it."""

    def __init__(self, admission: Admission, client: str) -> None:
        self.client = client
        self._admission = admission
        self._admitted = asyncio.Event()
        self._begun: float | None = None
        self._closed = False

    @property
    def admitted(self) -> bool:
        """Whether it may run."""
        return self._begun is not None

    def admit(self, now: float) -> None:
        """Let it run from now on."""
        self._begun = now
        self._admitted.set()

    def close(self) -> None:
        """Release the place, or leave the queue. Idempotent."""
        if not self._closed:
            self._closed = True
            self._admission.leave(self, self._begun)

    async def __aenter__(self) -> Self:
        try:
            await self._admitted.wait()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
