"""Parameters for thinking and earlier thoughts, as variables of the chat template."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.tokens.templates import ChatTemplate
from start_agent.tokens.tokenizer import Message, Tokenizer
from tests.support.apps import app_of, client_of
from tests.support.responses import respond
from tests.unit.server.test_app import error

THOUGHTS = "Let me see.\n```python\n6*7\n```\n```output\n42\n```"


def render(messages: list[Message], **variables: Any) -> str:
    """A template with the variables of Qwen3.5's and gpt-oss's."""
    text = f"effort {variables['reasoning_effort']}\n" if "reasoning_effort" in variables else ""
    for message in messages:
        thoughts = message.get("reasoning_content", "") if variables.get("preserve_thinking") else ""
        thoughts = f"<think>\n{thoughts}\n</think>\n" if thoughts else ""
        text += f"<|im_start|>{message['role']}\n{thoughts}{message['content']}<|im_end|>\n"
    closed = "" if variables.get("enable_thinking", True) else "\n</think>\n"
    return f"{text}<|im_start|>assistant\n<think>\n{closed}"


def tokenizer() -> Tokenizer:
    source = "{{ preserve_thinking enable_thinking reasoning_effort <think> </think> }}"
    plain = byte_tokenizer()
    plain.render_chat = ChatTemplate(source, render)
    return plain


def says(request: TurnRequest) -> str:
    return (
        "Answer.<|im_end|>"
        if "\n</think>\n" in tokenizer().decode(request.token_ids[-20:])
        else "</think>Answer.<|im_end|>"
    )


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(says, tokenizer=tokenizer())


@pytest.fixture
async def client(engine: ScriptedEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with app_of(engine, settings={"hints": False}) as app, client_of(app) as client:
        yield client


def earlier() -> list[dict[str, Any]]:
    """A conversation whose earlier turn has thoughts, a cell and an answer."""
    thought: dict[str, Any] = {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Let me see.\n"}],
    }
    logs = [{"type": "logs", "logs": "42"}]
    cell: dict[str, Any] = {"type": "code_interpreter_call", "code": "6*7", "container_id": "cntr_0", "outputs": logs}
    question, answer = {"role": "user", "content": "6*7?"}, {"role": "assistant", "content": "42."}
    return [question, thought, cell, answer, {"role": "user", "content": "And 7*7?"}]


def prompt(engine: ScriptedEngine) -> str:
    return engine.tokenizer.decode(engine.requests[-1].token_ids)


async def test_all_turns_keeps_earlier_thoughts(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    response = await respond(client, earlier(), reasoning={"context": "all_turns"})
    assert response["reasoning"]["context"] == "all_turns"
    assert f"<think>\n{THOUGHTS}\n</think>\n42." in prompt(engine)


@pytest.mark.parametrize("context", [None, "auto", "current_turn"])
async def test_else_the_template_drops_them(
    client: httpx.AsyncClient, engine: ScriptedEngine, context: str | None
) -> None:
    response = await respond(client, earlier(), reasoning={"context": context})
    assert response["reasoning"]["context"] == "current_turn"
    assert "Let me see." not in prompt(engine)


async def test_variables_of_the_request(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    await respond(client, earlier(), chat_template_kwargs={"preserve_thinking": True})
    assert THOUGHTS in prompt(engine)
    await respond(client, "x", chat_template_kwargs={"enable_thinking": False})
    assert prompt(engine).endswith("\n</think>\n")
    await respond(client, "x")
    assert prompt(engine).endswith("<think>\n")
    asked = {"model": "scripted", "input": "x", "chat_template_kwargs": {"messages": []}}
    error(await client.post("/v1/responses", json=asked), 400)


async def test_effort(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    response = await respond(client, "x", reasoning={"effort": "high"})
    assert prompt(engine).startswith("effort high\n")
    assert response["reasoning"]["effort"] == "high"
    none = await respond(client, "x", reasoning={"effort": "none"})
    assert prompt(engine).endswith("\n</think>\n")
    assert [item["type"] for item in none["output"]] == ["message"]
