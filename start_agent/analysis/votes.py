"""The majority vote over the samples of one problem, counted as in ``grading.votes``.

Samples are graded already, so verdicts are used, too:

- All correct answers vote for the gold answer, whatever their form.
- An incorrect answer votes for its form in the verdict: parsed expressions are in SymPy's form there.
- A sample without an answer does not vote; if no sample has one, the vote is incorrect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from start_agent.grading.votes import Ballot, vote_value


@dataclass(slots=True)
class Votes:
    """The samples of one problem, added in any order."""

    tries: int = 0
    right: int = 0
    _gold: Ballot | None = None
    _wrong: dict[str, Ballot] = field(default_factory=dict)  # by the parsed answer in the verdict

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
        """Whether the value with the most votes is correct."""
        if self._gold is None:
            return False
        if self._gold.votes > sum(ballot.votes for ballot in self._wrong.values()):
            return True
        if any(ballot.rank > self._gold.rank for ballot in self._wrong.values()):
            return False
        wrong: dict[Fraction | str, Ballot] = {}  # computed only if needed, since parsing answers takes time
        for answer, ballot in self._wrong.items():
            wrong.setdefault(vote_value(answer), Ballot(0, ballot.first)).join(ballot)
        return all(self._gold.rank > ballot.rank for ballot in wrong.values())
