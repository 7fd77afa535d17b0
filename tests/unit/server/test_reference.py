"""The reference page names every parameter of every request, and every path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from start_agent.server.chat_protocol import ChatRequest, CompletionRequest
from start_agent.server.extension import Report, RequestExtension
from start_agent.server.responses_protocol import CreateContainer, Reasoning, ResponsesRequest
from tests.support.apps import app_of

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "server.md").read_text()


def section(title: str) -> str:
    """The text below a heading, to the next of its level."""
    level = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert level is not None, title
    rest = PAGE[level.end() :]
    following = re.search(rf"^#{{1,{len(level[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


@pytest.mark.parametrize(
    ("model", "title"),
    [
        (ResponsesRequest, "Responses"),
        (Reasoning, "Responses"),
        (ChatRequest, "Chat completions"),
        (CompletionRequest, "Completions"),
        (CreateContainer, "Containers"),
        (RequestExtension, "The field start_agent"),
        (Report, "The field start_agent"),
    ],
)
def test_every_parameter_is_described(model: type[BaseModel], title: str) -> None:
    shared = section("Chat completions") if title == "Completions" else ""
    text = section(title) + shared
    missing = [name for name in model.model_fields if f"`{name}`" not in text]
    assert missing == []


async def test_every_path_is_named() -> None:
    async with app_of([]) as app:
        paths = [re.sub(r"\{\w+\}", "{}", path) for path in app.openapi()["paths"]]
    named = re.sub(r"\{\w+\}", "{}", PAGE)
    assert [path for path in paths if path not in named and "/".join(path.split("/")[-2:]) not in named] == []
