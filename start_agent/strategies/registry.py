"""The registry of strategies, for ``--strategy``.

A package adds a strategy by an entry point of the group ``start_agent.strategies`` whose value is a ``StrategyEntry``;
see ``start_agent.plugins``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from start_agent.plugins import Chosen, NoOptions, OptionsRegistry
from start_agent.strategies.base import Strategy
from start_agent.strategies.majority import Majority, MajorityOptions
from start_agent.strategies.single import Single

DEFAULT = "single"


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy as the registry knows it.

    Attributes:
        name: for ``--strategy``.
        make: options → the strategy.
        options: the model of its options.
        compares: whether it compares answers by ``Question.value``; then it is rejected for problems without one.
    """

    name: str
    make: Callable[[Any], Strategy]
    options: type[BaseModel] = NoOptions
    compares: bool = False


BUILT_IN = (
    StrategyEntry(DEFAULT, lambda options: Single()),
    StrategyEntry("majority", Majority, MajorityOptions, compares=True),
)

STRATEGIES = OptionsRegistry("strategy", "start_agent.strategies", StrategyEntry, lambda: BUILT_IN)
"""The strategies that ``--strategy`` can choose."""

SINGLE = Chosen(DEFAULT)


class StrategyChoice(BaseModel):
    """The choice of a strategy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str = Field(
        DEFAULT,
        description="how traces become an answer: single (one trace), majority (several traces vote), or a plug-in's",
    )


def make(chosen: Chosen) -> Strategy:
    """Create the chosen strategy. Raises ConfigError."""
    strategy: Strategy = STRATEGIES.find(chosen.name).make(chosen.options)
    return strategy
