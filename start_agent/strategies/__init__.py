"""A question → one or several traces → one answer. May use decoding, grading and what is below; no run directory."""

from start_agent.strategies.base import Question, Solution, Solve, Strategy, together
from start_agent.strategies.registry import STRATEGIES, StrategyChoice, StrategyEntry

__all__ = [
    "STRATEGIES",
    "Question",
    "Solution",
    "Solve",
    "Strategy",
    "StrategyChoice",
    "StrategyEntry",
    "together",
]
