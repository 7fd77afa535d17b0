"""The majority strategy: several traces vote for the answer (self-consistency, Wang et al. 2022)."""

from __future__ import annotations

from collections.abc import Hashable

from pydantic import BaseModel, ConfigDict, Field

from start_agent.errors import ConfigError
from start_agent.grading.votes import Tally
from start_agent.seeds import derive_seed
from start_agent.strategies.base import Question, Solution, Solve, Strategy, gather_all
from start_agent.trace import Trace


class MajorityOptions(BaseModel):
    """The options of majority voting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    votes: int = Field(
        5, ge=1, description="the most traces that vote on an answer; sampling stops once the majority is certain"
    )


class Majority(Strategy):
    """Chooses the first trace of the value with the most votes; in a tie, the value that was reached first.

    Traces are generated in rounds. A round has the smallest number of traces after which the majority can be certain,
    so no more traces are generated than one by one, and their number does not depend on which of them ends first.
    """

    def __init__(self, options: MajorityOptions) -> None:
        self.options = options

    async def run(self, solve: Solve, question: Question, seed: int | None) -> Solution:
        """See ``Strategy.run``. Raises ConfigError if answers cannot be compared."""
        if question.value is None:
            raise ConfigError("--strategy majority: answers to this kind of problem cannot be counted as votes")
        traces: list[Trace] = []
        votes: list[Hashable | None] = []
        tally = Tally()
        while more := tally.undecided(self.options.votes - len(traces)):
            numbers = range(len(traces), len(traces) + more)
            made = await gather_all(solve(question.text, seed=vote_seed(seed, number)) for number in numbers)
            for trace in made:
                traces.append(trace)
                votes.append(None if trace.answer is None else question.value(trace.answer))
                tally.add(votes[-1])
        winner = tally.winner
        return Solution(tuple(traces), 0 if winner is None else winner.first, tuple(votes))


def vote_seed(seed: int | None, number: int) -> int | None:
    """The seed of the voting trace with this number."""
    return None if seed is None else derive_seed(seed, f"vote {number}")
