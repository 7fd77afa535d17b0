"""The single strategy: one trace gives the answer."""

from __future__ import annotations

from start_agent.strategies.base import Question, Solution, Solve, Strategy


class Single(Strategy):
    """Generates one trace with the given seed."""

    async def run(self, solve: Solve, question: Question, seed: int | None) -> Solution:
        """See ``Strategy.run``."""
        return Solution((await solve(question.text, seed=seed),))
