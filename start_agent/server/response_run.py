"""A running response: its rollout's job, its events, and the resources that it holds until both have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, contextmanager

from sandbox import Result
from start_agent.decoding.events import CellFinished, CellStarted
from start_agent.decoding.segments import Segment
from start_agent.server.errors import APIError, as_api_error, log_failure
from start_agent.server.extension import report
from start_agent.server.jobs import Job
from start_agent.server.response_events import ResponseBuilder
from start_agent.server.response_items import JSON
from start_agent.server.response_plan import Plan, Planner, conversation_id
from start_agent.server.responses_protocol import ResponsesRequest
from start_agent.server.rollout import Finished, Item, TokenCounts, merged
from start_agent.server.state import State
from start_agent.server.store import Entry, NotStored, StoreError, TooLargeError
from start_agent.server.token_logprobs import logprob_rows


class CancelledByClientError(APIError):
    """Another request of the client has cancelled the response."""

    def __init__(self) -> None:
        super().__init__(409, "the response was cancelled", code="response_cancelled")


class ActiveResponses:
    """The running responses by client and id, and the conversations that they will join."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], RunningResponse] = {}
        self._joined: set[tuple[str, str]] = set()

    def get(self, client: str, id: str) -> RunningResponse | None:
        """The client's running response with this id, or None."""
        return self._running.get((client, id))

    @contextmanager
    def running(self, client: str, id: str, response: RunningResponse) -> Iterator[None]:
        """Register a running response."""
        self._running[client, id] = response
        try:
            yield
        finally:
            del self._running[client, id]

    @contextmanager
    def joining(self, client: str, conversation: str) -> Iterator[None]:
        """Reserve a conversation for a running response. Raises ``APIError``, 409, if another one is running in it."""
        if (client, conversation) in self._joined:
            reason = f"another response is in progress in the conversation {conversation!r:.80}"
            raise APIError(409, reason, param="conversation", code="conversation_in_use")
        self._joined.add((client, conversation))
        try:
            yield
        finally:
            self._joined.discard((client, conversation))


class _Job(Job):
    """A job that releases its response's resources once it has ended and its reader has finished or left."""

    def __init__(self, state: State, client: str, plan: Plan, request_id: str) -> None:
        self.held = ExitStack()
        self._left = self._failing = False
        super().__init__(state, client, [plan.rollout], request_id=request_id, on_end=self._release)

    def fail(self, error: Exception) -> None:
        """See ``Job``; the reader gets the error."""
        self._failing = True
        super().fail(error)
        self._failing = False

    def close(self) -> None:
        """See ``Job``; the reader has left."""
        super().close()
        if not self._failing:
            self.leave()

    def leave(self) -> None:
        """The reader has finished or left."""
        self._left = True
        self._release()

    def _release(self) -> None:
        if self._left and self.ended.is_set():
            self.held.close()


class RunningResponse:
    """Runs a response, starting when it is created.

    Args:
        state: the server's state.
        client: the client.
        body: the request.
        plan: the plan of the request.
        request_id: the request's id for the log.

    Attributes:
        job: the rollout's job; the reader of the events closes it.
        over: set once everything is released.

    Raises:
        APIError: the queue is full, or the server is stopping.
    """

    def __init__(self, state: State, client: str, body: ResponsesRequest, plan: Plan, request_id: str) -> None:
        self._state, self._client, self._body, self._plan = state, client, body, plan
        self._request_id = request_id
        self._builder = ResponseBuilder(
            plan.envelope, "" if plan.container is None else plan.container.id, dialect=state.solver.dialect
        )
        self._results: list[Result] = []
        self._error: APIError | None = None
        self.over = asyncio.Event()
        self.job = _Job(state, client, plan, request_id)

    @classmethod
    async def start(cls, state: State, client: str, body: ResponsesRequest, request_id: str) -> RunningResponse:
        """Plan and run a request.

        Raises:
            APIError, InputError: it cannot be run; no resources are held then.
        """
        with ExitStack() as held:
            conversation = conversation_id(body)
            if conversation is not None:
                held.enter_context(state.active.joining(client, conversation))
            history = await _history(state, client, body.previous_response_id, conversation)
            plan = await Planner(state, client, body, history, held).plan()
            running = cls(state, client, body, plan, request_id)
            held.callback(running.over.set)
            held.enter_context(state.active.running(client, plan.envelope["id"], running))
            running.job.held = held.pop_all()
        return running

    @property
    def response(self) -> JSON:
        """The current state of the response."""
        return self._builder.response

    def cancel(self) -> None:
        """Cancel the response."""
        self.job.fail(CancelledByClientError())

    async def events(self) -> AsyncGenerator[list[JSON], None]:
        """The events, in lists of those that come together. Can be called once."""
        yield self._builder.begin()
        finished, events = None, list[JSON]()
        try:
            async with aclosing(self.job.batches()) as batches:
                async for batch in batches:
                    for item in merged(item for _, item in batch):
                        finished = item if isinstance(item, Finished) else finished
                        events += self._events_of(item)
                    if events:
                        yield events
                        events = []
        except Exception as error:
            self.job.fail(error)
            self._error = as_api_error(error)
        await self.job.ended.wait()
        last = await self._last(finished)
        self.job.leave()  # before the last event is sent: the client's next request may need the container
        yield events + last

    async def result(self) -> JSON:
        """The finished response. Raises ``APIError`` if it failed."""
        async with aclosing(self.events()) as batches:
            async for _ in batches:
                pass
        if self._error is not None and not isinstance(self._error, CancelledByClientError):
            raise self._error
        return self.response

    def _events_of(self, item: Item) -> list[JSON]:
        try:
            match item:
                case CellStarted():
                    return self._builder.cell_started()
                case CellFinished(result):
                    self._results.append(result)
                    return self._builder.cell_finished(result)
                case Segment():
                    return self._builder.segment(item, logprob_rows(item, self._state.solver.engine.tokenizer))
                case Finished():
                    return []
        except Exception as error:  # a defect here: the job logs only what its rollouts raise
            log_failure(error, self._request_id)
            raise

    async def _last(self, finished: Finished | None) -> list[JSON]:
        """Store the response and return its last events."""
        if isinstance(self._error, CancelledByClientError):
            events = self._builder.cancel()
        elif self._error is not None:
            code = "invalid_prompt" if self._error.status_code == 400 else "server_error"
            events = self._builder.fail(self._error.message, code=code)
        else:
            assert finished is not None and finished.trace.outcome is not None
            extension = report(finished, self._results) | {"stored": self._body.store is not False}
            usage = usage_of(finished.counts)
            events = self._builder.finish(finished.trace.outcome, usage=usage, extension=extension)
        kept = self._body.store is not False and await self._store()
        if "start_agent" in self.response:
            self.response["start_agent"]["stored"] = kept
        if self._plan.container is not None and self._error is None:
            self._plan.container.kept = kept and any(
                item["type"] == "code_interpreter_call" for item in self.response["output"]
            )
        return events

    async def _store(self) -> bool:
        """Store the response. Returns whether that succeeded: if not, it is still sent."""
        entry = Entry(self.response, self._plan.items, self._body.previous_response_id)
        joins = conversation_id(self._body) if self._error is None else None
        try:
            await self._state.store.put(self._client, "response", entry, conversation=joins)
        except (StoreError, NotStored, TooLargeError):
            return False
        return True


async def _history(state: State, client: str, previous: str | None, conversation: str | None) -> list[JSON]:
    """The items that a request continues. Raises ``APIError`` if they are not stored."""
    if conversation is not None:
        try:
            return (await state.store.get(client, "conversation", conversation)).items
        except NotStored as error:
            raise APIError(404, error.message, param="conversation", code=error.code) from error
    if previous is None:
        return []
    try:
        chain = await state.store.chain(client, previous)
    except NotStored as error:
        code = "previous_response_not_found"
        raise APIError(404, error.message, param="previous_response_id", code=code) from error
    return [item for entry in chain for item in (*entry.items, *entry.body["output"])]


def usage_of(counts: TokenCounts) -> JSON:
    """OpenAI's token counts. Inserted tokens do not count as output."""
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
    }
