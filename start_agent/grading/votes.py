r"""What an answer is worth in a vote, and who wins (self-consistency, Wang et al. 2022): values vote, not spellings.

- Answers that are numbers vote for their exact value: ``0.5``, ``1/2``, ``\frac12`` and ``50%`` are one.
- Any other answer votes as it is written, without white space and differences of LaTeX that mean nothing. Comparing
  two expressions as mathematics would take a process and up to seconds for each pair.
- Of values with equally many votes, the one that was reached earliest wins.
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
    """Votes for one value, and the lowest number of a sample among them."""

    votes: int
    first: int

    def join(self, other: Ballot) -> None:
        """Count another's votes in."""
        self.votes += other.votes
        self.first = min(self.first, other.first)

    @property
    def rank(self) -> tuple[int, int]:
        """The higher one wins."""
        return self.votes, -self.first


class Tally:
    """A vote that goes on: samples are added in the order of their numbers, from 0 on."""

    def __init__(self) -> None:
        self._ballots: dict[Hashable, Ballot] = {}
        self._added = 0

    def add(self, value: Hashable | None) -> None:
        """Count the next sample; None for one without an answer, which does not vote."""
        if value is not None:
            self._ballots.setdefault(value, Ballot(0, self._added)).votes += 1
        self._added += 1

    @property
    def winner(self) -> Ballot | None:
        """The value with the most votes, the earliest of equals; None where nobody has voted."""
        return max(self._ballots.values(), key=lambda ballot: ballot.rank, default=None)

    def undecided(self, left: int) -> int:
        """How many more samples it takes at least, of ``left`` that may still come, until the winner is certain.

        0 where it is certain already: whatever the others say, nothing would change.
        """
        winner = self.winner or Ballot(0, self._added)
        others = [ballot for ballot in self._ballots.values() if ballot is not winner]
        for more in range(left):
            rest, best = left - more, Ballot(winner.votes + more, winner.first)
            # All the rest may go to one value: one that nobody has named yet is later than the winner.
            if rest <= best.votes and all(Ballot(one.votes + rest, one.first).rank < best.rank for one in others):
                return more
        return left


@lru_cache(maxsize=4096)
def vote_value(answer: str) -> Fraction | str:
    """What an answer votes for: a number's exact value, a percentage as the fraction that it is; else its spelling."""
    number = read_number(answer)
    return plain_text(answer) if number is None else number.worth


def math_value(problem: Problem, answer: str) -> Fraction | str:
    """What an answer to a mathematical question is worth; where a percentage is asked for, a percent sign is nothing.

    The gold answer is not looked at.
    """
    if asks_for_percentage(problem.question):
        answer = without_percent(answer)
    return vote_value(answer_text(answer) or answer.strip())


def choice_value(problem: Problem, answer: str) -> str:
    """The letter that an answer names, or the answer as it is written. The gold answer is not looked at."""
    text = answer_text(answer) or answer.strip()
    return read_letter(text, problem.choices) or plain_text(text)
