"""Printed or returned values of a program, compared with the expected ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from start_agent.grading.code import same_output, same_value


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("[[1]]", "[" + "[]," * 1_000_000 + "[]]"),
        ("{}", "{" + ", ".join(f'"{number}": 1' for number in range(200_000)) + "}"),
        ("0.5", "[" + "0.25, " * 500_000 + "1]"),
    ],
    ids=["lists", "names", "numbers"],
)
def test_what_is_much_longer_is_not_parsed(expected: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    assert not same_value(expected, found)
    assert not same_output("1 2", "1 " * 1_000_000)
    assert not same_output("1\n2", "1\n" * 1_000_000)


@settings(deadline=None)
@given(value=st.recursive(st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(), st.lists))
def test_the_same_value_is_never_much_longer(value: Any) -> None:
    plain, spaced = json.dumps(value, ensure_ascii=False, separators=(",", ":")), json.dumps(value)
    assert same_value(plain, spaced) and same_value(spaced, plain)
