"""Calls of the Responses API over test doubles, with each answer validated against OpenAI's types."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from start_agent.engines.scripted import Script
from start_agent.server.auth import Keys
from tests.support.apps import app_of, client_of
from tests.support.openai_types import accumulated, parsed_event, parsed_response

SCRIPT = [
    "Let us compute. </think>",
    "print(6*7)\n```\n",
    "\nSo 42.</think>\n\nThe answer is \\boxed{42}.<|im_end|>",
]
"""A rollout with a hint, a cell and an answer, where the chance of hints is 0."""

ANSWER = "The answer is \\boxed{42}."


@asynccontextmanager
async def two_clients(
    script: Script, **options: Any
) -> AsyncGenerator[tuple[FastAPI, httpx.AsyncClient, httpx.AsyncClient]]:
    """An application and two clients with different keys."""
    keys = ("key-of-one", "key-of-another")
    async with (
        app_of(script, keys=Keys(keys), **options) as app,
        client_of(app, key=keys[0]) as one,
        client_of(app, key=keys[1]) as other,
    ):
        yield app, one, other


async def respond(client: httpx.AsyncClient, given: Any = "What is 6*7?", **more: Any) -> dict[str, Any]:
    """A response that is not streamed."""
    answer = await client.post("/v1/responses", json={"model": "scripted", "input": given, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    parsed_response(body)
    return body


async def streamed(client: httpx.AsyncClient, given: Any = "What is 6*7?", **more: Any) -> list[dict[str, Any]]:
    """The events of a streamed response; they add up to its items."""
    request = {"model": "scripted", "input": given, "stream": True, **more}
    async with client.stream("POST", "/v1/responses", json=request) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        events = events_of((await answer.aread()).decode())
    items, _ = accumulated(events)
    assert items == events[-1]["response"]["output"]
    return events


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = lines
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            parsed_event(event)
            found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def answer_of(response: dict[str, Any]) -> str:
    """What a response answers."""
    messages = (item for item in response["output"] if item["type"] == "message")
    return "".join(part["text"] for message in messages for part in message["content"])


def calls_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells of a response."""
    return [item for item in response["output"] if item["type"] == "code_interpreter_call"]


def plain(response: dict[str, Any]) -> Any:
    """A response without what differs from one to the next: ids, times, and what the engine had cached."""
    changing = {"id", "created_at", "completed_at", "container_id", "seconds", "seed", "previous_response_id"}
    changing |= {"cached", "cached_tokens"}

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(one) for key, one in value.items() if key not in changing}
        return [without(one) for one in value] if isinstance(value, list) else value

    return without(response)
