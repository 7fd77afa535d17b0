from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import Limits, Outcome, Result
from sandbox.result import clean, cut_middle


def test_text_is_output_then_value_then_error() -> None:
    assert Result(Outcome.OK).text == ""
    assert Result(Outcome.OK, stdout="a\n").text == "a"
    assert Result(Outcome.OK, stdout="a", value="b").text == "a\nb"
    assert Result(Outcome.ERROR, stdout="a\n\n", error="E: x").text == "a\nE: x"
    assert Result(Outcome.OK, stdout="b\n", printed="a\nb\n").text == "a\nb"
    assert Result(Outcome.OK, stdout="", printed="a\n").text == "a"
    assert Result(Outcome.OK, value="''").text == "''"


def test_escape_sequences_go() -> None:
    assert clean("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x") == "red x"
    assert clean("\x1b]0;no end\nvisible") == "\nvisible"
    assert clean("\x1b(Bplain\x1b[m \x1b7\x1b8\x1b=\x1b>x") == "plain x"
    assert clean("\x1bP1\x1b\\a\x1bPno end\n\x1b[\x1b") == "ano end\n\x1b[\x1b"
    assert "\x1b" not in clean("\x1b[A" * 5_000) + clean("\x1b" * 70_000)


@given(st.text(max_size=60), st.integers(1, 30))
def test_cut_keeps_both_ends_and_counts(text: str, limit: int) -> None:
    cut, truncated = cut_middle(text, "", limit)
    assert truncated == (len(text) > limit)
    if not truncated:
        assert cut == text
    else:
        head = text[: (limit + 1) // 2]
        tail = text[len(text) - limit // 2 :]
        assert cut == f"{head}\n[... {len(text) - limit:,} characters cut ...]\n{tail}"


def test_cut_adds_up_what_was_cut_before() -> None:
    assert cut_middle("aaaa", "bbbb", 4, omitted=10) == ("aa\n[... 14 characters cut ...]\nbb", True)
    assert cut_middle("aa", "b", 8, omitted=5) == ("aa\n[... 5 characters cut ...]\nb", True)


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"Limits\.seconds must be positive, got 0"):
        Limits(seconds=0)
