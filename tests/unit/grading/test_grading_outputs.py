"""Outputs and values of programs, compared with the expected ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.grading.code import same_output, same_value


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2\n3", " 1 2 \n 3 \n\n", True),
        ("YES", "yes", False),
        ("1\n2", "1 2", False),
        ("1\n\n2", "1\n2", False),
        ("1.0", "1", True),
        ("1.0", "1.00001", False),
        ("1 a", "1.0 a", False),
        ("1e5", "100000", True),
        ("NaN", "nan", False),
        ("", "", True),
        ("", "x", False),
    ],
)
def test_outputs(expected: str, printed: str, same: bool) -> None:
    assert same_output(expected, printed) is same


def test_values() -> None:
    assert same_value("[1, [2.0, true]]", "[1, [2, true]]")
    assert not same_value("[1, 2]", "[1, 2, 3]")
    assert not same_value("1", "") and not same_value("1", "[" * 100_000) and not same_value("1", "9" * 10_000)
    assert same_value("[0.5]", "[0.50001]", 1e-3) and not same_value("[0.5]", "[0.51]", 1e-3)
    assert not same_value('"a"', "null", 1.0)


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")))))
def test_an_output_equals_itself(rows: list[list[str]]) -> None:
    text = "\n".join(" ".join(row) for row in rows)
    assert same_output(text, text + "\n") and same_output(text + " ", text)
