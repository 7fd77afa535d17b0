"""When a vote is decided, compared with all possible continuations."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.grading.votes import Tally, choice_value, math_value
from start_agent.problem import Kind, Problem

VALUES = ("a", "b", "c", None)  # c stands for any value without votes


def winner(votes: tuple[str | None, ...]) -> str | None:
    """By the rule: the most votes, on a tie the earliest."""
    said = [vote for vote in votes if vote is not None]
    return max(dict.fromkeys(said), key=said.count, default=None)


def tally_of(votes: tuple[str | None, ...]) -> Tally:
    tally = Tally()
    for vote in votes:
        tally.add(vote)
    return tally


def decided(votes: tuple[str | None, ...], left: int) -> bool:
    """Whether all continuations end with the same winner."""
    return len({winner((*votes, *rest)) for rest in product((*VALUES, "d"), repeat=left)}) == 1


@given(st.lists(st.sampled_from(("a", "b", None)), max_size=5).map(tuple), st.integers(0, 4))
def test_undecided_counts_the_votes_that_are_needed_at_least(votes: tuple[str | None, ...], left: int) -> None:
    more = tally_of(votes).undecided(left)
    by_hand = next(
        number
        for number in range(left + 1)
        if any(decided((*votes, *next_ones), left - number) for next_ones in product((*VALUES, "d"), repeat=number))
    )
    assert more == by_hand


@given(st.lists(st.sampled_from(VALUES), max_size=12).map(tuple))
def test_the_winner_is_the_earliest_of_the_values_with_the_most_votes(votes: tuple[str | None, ...]) -> None:
    found = tally_of(votes).winner
    assert (None if found is None else votes[found.first]) == winner(votes)
    if found is not None:
        assert found.votes == votes.count(votes[found.first]) and found.first == votes.index(votes[found.first])


@pytest.mark.parametrize(("planned", "first_round"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (16, 8), (17, 9)])
def test_half_of_the_votes_decide_at_best(planned: int, first_round: int) -> None:
    assert Tally().undecided(planned) == first_round


@pytest.mark.parametrize(
    ("question", "one", "other", "same"),
    [
        ("How many?", "0.5", r"\frac12", True),
        ("How many?", "50%", "1/2", True),
        ("How many?", "20", "20%", False),
        ("What percent of them?", "20", r"20\%", True),
        ("How many?", r"$\frac{\pi}{2}$", r"\dfrac{\pi}{2}", True),
        ("How many?", "7", "8", False),
        ("Who?", r"\text{Anna}", "anna", True),
    ],
)
def test_what_answers_are_worth(question: str, one: str, other: str, same: bool) -> None:
    problem = Problem(question, "")
    assert (math_value(problem, one) == math_value(problem, other)) is same


def test_a_letter_is_worth_its_choice_in_whatever_words() -> None:
    problem = Problem("Where?", "", Kind.CHOICE, choices=("bank", "mall"))
    values = [choice_value(problem, answer) for answer in ("B", "(B)", "B. mall", "mall", "A")]
    assert values == ["B", "B", "B", "B", "A"]
