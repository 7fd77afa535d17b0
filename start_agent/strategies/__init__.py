"""Strategies: how one or several traces become the answer to a question. Knows no run directories."""

from start_agent.strategies.base import Question, Solution, Solve, Strategy, gather_all
from start_agent.strategies.registry import STRATEGIES, StrategyChoice, StrategyEntry

__all__ = [
    "STRATEGIES",
    "Question",
    "Solution",
    "Solve",
    "Strategy",
    "StrategyChoice",
    "StrategyEntry",
    "gather_all",
]
