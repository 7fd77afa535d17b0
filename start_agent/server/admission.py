"""Who runs and who waits: so many rollouts at once, a bounded queue behind them, the clients in turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from start_agent.server.errors import APIError

_FIRST_GUESS = 5.0  # seconds that a rollout takes, before one has ended
_WEIGHT = 0.1  # of the latest rollout in the average
_LONGEST_RETRY = 60


class Admission:
    """Lets rollouts run, in the order of asking for each client, and one of each client in turn.

    Args:
        running: that run at once, at most.
        waiting: that wait behind them, at most.
        clock: seconds.
    """

    def __init__(self, running: int, waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_running, self._most_waiting, self._clock = running, waiting, clock
        self._queues: dict[str, deque[Ticket]] = {}  # by client; the next one to be served comes first
        self._seconds = _FIRST_GUESS
        self.running = 0
        self.waiting = 0

    def reserve(self, client: str, count: int = 1) -> list[Ticket]:
        """Places for so many rollouts: some may run now, the others wait. Each ticket has to be closed.

        Raises:
            APIError: 429, there is no room for all of them; 400, there never is.
        """
        if count > self._most_running + self._most_waiting:
            most = self._most_running + self._most_waiting
            raise APIError(400, f"the server takes at most {most} rollouts at once", param="n")
        at_once = 0 if self.waiting else self._most_running - self.running
        if self.waiting + max(0, count - at_once) > self._most_waiting:
            raise APIError(
                429,
                "the server has more requests than it takes: try again later",
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
        """Seconds in which there will probably be a place."""
        ahead = self.waiting + 1
        return max(1, min(_LONGEST_RETRY, math.ceil(self._seconds * ahead / self._most_running)))

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
        """A ticket is closed; ``begun`` is when it was admitted."""
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
    """A place of one rollout; ``async with`` waits until it may run, and closes it."""

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
        """It may run from now on."""
        self._begun = now
        self._admitted.set()

    def close(self) -> None:
        """Give the place up, or leave the queue. May be called again."""
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
