"""The steps that recipes are made of: functions with options, each also a command of ``start-agent``.

Another package's step is a ``Step`` at ``module:object``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from start_agent import fields
from start_agent.data.select import SelectConfig, select
from start_agent.evaluation import RunConfig, RunOptions, run_evaluation
from start_agent.plugins import find_plugin
from start_agent.training.loading import load_rows, source
from start_agent.training.options import SftOptions, TrainOptions, read_recipe
from start_agent.training.sft import TrainReport, train


@dataclass(frozen=True, slots=True)
class Step:
    """A kind of step.

    Attributes:
        command: of ``start-agent``, which does the same with the options as flags.
        config: options by name → what ``run`` takes; equal for options that mean the same. Raises ConfigError.
        run: does it; done again, it does what is missing.
    """

    command: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], Any]
    run: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """A run and where it is kept."""

    run: RunConfig
    output_dir: Path

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """From layers of options, later ones over earlier ones. Raises ConfigError."""
        return cls(RunConfig.from_layers(*layers), fields.build(RunOptions, *layers).output_dir)


@dataclass(frozen=True, slots=True)
class SftStepConfig:
    """A training: on what, to where, and how."""

    run: TrainOptions
    training: SftOptions

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """From layers of options, later ones over earlier ones, and all over those of a recipe. Raises ConfigError."""
        run = fields.build(TrainOptions, *layers)
        recipe = read_recipe(run.config) if run.config else {}
        return cls(run, fields.build(SftOptions, recipe, *layers))


def run_sft(config: SftStepConfig) -> TrainReport:
    """Train. Raises what ``training.sft.train`` raises."""
    options = config.run
    return train(
        options.model,
        load_rows(options.data),
        config.training,
        options.output_dir,
        eval_rows=() if options.eval_data is None else load_rows(options.eval_data),
        source=source(options.data),
    )


STEPS: dict[str, Step] = {
    "batch": Step(
        ("batch",), BatchConfig.from_layers, lambda config: asyncio.run(run_evaluation(config.run, config.output_dir))
    ),
    "select": Step(("select",), SelectConfig.from_layers, select),
    "sft": Step(("sft",), SftStepConfig.from_layers, run_sft),
}
"""Those that come with the package, by name."""


def find_step(name: str) -> Step:
    """The step of this name, or at ``module:object``. Raises ConfigError."""
    return STEPS[name] if name in STEPS else find_plugin(name, Step)


def run_step(name: str, options: Mapping[str, Any]) -> object:
    """Do a step in this process. Raises ConfigError, and what the step raises."""
    step = find_step(name)
    return step.run(step.config(options))
