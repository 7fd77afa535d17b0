r"""Counts votes for answers (self-consistency, Wang et al. 2022), by value and not by notation.

- Answers that are numbers vote for their exact value: ``0.5``, ``1/2``, ``\frac12`` and ``50%`` are equal.
- Any other answer votes for its text, without white space and insignificant LaTeX differences. A mathematical
  comparison would take a process and up to seconds for each pair.
- In a tie, the value that was reached first wins.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from start_agent.grading.choice import read_letter
from start_agent.grading.math import answer_text, asks_for_percentage, plain_text, without_percent
from start_agent.grading.numbers import read_number
from start_agent.problem import Problem


@dataclass(slots=True)
class Ballot:
    """The votes for one value, and the index of the first sample that voted for it."""

    votes: int
    first: int

    def join(self, other: Ballot) -> None:
        """Add the votes of another ballot."""
        self.votes += other.votes
        self.first = min(self.first, other.first)

    @property
    def rank(self) -> tuple[int, int]:
        """The sort key; the highest wins."""
        return self.votes, -self.first


class Tally:
    """A running count of votes; samples are added in the order of their indices, from 0 on."""

    def __init__(self) -> None:
        self._ballots: dict[Hashable, Ballot] = {}
        self._added = 0

    def add(self, value: Hashable | None) -> None:
        """Count the next sample; None for a sample without an answer, which does not vote."""
        if value is not None:
            self._ballots.setdefault(value, Ballot(0, self._added)).votes += 1
        self._added += 1

    @property
    def winner(self) -> Ballot | None:
        """The ballot with the most votes, in a tie the first; None before any vote."""
        return max(self._ballots.values(), key=lambda ballot: ballot.rank, default=None)

    def undecided(self, left: int) -> int:
        """The fewest further samples, out of ``left`` remaining, after which the winner can be certain.

        0 if it is certain already, whatever the remaining samples vote for.
        """
        winner = self.winner or Ballot(0, self._added)
        others = [ballot for ballot in self._ballots.values() if ballot is not winner]
        for more in range(left):
            rest, best = left - more, Ballot(winner.votes + more, winner.first)
            # All remaining votes may go to one value; a new value would be later than the winner.
            if rest <= best.votes and all(Ballot(one.votes + rest, one.first).rank < best.rank for one in others):
                return more
        return left


@lru_cache(maxsize=4096)
def vote_value(answer: str) -> Fraction | str:
    """The value that an answer votes for: a number's exact value (a percentage divided by 100), otherwise its text."""
    number = read_number(answer)
    return plain_text(answer) if number is None else number.true_value


def math_value(problem: Problem, answer: str) -> Fraction | str:
    """The value of an answer to a math problem; a percent sign is ignored if the question asks for a percentage.

    Does not use the gold answer.
    """
    if asks_for_percentage(problem.question):
        answer = without_percent(answer)
    return vote_value(answer_text(answer) or answer.strip())


def choice_value(problem: Problem, answer: str) -> str:
    """The letter that an answer names, or else its text. Does not use the gold answer."""
    text = answer_text(answer) or answer.strip()
    return read_letter(text, problem.choices) or plain_text(text)
