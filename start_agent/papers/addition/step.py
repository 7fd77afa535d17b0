"""The addition experiment as a step of a recipe."""

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
    """Output folder and size of the experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="folder of the run: a new folder, or that of the same run")
    quick: bool = Field(False, description="a smoke test of one minute; other options except --seed are ignored")


@dataclass(frozen=True, slots=True)
class MiniatureConfig:
    """The options of the experiment."""

    output_dir: Path
    addition: AdditionOptions

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Build from layers of options; later layers override earlier ones. Raises ConfigError."""
        own, options = fields.build(MiniatureOptions, *layers), fields.build(AdditionOptions, *layers)
        return cls(own.output_dir, AdditionOptions.quick(options.seed) if own.quick else options)


def run_miniature(
    config: MiniatureConfig, listener: Callable[[str, Iteration], None] = lambda variant, iteration: None
) -> None:
    """Run the experiment, or its missing part."""
    run_addition(config.output_dir, options=config.addition, listener=listener)


STEP = Step(("star", "addition"), MiniatureConfig.from_layers, run_miniature)
