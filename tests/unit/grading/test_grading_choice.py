"""Multiple choice."""

from __future__ import annotations

import pytest

from start_agent.grading import Reason, grade_choice

CHOICES = ("bank", "library", "department store", "mall", "a bank")


@pytest.mark.parametrize(
    "pred",
    [
        "B",
        "b",
        "(B)",
        "(b)",
        "B.",
        "B)",
        "B. library",
        "B: library",
        "(B) library",
        "B, library",
        "\\text{B}",
        "$B$",
        "\\boxed{B}",
        "\\boxed{\\text{(B)}}",
        "**B**",
        "Option B",
        "choice (B)",
        "The answer is B.",
        "library",
        "Library",
        "\\boxed{\\text{library}}",
        "B (library)",
        "A then \\boxed{B}",
        "\\boxed{B. library}",
    ],
)
def test_right(pred: str) -> None:
    verdict = grade_choice(pred, "B", CHOICES)
    assert verdict.correct and verdict.parsed == "B" and verdict.reason is Reason.EQUAL


@pytest.mark.parametrize("pred", ["A", "A. library", "mall", "\\boxed{D}"])
def test_another(pred: str) -> None:
    verdict = grade_choice(pred, "B", CHOICES)
    assert not verdict.correct and verdict.parsed in ("A", "D") and verdict.reason is Reason.DIFFERENT


@pytest.mark.parametrize("pred", ["A, B", "A) or B)", "AB", "F", "B or C", "neither", "both banks", "5", "B. or (C)"])
def test_no_single_choice(pred: str) -> None:
    verdict = grade_choice(pred, "B", CHOICES)
    assert not verdict.correct and verdict.reason is Reason.UNREADABLE


@pytest.mark.parametrize("pred", [None, "", "\\boxed{B", "\\boxed{}"])
def test_no_answer(pred: str | None) -> None:
    verdict = grade_choice(pred, "b", CHOICES)
    assert not verdict.correct and verdict.reason is Reason.NO_ANSWER and verdict.gold == "B"


def test_choices_that_are_letters_or_alike() -> None:
    assert grade_choice("C", "C", ("C", "B", "A")).correct  # a letter is a letter first
    assert grade_choice("same", "A", ("same", "same")).reason is Reason.UNREADABLE
    assert grade_choice("Z", "Z").correct
    assert grade_choice("A. a", "A", ("a", "b")).correct
    assert grade_choice("A bank", "E", CHOICES).correct
