"""The seam between the trace and a hint."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hints import Domain, Hint, HintLibrary, Placement, join

LIBRARY = HintLibrary.builtin()
BY_ID = {hint.text.partition("\n")[0]: hint for hint in LIBRARY}
PYTHON = BY_ID["maybe using Python here is a good idea."]
CHECK = BY_ID["Wait, I can use Python to check if my approach is correct and refine it, if necessary."]
I_CAN = BY_ID["I can write some Python code to find this."]


@pytest.mark.parametrize(
    ("tail", "seam"),
    [
        ("41. Wait", ", maybe"),
        ("Alternatively", ", maybe"),
        ("**Wait**", ", maybe"),
        ("等等", ", maybe"),
        ("Wait,", " maybe"),
        ("Wait, ", "maybe"),
        ("Wait,\n", "maybe"),
        ("Wait ", "maybe"),
        ("Wait:", " maybe"),
        ("Wait —", " maybe"),
        ("Wait.", " Maybe"),
        ("Wait...", " Maybe"),
        ("Wait! ", "Maybe"),
        ("Wait.\n\n", "Maybe"),
        ("Wait\n", "Maybe"),
        ("", "Maybe"),
        ("\n", "Maybe"),
    ],
)
def test_after_a_connective(tail: str, seam: str) -> None:
    assert join(tail, PYTHON) == seam + " using Python here is a good idea.\n```python\n"


def test_the_pronoun_keeps_its_capital() -> None:
    assert join("Wait", I_CAN).startswith(", I can")
    assert join("Wait.", I_CAN).startswith(" I can")


@pytest.mark.parametrize(
    ("tail", "separator"),
    [
        ("is 42.", "\n\n"),
        ("is 42. ", "\n\n"),
        ("is 42.\n", "\n"),
        ("is 42.\n  ", "\n"),
        ("is 42.\n\n", ""),
        ("is 42.\n\n\n", ""),
        ("is 42.\n\n ", "\n"),
        ("is 42.\n \n", ""),
        ("```output\n42\n```\n", "\n"),
        ("\n", "\n"),
        ("", ""),
    ],
)
def test_before_the_end_of_think(tail: str, separator: str) -> None:
    assert join(tail, CHECK) == separator + CHECK.text


TAILS = st.one_of(
    st.text(),
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["", "so 42.\n\n", "x "]),
            st.sampled_from(["Wait", "Alternatively", "wait", "```", ""]),
            st.text(alphabet=" \n\t.,!?:-—*)`\"'", max_size=5),
        ),
    ),
)


@given(TAILS, st.sampled_from(sorted(LIBRARY, key=lambda hint: hint.id)))
def test_exactly_one_separator_and_the_fence_at_a_line_start(tail: str, hint: Hint) -> None:
    inserted = join(tail, hint)
    whole = tail + inserted
    separator = inserted[: len(inserted) - len(hint.text)]
    assert inserted[len(separator) + 1 :] == hint.text[1:]
    assert inserted[len(separator)] in (hint.text[0], hint.text[0].upper())
    assert re.search(r"(?:^|\n)```python\n(?:#.*\n)?$", whole)
    between = whole[len(tail.rstrip()) : len(whole) - len(hint.text)]
    if hint.placement is Placement.CONNECTIVE:
        assert separator in ("", " ", ", ")
        assert between == (separator or tail[len(tail.rstrip()) :])
        assert bool(between) == bool(tail)
        if separator == ", ":
            assert tail[-1] not in " \n.,!?:;"
    elif tail:
        assert set(separator) <= {"\n"}
        assert between.endswith("\n") and between.count("\n") >= 2
        assert not separator or between.count("\n") == 2 or not tail.endswith("\n")
    else:
        assert separator == ""


@given(st.text(), st.text(), st.sampled_from(list(Placement)))
def test_joining_is_total_also_for_texts_no_file_may_hold(tail: str, text: str, placement: Placement) -> None:
    hint = dataclasses.replace(PYTHON, text=text, placement=placement, domain=Domain.MATH)
    assert len(join(tail, hint)) >= len(text)


@given(st.text(), st.sampled_from(["Wait", "Wait,", "Wait.\n", "so.\n\n", "so. "]))
def test_the_end_of_the_tail_is_enough(before: str, tail: str) -> None:
    for hint in (PYTHON, CHECK):
        assert join(before + tail, hint) == join(tail, hint)
