"""Runs a request's rollouts in separate tasks, so that their resources are released even if the reader leaves.

An endpoint creates a ``Job``, which takes places in the queue, and reads its items in batches: all that came since the
last one. Closing the job cancels its remaining rollouts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self, TypeVar

from fastapi import Request

from start_agent.decoding.segments import Segment
from start_agent.server.admission import Ticket
from start_agent.server.errors import APIError, as_api_error, log_failure
from start_agent.server.rollout import Item, Rollout
from start_agent.server.state import State, shutting_down

T = TypeVar("T")

Batch = list[tuple[int, Item]]
"""Items with the index of their rollout, in order."""


class ClientGoneError(APIError):
    """The client has closed the connection; the status is nginx's for that."""

    def __init__(self) -> None:
        super().__init__(499, "the client closed the connection")


class Job:
    """Runs rollouts, starting when it is created.

    Args:
        state: the server's state.
        client: the client.
        rollouts: the rollouts to run.
        request_id: the request's id for the log.
        on_end: called once all rollouts have ended.

    Attributes:
        ended: set once all rollouts have ended.

    Raises:
        APIError: the queue is full, or the server is stopping.
    """

    def __init__(
        self,
        state: State,
        client: str,
        rollouts: Sequence[Rollout],
        *,
        request_id: str = "",
        on_end: Callable[[], None] | None = None,
    ) -> None:
        if state.stopping.is_set():
            raise shutting_down()
        self.ended = asyncio.Event()
        self._state, self._rollouts, self._request_id, self._on_end = state, rollouts, request_id, on_end
        self._items: Batch = []
        self._news = asyncio.Event()
        self._tokens = 0  # of the items
        self._begun = False  # to be read
        self._error: Exception | None = None
        self._tickets = state.admission.reserve(client, len(rollouts))
        self._tasks: set[asyncio.Task[None]] = set()
        state.jobs.add(self)
        for index, (rollout, ticket) in enumerate(zip(rollouts, self._tickets, strict=True)):
            task = asyncio.create_task(self._run(index, rollout, ticket), name=f"rollout of {request_id}")
            self._tasks.add(task)
            task.add_done_callback(self._done)

    @property
    def admitted(self) -> bool:
        """Whether one of its rollouts is running or has run."""
        return any(ticket.admitted for ticket in self._tickets)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """What has come since the last batch, each time that there is something, until all rollouts have finished.

        Raises:
            Exception: what a rollout ended with; the others are cancelled.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            items, self._items, self._tokens = self._items, [], 0
            if items:
                self._begun = True
                yield items
            if self._items:  # came meanwhile: before the end, and before an error
                continue
            if self._error is not None:
                raise self._error
            if not self._tasks:
                return

    def fail(self, error: Exception) -> None:
        """End the job with this error."""
        if self._error is None and self._tasks:
            self._error = error
            log_failure(error, self._request_id)
        self.close()
        self._news.set()

    def close(self) -> None:
        """Cancel the running rollouts; they end soon after."""
        for task in self._tasks:
            task.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def _run(self, index: int, rollout: Rollout, ticket: Ticket) -> None:
        observer = self._state.metrics.observed(rollout.counts.prompt)
        try:
            async with asyncio.timeout(self._state.options.request_timeout), ticket:
                observer.admitted()
                async with aclosing(rollout.items()) as items:
                    async for item in items:
                        observer.item(item, rollout.counts)
                        self._state.latest = observer.latest
                        self._put(index, item)
        except asyncio.CancelledError:
            observer.failed("cancelled", rollout.counts)
            raise
        except Exception as error:
            observer.failed(as_api_error(error).code or "invalid_request", rollout.counts)
            self.fail(error)

    def _put(self, index: int, item: Item) -> None:
        self._items.append((index, item))
        if isinstance(item, Segment):
            self._tokens += len(item.token_ids)
            if self._begun and self._tokens < self._state.options.stream_interval:
                return
        self._news.set()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            for ticket in self._tickets:  # a task that was cancelled before its first step has closed none
                ticket.close()
            self._state.jobs.discard(self)
            self.ended.set()
            self._news.set()
            if self._on_end is not None:
                self._on_end()


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for work, and give it up when the client goes away.

    Raises:
        ClientGoneError: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await one


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
