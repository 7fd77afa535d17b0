"""The miniature as a step of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.papers.addition.options import AdditionOptions
from start_agent.papers.addition.run import run_addition
from start_agent.recipes.star.store import Iteration
from start_agent.recipes.steps import Step


class MiniatureOptions(BaseModel):
    """Where the miniature is kept, and how much of it is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="the run's folder: new, or that of the same run")
    quick: bool = Field(False, description="a minute's worth of it; other options but --seed are not used then")


@dataclass(frozen=True, slots=True)
class MiniatureConfig:
    """The options of the miniature."""

    output_dir: Path
    addition: AdditionOptions

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """From layers of options, later ones over earlier ones. Raises ConfigError."""
        own, options = fields.build(MiniatureOptions, *layers), fields.build(AdditionOptions, *layers)
        return cls(own.output_dir, AdditionOptions.quick(options.seed) if own.quick else options)


def run_miniature(
    config: MiniatureConfig, listener: Callable[[str, Iteration], None] = lambda variant, iteration: None
) -> None:
    """Run it; done again, it does what is missing."""
    run_addition(config.output_dir, options=config.addition, listener=listener)


STEP = Step(("star", "addition"), MiniatureConfig.from_layers, run_miniature)
