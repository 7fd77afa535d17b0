"""Leakage: a held-out problem is found in a training set, however it is spelled; other problems are not."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from start_agent import pocket
from start_agent.data.leakage import HeldOut, normalised, read_held_out
from start_agent.errors import DataError
from start_agent.problem import Problem


@cache
def pocket_sets() -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """A training set of the pocket's problems, and the held-out ones."""
    return tuple(pocket.generate(seed=1, count=4000, split="train")), tuple(pocket.held_out(500))


def leaks(training: tuple[Problem, ...], held_out: tuple[Problem, ...]) -> list[str]:
    return [match.kind for _, match in HeldOut(held_out).matches(training)]


def test_the_pocket_sets_do_not_overlap() -> None:
    training, held_out = pocket_sets()
    assert len(training) == 4000 and len(held_out) == 500
    assert set(leaks(training, held_out)) <= {"near"}


@pytest.mark.parametrize("number", [0, 137, 499])
def test_planting_one_duplicate_is_found(number: int) -> None:
    training, held_out = pocket_sets()
    before = leaks(training, held_out)
    question = held_out[number].question
    assert leaks((*training, held_out[number]), held_out) == [*before, "same"]
    changed = question.upper().replace(" ", "   ").rstrip("?.") + " !\n"
    assert leaks((*training, Problem(changed, "")), held_out) == [*before, "respelled"]


def test_another_number_or_operator_is_another_problem() -> None:
    held_out = HeldOut([Problem("A shop sells 12 pens for 30 coins each. How many coins are 7 pens?", "")])

    def kind(question: str) -> str | None:
        match = held_out.match(question, Problem(question, "").key)
        return None if match is None else match.kind

    assert kind("A shop sells 12 pens for 30 coins each. How many coins are 7 pens?") == "same"
    assert kind("a shop sells 12 pens, for 30 coins each; how many coins are 7 pens") == "respelled"
    assert kind("A small shop sells 12 pens for 30 coins each. How many coins are 7 pens?") == "near"
    assert kind("A shop sells 12 pens for 30 coins each. How many coins are 8 pens?") is None
    assert kind("A shop sells 30 pens for 12 coins each. How many coins are 7 pens?") is None
    sums = HeldOut([Problem("What is 3 + 4?", "7")])
    assert sums.match("What is 3 - 4?", "x") is None
    assert sums.match("What is 3 + 4?!", "x") is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Compute 1,000 × 3.", "compute 1000 * 3"),
        ("What is the two-digit number?", "What is the two digit number"),
        ("Find $x$ if $3x − 15 = 27$.", "find x if 3x - 15 = 27"),
        ("Ｗhat is ２ + ２?", "What is 2 + 2?"),
    ],
)
def test_spelling_says_nothing(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("3.5 + 1", "35 + 1"), ("5! + 2", "5 + 2"), ("x^2", "x 2"), ("-3 + 4", "3 + 4"), ("1,00 + 2", "100 + 2")],
)
def test_what_says_something_stays(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_the_threshold_is_a_jaccard_index() -> None:
    first, second = "a b c d e f g h 1", "a b c d e f g z 1"  # 7 n-grams each, 5 in common, 9 in all
    key = Problem(second, "").key
    assert HeldOut([Problem(first, "")], threshold=5 / 9).match(second, key) is not None
    assert HeldOut([Problem(first, "")], threshold=5 / 9 + 0.001).match(second, key) is None


def test_the_lowest_threshold_still_wants_the_same_numbers_and_an_ngram() -> None:
    held_out = HeldOut([Problem("What is 7 * 12?", "84")], threshold=0)
    assert held_out.match("Compute 7 * 12.", "x") is not None
    assert held_out.match("Compute 7 * 13.", "x") is None
    assert held_out.match("Of 7 and 12 * what?", "x") is None


def test_a_reworded_problem_is_found_on_demand() -> None:
    problem = Problem("Tom buys 9 pens for 7 coins each. How many coins?", "63")
    plain, strict = HeldOut([problem]), HeldOut([problem], reworded=True)
    asked = ("At 7 coins for a bag, what do 9 bags cost?", "x", "63")
    assert plain.match(*asked) is None
    match = strict.match(*asked)
    assert match is not None and (match.kind, match.key) == ("reworded", problem.key)
    assert strict.match("At 7 coins for a bag, what do 9 bags cost?", "x", "64") is None
    assert strict.match("At 7 coins for a bag, what do 9 bags cost?", "x") is None
    assert strict.match("At 8 coins for a bag, what do 9 bags cost?", "x", "63") is None
    assert HeldOut([Problem("Who wrote it?", "he")], reworded=True).match("Say who sang it!", "x", "he") is None


def test_the_pocket_splits_share_computations_in_other_words() -> None:
    """The splits go by the text of the question; what is the same but for its words, the strict rule finds."""
    training, held_out = pocket_sets()
    strict = HeldOut(held_out, reworded=True)
    found = [match.kind for _, match in strict.matches(training)]
    assert set(found) == {"near", "reworded"}
    refused = {problem.key for problem, _ in strict.matches(training)}
    assert strict.matches(problem for problem in training if problem.key not in refused) == []
    assert len(refused) < 0.03 * len(training)


def test_held_out_sets_by_name(tmp_path: Path) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text(json.dumps({"question": "What is 1 + 1?", "answer": "2"}) + "\n")
    held_out = read_held_out(["pocket", str(file)])
    assert len(held_out) == 501
    match = held_out.match("what is 1+1", "another")
    assert match is not None and match.kind == "respelled"
    with pytest.raises(DataError):
        read_held_out([str(tmp_path / "none.jsonl")])
