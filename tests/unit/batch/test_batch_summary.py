"""The summary, against manually computed numbers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.analysis.stats import wilson_interval
from start_agent.analysis.summary import summarize, summary_of
from tests.support.batches import problems, run_scripted


def record(
    problem: str, sample: int, parsed: str | None, correct: bool, *, calls: int = 0, unhinted: int = 0, hints: int = 0
) -> dict[str, Any]:
    return {
        "problem": problem,
        "sample": sample,
        "kind": "math",
        "correct": correct,
        "verdict": {"parsed": parsed, "reason": "equal" if correct else "different"},
        "outcome": "answered" if parsed else "no_answer",
        "counts": {
            "tokens": 100,
            "prompt_tokens": 10,
            "model_tokens": 80,
            "tool_calls": calls,
            "unhinted_tool_calls": unhinted,
            "hints": hints,
        },
        "meta": {"level": 1 if problem == "a" else 2},
        "course": {
            "seconds": 2.0,
            "kernel_seconds": 0.5,
            "wait_seconds": 0.25,
            "queue_seconds": 0.125,
            "tries": 1,
            "turns": 3,
            "decoded": 81,
            "fed": 150,
            "again": 15,
            "reused": 200,
        },
    }


RECORDS = [
    record("a", 0, "7", True, calls=2, unhinted=1, hints=1),
    record("b", 0, "3", False, calls=1, hints=2),
    record("a", 2, "8", False),
    record("a", 1, "7", True, calls=1, unhinted=1),
    record("b", 1, "4", True),
    record("b", 2, None, False),
    record("c", 0, None, False),
    record("c", 1, None, False),
    record("c", 2, None, False, hints=1),
]


def test_several_samples_by_hand() -> None:
    found = summary_of(RECORDS, samples=3)
    assert (found.problems, found.records, found.right, found.samples) == (3, 9, 3, 3)
    assert found.accuracy == pytest.approx(3 / 9)
    assert found.interval == pytest.approx(wilson_interval(1, 3))
    # a: 7 twice; b: a tie of 3 and 4, the earlier one is wrong; c: no answers.
    assert found.majority == pytest.approx(1 / 3)
    # a 2 of 3, b 1 of 3, c none: pass@1 = (2/3 + 1/3)/3, pass@2 = (1 + 2/3)/3, pass@3 = 2/3.
    assert found.pass_at == pytest.approx({1: 1 / 3, 2: 5 / 9, 3: 2 / 3})
    assert found.groups == {
        "level": {
            "1": {"records": 3, "right": 2, "accuracy": pytest.approx(2 / 3)},
            "2": {"records": 6, "right": 1, "accuracy": pytest.approx(1 / 6)},
        }
    }
    assert found.outcomes == {"answered": 5, "no_answer": 4}
    assert found.reasons == {"different": 6, "equal": 3}
    assert (found.tool_rate, found.unhinted_rate) == pytest.approx((3 / 9, 2 / 9))
    assert (found.tool_calls, found.hints, found.hint_yield) == pytest.approx((4 / 9, 4 / 9, 2 / 4))
    assert (found.tokens, found.total_tokens, found.model_tokens) == (100, 900, 720)
    assert (found.seconds, found.wait_seconds, found.queue_seconds, found.turns) == (2.0, 0.25, 0.125, 3)
    assert (found.decoded_tokens, found.fed_tokens, found.reused_tokens) == (729, 1350, 1800)
    assert found.reprefilled_share == pytest.approx(0.1)


def test_the_order_of_the_records_changes_nothing() -> None:
    assert summary_of(RECORDS[::-1], samples=3) == summary_of(RECORDS, samples=3)


def majority(*answers: tuple[str | None, bool]) -> float | None:
    """Of one problem, of which another sample never answers."""
    records = [record("a", sample, parsed, right) for sample, (parsed, right) in enumerate((*answers, (None, False)))]
    return summary_of(records, len(records)).majority


@pytest.mark.parametrize(
    "spellings",
    [
        ("0.5", "1/2", r"\frac12"),
        ("1,250", "1250", "1250.0"),
        (r"\$18.90", "18.9", r"\frac{189}{10}"),
        ("25%", "0.25", r"\dfrac{1}{4}"),
        ("-0.75", "-3/4", r"-\tfrac34"),
        ("6.02e2", "602", "602."),
        (r"\frac{\pi}{2}", r"\dfrac{\pi}{2}", r"\frac {\pi} {2}"),
        (r"\text{odd}", "odd", "Odd"),
    ],
)
def test_values_vote_and_not_spellings(spellings: tuple[str, ...]) -> None:
    other = ("41", "41")
    # Right or wrong, three spellings of one value outvote two of another; as three values they would lose.
    assert majority(*((text, False) for text in other), *((text, True) for text in spellings)) == 1.0
    assert majority(*((text, True) for text in other), *((text, False) for text in spellings)) == 0.0


@pytest.mark.parametrize(("one", "other"), [("50", "50%"), ("1 2", "12"), ("x", "X"), ("1/3", "0.33"), ("1", "True")])
def test_other_values_vote_apart(one: str, other: str) -> None:
    assert majority(("7", True), ("7", True), (one, False), (other, False), (one, False)) == 1.0


def test_right_answers_are_one_value_however_the_grader_shows_them() -> None:
    assert majority(("41", False), ("41", False), (r"\frac{\pi}{2}", True), ("pi/2", True), ("0.5*pi", True)) == 1.0


def test_of_equally_many_votes_the_earliest_sample_decides() -> None:
    assert majority(("0.5", True), ("3", False), ("3", False), ("1/2", True)) == 1.0
    assert majority(("3", False), ("0.5", True), ("1/2", True), ("3.0", False)) == 0.0
    assert majority((None, False), ("2", True), ("3", False)) == 1.0


def test_no_votes() -> None:
    assert majority((None, False), (None, False)) == 0.0


@given(
    st.lists(st.tuples(st.sampled_from(["1/2", "0.5", ".50", "3", "3.0", "x", None]), st.integers()), min_size=2),
    st.sampled_from([Fraction(1, 2), Fraction(3), "x"]),
)
def test_the_vote_against_a_plain_count(drawn: list[tuple[str | None, int]], gold: object) -> None:
    worth: dict[str, object] = {"1/2": Fraction(1, 2), "0.5": Fraction(1, 2), ".50": Fraction(1, 2), "x": "x"}
    worth |= {"3": Fraction(3), "3.0": Fraction(3)}
    values = [None if text is None else worth[text] for text, _ in drawn]
    records = [
        record("a", sample, text, value == gold)
        for sample, ((text, _), value) in enumerate(zip(drawn, values, strict=True))
    ]
    in_another_order = sorted(records, key=lambda one: drawn[one["sample"]][1])
    cast = [value for value in values if value is not None]
    winner = max(cast, key=lambda value: (cast.count(value), -cast.index(value)), default=None)
    assert summary_of(in_another_order, len(records)).majority == float(winner == gold)


def test_an_unfinished_run() -> None:
    found = summary_of(RECORDS[:4], samples=3)
    assert (found.problems, found.records) == (2, 4)
    assert found.pass_at == pytest.approx({1: (2 / 3 + 0) / 2, 2: 1.0, 3: 1.0})  # only "a" has two and three samples


def test_one_sample_has_neither_votes_nor_pass_at_k() -> None:
    found = summary_of([record("a", 0, "7", True), record("b", 0, "7", False)])
    assert (found.accuracy, found.majority, found.pass_at, found.hint_yield) == (0.5, None, {}, None)


def test_programs_do_not_vote() -> None:
    found = summary_of([one | {"kind": "code"} for one in RECORDS], samples=3)
    assert found.majority is None
    assert found.pass_at


def test_no_records() -> None:
    found = summary_of([])
    assert (found.records, found.accuracy, found.interval) == (0, None, None)


async def test_of_a_run_directory(tmp_path: Path) -> None:
    await run_scripted(tmp_path, problems(16), samples=2)
    found = summarize(tmp_path, 2)
    assert (found.problems, found.records, found.right) == (16, 32, 4)
    assert (found.tool_calls, found.unhinted_rate) == (1.0, 1.0)
    assert found.groups["level"]["2"]["right"] == 4
