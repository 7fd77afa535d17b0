"""``/v1/conversations``: conversations that responses continue and are added to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import Query, Request, Response

from start_agent.server.ascii_json import JSONResponse
from start_agent.server.body import new_router
from start_agent.server.errors import ERRORS, APIError
from start_agent.server.paging import Paging
from start_agent.server.response_input import listed
from start_agent.server.response_items import JSON, new_id
from start_agent.server.responses_protocol import AddItems, CreateConversation, UpdateConversation
from start_agent.server.state import client_of, state_of
from start_agent.server.store import Entry

router = new_router()


@router.post("/conversations", responses=ERRORS)
async def create_conversation(request: Request, body: CreateConversation) -> Response:
    """Create a conversation, empty or with its first items."""
    conversation = {
        "id": new_id("conv"),
        "object": "conversation",
        "created_at": int(time.time()),
        "metadata": body.metadata or {},
    }
    entry = Entry(conversation, listed(body.items or []))
    await state_of(request).store.put(client_of(request), "conversation", entry)
    return JSONResponse(conversation)


@router.get("/conversations/{conversation_id}", responses=ERRORS)
async def get_conversation(request: Request, conversation_id: str) -> Response:
    """A conversation."""
    return JSONResponse((await _entry(request, conversation_id)).body)


@router.post("/conversations/{conversation_id}", responses=ERRORS)
async def update_conversation(request: Request, conversation_id: str, body: UpdateConversation) -> Response:
    """Replace a conversation's metadata."""

    def change(entry: Entry) -> Entry:
        return replace(entry, body=entry.body | {"metadata": body.metadata or {}})

    store = state_of(request).store
    return JSONResponse((await store.change(client_of(request), "conversation", conversation_id, change)).body)


@router.delete("/conversations/{conversation_id}", responses=ERRORS)
async def delete_conversation(request: Request, conversation_id: str) -> Response:
    """Delete a conversation. Its responses are kept."""
    await state_of(request).store.delete(client_of(request), "conversation", conversation_id)
    return JSONResponse({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@router.get("/conversations/{conversation_id}/items", responses=ERRORS)
async def list_items(request: Request, conversation_id: str, paging: Annotated[Paging, Query()]) -> Response:
    """The items of a conversation, by default the latest first."""
    return JSONResponse(paging.page((await _entry(request, conversation_id)).items))


@router.post("/conversations/{conversation_id}/items", responses=ERRORS)
async def add_items(request: Request, conversation_id: str, body: AddItems) -> Response:
    """Add items at the end."""
    added = listed(body.items)

    def change(entry: Entry) -> Entry:
        return replace(entry, items=[*entry.items, *added])

    await state_of(request).store.change(client_of(request), "conversation", conversation_id, change)
    return JSONResponse(Paging(order="asc", limit=100).page(added))


@router.get("/conversations/{conversation_id}/items/{item_id}", responses=ERRORS)
async def get_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """An item."""
    return JSONResponse(_found((await _entry(request, conversation_id)).items, item_id))


@router.delete("/conversations/{conversation_id}/items/{item_id}", responses=ERRORS)
async def delete_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """Remove an item from a conversation."""

    def change(entry: Entry) -> Entry:
        gone = _found(entry.items, item_id)
        return replace(entry, items=[item for item in entry.items if item is not gone])

    store = state_of(request).store
    return JSONResponse((await store.change(client_of(request), "conversation", conversation_id, change)).body)


async def _entry(request: Request, conversation_id: str) -> Entry:
    return await state_of(request).store.get(client_of(request), "conversation", conversation_id)


def _found(items: Sequence[JSON], item_id: str) -> JSON:
    for item in items:
        if item["id"] == item_id:
            return item
    raise APIError(404, f"the conversation has no item {item_id[:64]!r}", code="item_not_found")
