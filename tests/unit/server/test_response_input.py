"""Items of a conversation: accepted ones, how they are listed, and the resulting messages."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from start_agent.decoding.controller import EMPTY_OUTPUT
from start_agent.server.response_input import last_container, listed, messages
from start_agent.server.responses_protocol import InputItem, ResponsesRequest
from tests.support.openai_types import parsed_item

ITEMS = TypeAdapter(list[InputItem])


def items(*given: Any) -> list[dict[str, Any]]:
    numbers = count(1)
    return listed(ITEMS.validate_python(list(given)), lambda prefix: f"{prefix}_{next(numbers)}")


THOUGHT = {
    "id": "rs_9",
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Let me see.\n"}],
    "status": "completed",
    "start_agent": {"spans": [{"kind": "model", "tokens": 3}]},
}
CELL = {
    "id": "ci_9",
    "type": "code_interpreter_call",
    "code": "print(6*7)",
    "container_id": "cntr_1",
    "outputs": [{"type": "logs", "logs": "42"}, {"type": "image", "url": "data:image/png;base64,AA=="}],
    "status": "completed",
    "start_agent": {"cell": {"outcome": "ok"}},
}
ANSWER = {
    "id": "msg_9",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "phase": None,
    "content": [{"type": "output_text", "text": "It is 42.", "annotations": [], "logprobs": []}],
}


def test_what_a_response_returned_can_be_sent_again() -> None:
    question = {"role": "user", "content": "6*7?"}
    found = items(question, THOUGHT, CELL, ANSWER, {"role": "user", "content": "And 7*7?"})
    for item in found:
        parsed_item(item)
    assert [item["id"] for item in found] == ["msg_1", "rs_2", "ci_3", "msg_4", "msg_5"], "ids are the server's"
    assert all("start_agent" not in item for item in found)
    assert messages(found) == [
        {"role": "user", "content": "6*7?"},
        {
            "role": "assistant",
            "content": "It is 42.",
            "reasoning_content": "Let me see.\n```python\nprint(6*7)\n```\n```output\n42\n```",
        },
        {"role": "user", "content": "And 7*7?"},
    ]
    assert messages(found, thoughts=False)[1] == {"role": "assistant", "content": "It is 42."}
    assert last_container(found) == "cntr_1"


def test_a_text_is_a_message_of_the_user() -> None:
    assert messages(listed("6*7?")) == [{"role": "user", "content": "6*7?"}]


def test_parts_of_a_message_are_paragraphs_and_those_of_an_answer_are_one_text() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    answer = [{"type": "output_text", "text": "c", "annotations": []}, {"type": "output_text", "text": "d"}]
    given = items({"role": "user", "content": parts}, {"role": "assistant", "content": answer})
    assert [message["content"] for message in messages(given)] == ["a\n\nb", "cd"]


def test_roles_are_kept() -> None:
    given = [{"role": role, "content": role} for role in ("system", "developer", "user")]
    assert messages(items(*given)) == given


def test_a_cell_that_was_not_run_and_one_that_printed_nothing() -> None:
    cut_off = CELL | {"outputs": None, "status": "incomplete"}
    silent = CELL | {"outputs": []}
    (message,) = messages(items(silent, cut_off))
    cell = "```python\nprint(6*7)\n```\n"
    assert message == {
        "role": "assistant",
        "content": "",
        "reasoning_content": f"{cell}```output\n{EMPTY_OUTPUT}\n```\n{cell}".strip("\n"),
    }
    assert last_container(items(cut_off)) is None


@pytest.mark.parametrize(
    ("item", "path"),
    [
        ({"type": "function_call_output", "call_id": "1", "output": "x"}, (0,)),
        ({"type": "item_reference", "id": "msg_1"}, (0,)),
        ({"type": 7}, (0,)),
        ({"type": ["message"]}, (0,)),
        ("text", (0,)),
        ({"role": "tool", "content": "x"}, (0, "message", "role")),
        ({"role": "user"}, (0, "message", "content")),
        ({"role": "user", "content": "x", "name": "y"}, (0, "message", "name")),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
            (0, "message", "content", "list", 0, "type"),
        ),
        (THOUGHT | {"encrypted_content": "x"}, (0, "reasoning", "encrypted_content")),
        (THOUGHT | {"summary": [{"type": "summary_text", "text": "x"}]}, (0, "reasoning", "summary")),
        (CELL | {"outputs": [{"type": "file"}]}, (0, "code_interpreter_call", "outputs", 0)),
    ],
)
def test_what_is_not_understood_is_refused_where_it_is(item: Any, path: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as error:
        items(item)
    assert error.value.errors()[0]["loc"][: len(path)] == path


BASE = {"model": "m", "input": "6*7?"}


@pytest.mark.parametrize(
    "more",
    [
        {"background": True},
        {"temperature": "1"},
        {"temperature": -1},
        {"temperature": 3},
        {"top_p": 0},
        {"max_output_tokens": 0},
        {"max_output_tokens": 1.5},
        {"max_output_tokens": True},
        {"max_tool_calls": -1},
        {"top_logprobs": 21},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "name": "f"}]},
        {"tools": [{"type": "code_interpreter"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_1"]}}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}}]},
        {
            "tools": [
                {"type": "code_interpreter", "container": {"type": "auto", "network_policy": {"type": "allowlist"}}}
            ]
        },
        {"tools": [{"type": "code_interpreter", "container": "cntr_1"}] * 2},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "code_interpreter"}},
        {"include": ["nonsense"]},
        {"text": {"format": {"type": "json_object"}}},
        {"text": {"verbosity": "low"}},
        {"reasoning": {"summary": "detailed"}},
        {"reasoning": {"effort": "extreme"}},
        {"reasoning": {"mode": "pro"}},
        {"truncation": "middle"},
        {"metadata": {"a": 1}},
        {"metadata": {"a" * 65: "b"}},
        {"metadata": {str(number): "b" for number in range(17)}},
        {"service_tier": "flex"},
        {"stream_options": {"include_obfuscation": True}},
        {"prompt": {"id": "pmpt_1"}},
        {"moderation": {"model": "x"}},
        {"conversation": 7},
        {"n": 2},
        {"unknown": None},
    ],
)
def test_what_is_not_supported_is_refused_by_name(more: dict[str, Any]) -> None:
    ResponsesRequest.model_validate(BASE)
    with pytest.raises(ValidationError) as error:
        ResponsesRequest.model_validate(BASE | more)
    assert error.value.errors()[0]["loc"][0] in more


@pytest.mark.parametrize("name", [name for name in ResponsesRequest.model_fields if name not in BASE])
def test_null_is_as_if_unset(name: str) -> None:
    assert ResponsesRequest.model_validate(BASE | {name: None}) == ResponsesRequest.model_validate(BASE)


def test_values_that_ask_for_nothing() -> None:
    ResponsesRequest.model_validate(
        BASE
        | {
            "background": False,
            "context_management": [],
            "include": ["code_interpreter_call.outputs", "reasoning.encrypted_content"],
            "parallel_tool_calls": True,
            "reasoning": {"mode": "standard", "summary": "auto", "generate_summary": "auto"},
            "service_tier": "auto",
            "stream_options": {"include_obfuscation": False},
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": []}}],
            "truncation": "disabled",
            "user": "somebody",
        }
    )
