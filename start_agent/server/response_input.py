"""Converts input items of the Responses API to stored items, and stored items to chat messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from start_agent.decoding.controller import EMPTY_OUTPUT
from start_agent.server.response_items import JSON, CodeCall, Message, Reasoning, new_id
from start_agent.server.responses_protocol import InputCodeCall, InputItem, InputMessage, InputReasoning
from start_agent.tokens.conversations import THOUGHTS
from start_agent.tokens.dialects import FENCES, Dialect
from start_agent.tokens.tokenizer import Message as ChatMessage


def listed(given: str | Sequence[InputItem], make_id: Callable[[str], str] = new_id) -> list[JSON]:
    """The input of a request as complete items with new ids, as they are stored and listed."""
    if isinstance(given, str):
        given = [InputMessage(role="user", content=given)]
    return [_listed(item, make_id) for item in given]


def _listed(item: Any, make_id: Callable[[str], str]) -> JSON:
    match item:
        case InputMessage(role=role, content=content):
            texts = [content] if isinstance(content, str) else [part.text for part in content]
            if role == "assistant":
                parts: list[JSON] = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
            else:
                parts = [{"type": "input_text", "text": text} for text in texts]
            found = {"type": "message", "role": role, "status": "completed", "content": parts}
            return {"id": make_id(Message.prefix), **found}
        case InputReasoning(content=content):
            parts = [{"type": "reasoning_text", "text": part.text} for part in content or ()]
            return {"id": make_id(Reasoning.prefix), "type": "reasoning", "summary": [], "content": parts}
        case InputCodeCall():
            return {
                "id": make_id(CodeCall.prefix),
                "type": "code_interpreter_call",
                "status": item.status or "completed",
                "code": item.code or "",
                "container_id": item.container_id,
                "outputs": None if item.outputs is None else [output.model_dump() for output in item.outputs],
            }
    raise AssertionError(f"an item of the type {type(item).__name__}")


def messages(items: Sequence[JSON], *, thoughts: bool = True, dialect: Dialect = FENCES) -> list[ChatMessage]:
    """The messages of a conversation, for ``ChatFormat.prompt``.

    Consecutive items of the assistant become one message. Its thoughts contain its cells as the model writes them, each
    followed by its output.

    Args:
        items: items from ``listed`` or from a response.
        thoughts: whether to pass earlier thoughts to the template, which may still drop them.
        dialect: how the model calls code.
    """
    found: list[ChatMessage] = []
    thinking: list[str] = []
    for item in items:
        if item["type"] == "reasoning":
            thinking += [part["text"] for part in item["content"]]
        elif item["type"] == "code_interpreter_call":
            starts_line = not thinking or thinking[-1].endswith("\n")
            thinking.append(("" if starts_line else "\n") + _cell(item, dialect))
        elif item["role"] == "assistant":
            _add_answer(found, "".join(part["text"] for part in item["content"]), thinking)
            thinking = []
        else:
            if thinking:
                _add_answer(found, "", thinking)
                thinking = []
            found.append({"role": item["role"], "content": "\n\n".join(part["text"] for part in item["content"])})
    if thinking:
        _add_answer(found, "", thinking)
    if not thoughts:
        return [{key: value for key, value in message.items() if key != THOUGHTS} for message in found]
    return found


def _add_answer(found: list[ChatMessage], text: str, thinking: Sequence[str]) -> None:
    said = "".join(thinking).strip("\n")
    found.append({"role": "assistant", "content": text} | ({THOUGHTS: said} if said else {}))


def _cell(item: JSON, dialect: Dialect) -> str:
    """A cell with its output, as part of the thoughts."""
    if dialect.tagged:
        code = f"{dialect.code_open}{item['code']}{dialect.code_close}\n"
    else:
        code = f"{dialect.opening}{item['code']}\n```\n"
    if item["outputs"] is None:
        return code
    logs = "\n".join(output["logs"] for output in item["outputs"] if output["type"] == "logs")
    return code + dialect.output(logs or EMPTY_OUTPUT)


def last_container(items: Sequence[JSON]) -> str | None:
    """The container of the last cell in a conversation that ran."""
    cells = (
        item for item in reversed(items) if item["type"] == "code_interpreter_call" and item["outputs"] is not None
    )
    return next((item["container_id"] for item in cells), None)
