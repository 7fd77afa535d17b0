r"""The majority vote over the samples of one problem (self-consistency, Wang et al. 2022): values vote, not spellings.

- Answers that the grader found right are all worth the gold answer: one vote, whatever they look like.
- Wrong answers that are numbers vote for their exact value: ``0.5``, ``1/2``, ``\frac12`` and ``50%`` are one.
- Any other wrong answer votes as the grader shows it (an expression that was parsed is shown in SymPy's own form),
  without white space and differences of LaTeX that mean nothing. Comparing them with each other as mathematics would
  take a process and up to seconds for each pair, which a summary of 100,000 records cannot spend.
- A sample without an answer does not vote; where none has one, the vote is wrong.
- Of values with equally many votes, the one that the earliest sample (the lowest sample number) reached wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

from start_agent.grading.math import plain_text
from start_agent.grading.numbers import read_number


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


@dataclass(slots=True)
class Votes:
    """The samples of one problem, added in any order."""

    tries: int = 0
    right: int = 0
    _gold: Ballot | None = None
    _wrong: dict[str, Ballot] = field(default_factory=dict)  # by what the grader showed; values are read when needed

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a record."""
        self.tries += 1
        self.right += record["correct"]
        answer: str | None = record["verdict"]["parsed"]
        if answer is None:
            return
        known = self._gold if record["correct"] else self._wrong.get(answer)
        if known is not None:
            known.votes += 1
            known.first = min(known.first, record["sample"])
        elif record["correct"]:
            self._gold = Ballot(1, record["sample"])
        else:
            self._wrong[answer] = Ballot(1, record["sample"])

    @property
    def majority_right(self) -> bool:
        """Whether the value with the most votes is right."""
        if self._gold is None:
            return False
        if self._gold.votes > sum(ballot.votes for ballot in self._wrong.values()):
            return True
        if any(ballot.rank > self._gold.rank for ballot in self._wrong.values()):
            return False
        wrong: dict[Fraction | str, Ballot] = {}  # only where it matters: reading an answer takes microseconds
        for answer, ballot in self._wrong.items():
            wrong.setdefault(vote_value(answer), Ballot(0, ballot.first)).join(ballot)
        return all(self._gold.rank > ballot.rank for ballot in wrong.values())


@lru_cache(maxsize=4096)
def vote_value(answer: str) -> Fraction | str:
    """What an answer votes for: a number's exact value, a percentage as the fraction that it is; else its spelling."""
    number = read_number(answer)
    return plain_text(answer) if number is None else number.worth
