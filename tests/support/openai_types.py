"""Validates bodies and events strictly against the types of the ``openai`` package, plus our extension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any, get_args

from openai.types.responses import (
    Response,
    ResponseCodeInterpreterToolCall,
    ResponseInputMessageItem,
    ResponseOutputMessage,
    ResponseReasoningItem,
    ResponseStreamEvent,
)
from pydantic import BaseModel

OURS = {"start_agent"}
"""The one field that is not OpenAI's."""


def _members(union: Any) -> Iterator[Any]:
    for argument in get_args(union):
        yield from _members(argument) if get_args(argument) and not isinstance(argument, type) else (argument,)


_EVENTS = {
    get_args(model.model_fields["type"].annotation)[0]: model
    for model in _members(get_args(ResponseStreamEvent)[0])
    if isinstance(model, type) and issubclass(model, BaseModel)
}


def _extras(value: Any) -> Iterator[str]:
    """The fields, at any depth, that a model has no place for."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from _extras(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            yield from _extras(one)


def parsed(model: type[BaseModel], body: Any, *, ours: Set[str] = OURS) -> BaseModel:
    """A body as a model of ``openai``; fails on an unknown field, or one that is missing or of another type."""
    found = model.model_validate(body)
    unknown = set(_extras(found)) - ours
    assert not unknown, f"fields that {model.__name__} does not have: {unknown}"
    return found


def parsed_response(body: Any) -> Response:
    """A response."""
    found = parsed(Response, body)
    assert isinstance(found, Response)
    return found


def parsed_event(event: dict[str, Any]) -> BaseModel:
    """An event of a streamed response; fails on an unknown type."""
    return parsed(_EVENTS[event["type"]], event)


_ITEMS: dict[str, type[BaseModel]] = {
    "reasoning": ResponseReasoningItem,
    "code_interpreter_call": ResponseCodeInterpreterToolCall,
}


def parsed_item(item: dict[str, Any]) -> BaseModel:
    """An item of a response or a conversation; fails on an unknown type."""
    return parsed(_item_model(item), item)


def _item_model(item: dict[str, Any]) -> type[BaseModel]:
    if item["type"] == "message":
        return ResponseOutputMessage if item["role"] == "assistant" else ResponseInputMessageItem
    return _ITEMS[item["type"]]


def accumulated(events: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What a client has after a stream: the items that were completed, and the sum of the deltas of each, by its id.

    Fails where an event speaks of an item that was not added, or that is done.
    """
    items: dict[int, dict[str, Any]] = {}
    texts: dict[str, str] = {}
    open_items: dict[str, int] = {}
    for event in events:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert not open_items, "one item at a time"
                assert event["output_index"] == len(items)
                open_items[event["item"]["id"]] = event["output_index"]
                texts[event["item"]["id"]] = ""
            case "output_item.done":
                items[open_items.pop(event["item"]["id"])] = event["item"]
            case "reasoning_text.delta" | "output_text.delta" | "code_interpreter_call_code.delta":
                assert open_items[event["item_id"]] == event["output_index"]
                texts[event["item_id"]] += event["delta"]
            case "reasoning_text.done" | "output_text.done":
                assert texts[event["item_id"]] == event["text"]
            case "code_interpreter_call_code.done":
                assert texts[event["item_id"]] == event["code"]
            case name if "item_id" in event:
                assert event["item_id"] in open_items, name
    assert not open_items
    return [items[index] for index in sorted(items)], texts
