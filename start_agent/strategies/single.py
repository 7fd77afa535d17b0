"""One trace is the answer."""

from __future__ import annotations

from start_agent.strategies.base import Question, Solution, Solve, Strategy


class Single(Strategy):
    """The question, once, with the seed as it is."""

    async def run(self, solve: Solve, question: Question, seed: int | None) -> Solution:
        """See ``Strategy.run``."""
        return Solution((await solve(question.text, seed=seed),))
