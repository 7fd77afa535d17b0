"""``/v1/responses``: create, stream, read, cancel and delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict

from start_agent.server.ascii_json import JSONResponse
from start_agent.server.body import new_router
from start_agent.server.errors import ERRORS, APIError
from start_agent.server.jobs import until_gone
from start_agent.server.paging import Paging
from start_agent.server.response_run import RunningResponse
from start_agent.server.responses_protocol import ResponsesRequest
from start_agent.server.sse import EventStream, named_event
from start_agent.server.state import client_of, state_of
from start_agent.server.wire import NEUTRAL

router = new_router()

_MADE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the response; with ``stream`` its events, as ``text/event-stream``",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}},
    }
}


_Off = Annotated[
    Literal[False] | None, BeforeValidator(lambda given: False if given in ("false", "0") else given), NEUTRAL
]


class _Reading(BaseModel):
    """Query parameters of reading a response: it cannot be streamed again."""

    model_config = ConfigDict(extra="forbid")

    stream: _Off = None
    include_obfuscation: _Off = None


@router.post("/responses", responses=_MADE | ERRORS)
async def create_response(request: Request, body: ResponsesRequest) -> Response:
    """Create a response: the model thinks, runs code in its container, and answers."""
    state = state_of(request)
    state.check_model(body.model)
    running = await RunningResponse.start(state, client_of(request), body, request.state.request_id)
    if body.stream:
        return EventStream(running.job, _written(running))
    async with running.job:
        return JSONResponse(await until_gone(request, running.result()))


async def _written(running: RunningResponse) -> AsyncGenerator[bytes, None]:
    async with aclosing(running.events()) as batches:
        async for events in batches:
            yield b"".join(named_event(event["type"], event) for event in events)


@router.get("/responses/{response_id}", responses=ERRORS)
async def get_response(request: Request, response_id: str, reading: Annotated[_Reading, Query()]) -> Response:
    """A running or stored response."""
    state, client = state_of(request), client_of(request)
    running = state.active.get(client, response_id)
    if running is not None:
        return JSONResponse(running.response)
    return JSONResponse((await state.store.get(client, "response", response_id)).body)


@router.delete("/responses/{response_id}", responses=ERRORS)
async def delete_response(request: Request, response_id: str) -> Response:
    """Delete a stored response. Responses that follow it cannot be continued any more."""
    state, client = state_of(request), client_of(request)
    if state.active.get(client, response_id) is not None:
        raise APIError(409, "the response is in progress: cancel it first", code="response_in_progress")
    await state.store.delete(client, "response", response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.get("/responses/{response_id}/input_items", responses=ERRORS)
async def list_input_items(request: Request, response_id: str, paging: Annotated[Paging, Query()]) -> Response:
    """The input items of a stored response."""
    entry = await state_of(request).store.get(client_of(request), "response", response_id)
    return JSONResponse(paging.page(entry.items))


@router.post("/responses/{response_id}/cancel", responses=ERRORS)
async def cancel_response(request: Request, response_id: str) -> Response:
    """Cancel a running response."""
    state, client = state_of(request), client_of(request)
    running = state.active.get(client, response_id)
    if running is None:
        await state.store.get(client, "response", response_id)  # 404 if there is none
        raise APIError(409, "the response has already ended", code="response_not_in_progress")
    running.cancel()
    await running.over.wait()
    return JSONResponse(running.response)
