"""The steps that recipes are made of: functions with options, each also a command of ``start-agent``.

Another package's step is a ``Step`` at ``module:object``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from start_agent import fields
from start_agent.data.select import SelectConfig, select
from start_agent.decoding.settings import DecodingSettings
from start_agent.engines.base import Sampling
from start_agent.evaluation import BatchConfig, run_evaluation
from start_agent.plugins import find_plugin
from start_agent.training.loading import load_rows, source
from start_agent.training.options import SftOptions, TrainOptions, read_recipe
from start_agent.training.sft import TrainReport, train

if TYPE_CHECKING:
    from start_agent.training.callbacks import Listener
    from start_agent.training.validation import RowsFacts


@dataclass(frozen=True, slots=True)
class Step:
    """A kind of step.

    Attributes:
        command: of ``start-agent``, which does the same with the options as flags.
        config: options by name → what ``run`` takes; equal for options that mean the same. Raises ConfigError.
        run: does it; done again, it does what is missing.
        of_0_1: options as the command took them in version 0.1 → what they may mean today, for the marks of that time.
    """

    command: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], Any]
    run: Callable[[Any], object]
    of_0_1: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]] = lambda options: [options]


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


def run_sft(
    config: SftStepConfig,
    *,
    begin: Callable[[Mapping[str, Any], RowsFacts], None] | None = None,
    listener: Listener | None = None,
) -> TrainReport:
    """Train.

    Args:
        config: on what, to where, and how.
        begin: called with the first row and what all of them hold, once there is something to train.
        listener: called with each point of the loss curve and each evaluation.

    Raises what ``training.sft.train`` raises.
    """
    options, rows = config.run, load_rows(config.run.data)
    return train(
        options.model,
        rows,
        config.training,
        options.output_dir,
        eval_rows=() if options.eval_data is None else load_rows(options.eval_data),
        source=source(options.data),
        begin=None if begin is None else lambda facts: begin(rows[0], facts),
        listener=listener,
    )


def _batch_of_0_1(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is unset was no part of the model's own sampling: that was not looked at."""
    named = fields.with_new_names(DecodingSettings, options, warn=False)
    others = {name: value for name, value in named.items() if name not in Sampling.model_fields}
    return [others | fields.build(Sampling, options).as_options()]


def _select_of_0_1(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Traces were repaired unless ``--no-repair`` was given, and are not today unless ``--repair`` is: what is selected
    already is not selected again for that."""
    return [options] if "repair" in options else [options, {**options, "repair": True}]


def _sft_of_0_1(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [fields.with_new_names(TrainOptions, options, warn=False)]


STEPS: dict[str, Step] = {
    "batch": Step(
        ("batch",),
        BatchConfig.from_layers,
        lambda config: asyncio.run(run_evaluation(config.run, config.output_dir)),
        _batch_of_0_1,
    ),
    "select": Step(("select",), SelectConfig.from_layers, select, _select_of_0_1),
    "sft": Step(("sft",), SftStepConfig.from_layers, run_sft, _sft_of_0_1),
}
"""Those that come with the package, by name."""


def find_step(name: str) -> Step:
    """The step of this name, or at ``module:object``. Raises ConfigError."""
    return STEPS[name] if name in STEPS else find_plugin(name, Step)


def run_step(name: str, options: Mapping[str, Any]) -> object:
    """Do a step in this process. Raises ConfigError, and what the step raises."""
    step = find_step(name)
    return step.run(step.config(options))
