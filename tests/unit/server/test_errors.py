"""Errors: one format, and no details of the host."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from hints import HintError
from sandbox import KernelStartError
from start_agent.errors import ConfigError, EngineError, QuestionError
from start_agent.server.errors import APIError, as_api_error, invalid


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (QuestionError("the question is empty"), 400, "invalid_request_error"),
        (ConfigError("no such thing"), 400, "invalid_request_error"),
        (HintError("no such hint"), 400, "invalid_request_error"),
        (APIError(400, "no", param="top_p"), 400, "invalid_request_error"),
        (EngineError("/secret/place broke"), 503, "service_unavailable_error"),
        (KernelStartError("/secret/place broke"), 503, "service_unavailable_error"),
        (TimeoutError(), 504, "timeout_error"),
        (ZeroDivisionError("/secret/place"), 500, "server_error"),
        (APIError(409, "busy"), 409, "conflict_error"),
    ],
)
def test_an_error_says_whose_fault_it_is(error: Exception, status: int, kind: str) -> None:
    answer = as_api_error(error)
    assert (answer.status_code, answer.type) == (status, kind)
    assert set(answer.body["error"]) == {"message", "type", "param", "code"}
    assert "secret" not in answer.message
    assert answer.code or status == 409


def test_a_message_is_one_short_line() -> None:
    message = APIError(400, "a\nb\x1b[31m" + "c" * 1000).message
    assert message.isprintable() and len(message) <= 300


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    content: str | list[int]


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    messages: list[Inner]
    top_p: float = 1.0


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "messages", "missing_required_parameter"),
        ({"messages": [], "extra": 1}, "extra", "unknown_parameter"),
        ({"messages": [{"content": 1}]}, "messages.0.content", "invalid_value"),
        ({"messages": [{"content": "x"}, {"content": [1, "x"]}]}, "messages.1.content", "invalid_value"),
        ({"messages": [{"contents": "x"}]}, "messages.0.content", "missing_required_parameter"),
        ({"messages": [], "top_p": "high"}, "top_p", "invalid_value"),
        ("text", None, None),
        (None, None, None),
    ],
)
def test_what_is_invalid_is_named(body: Any, param: str | None, code: str | None) -> None:
    with pytest.raises(ValidationError) as found:
        Outer.model_validate(body)
    errors = [error | {"loc": ("body", *error["loc"])} for error in found.value.errors()]
    answer = invalid(errors, body)
    assert (answer.status_code, answer.param, answer.code) == (400, param, code)


def test_a_name_that_is_too_long_is_cut() -> None:
    with pytest.raises(ValidationError) as found:
        Outer.model_validate({"messages": [], "x" * 10_000: 1})
    errors = [error | {"loc": ("body", *error["loc"])} for error in found.value.errors()]
    answer = invalid(errors, {"messages": [], "x" * 10_000: 1})
    assert len(answer.message) <= 300 and len(answer.param or "") <= 300
