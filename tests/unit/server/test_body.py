"""Request bodies: invalid ones are refused before validation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.server.body import parse
from start_agent.server.errors import APIError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(1 - (1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
).filter(lambda value: "Infinity" not in json.dumps(value))


@given(VALUES)
def test_what_is_json_is_read_as_it_is(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nothing",
        b"\xff",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b"[" + b"9" * 5000 + b"]",
        b"[9223372036854775808]",
        b'["\\ud800"]',
        b'{"\\udfff": 1}',
        b"[" * 66 + b"]" * 66,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" + b"1," * 1_000_001 + b"1]",
    ],
)
def test_what_no_parameter_can_be_is_refused(body: bytes) -> None:
    with pytest.raises(APIError) as refused:
        parse(body)
    assert refused.value.status_code == 400 and len(refused.value.message) < 200


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse(b'["\\ud83d\\ude00"]') == ["\U0001f600"]
