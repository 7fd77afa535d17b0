"""The steps of recipes: functions with options, which are also commands of ``start-agent``.

Other packages can provide a ``Step`` as ``module:object``.
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
        command: the equivalent command of ``start-agent``, which takes the options as flags.
        config: converts options by name to the argument of ``run``; equal for equivalent options. Raises ConfigError.
        run: runs the step; run again, it does only what is missing.
        of_0_1: converts options of version 0.1 to their possible present meanings, for marker files of that version.
    """

    command: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], Any]
    run: Callable[[Any], object]
    of_0_1: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]] = lambda options: [options]


@dataclass(frozen=True, slots=True)
class SftStepConfig:
    """The options of an ``sft`` step."""

    run: TrainOptions
    training: SftOptions

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Build from layers of options; later ones override earlier ones and the recipe. Raises ConfigError."""
        run = fields.build(TrainOptions, *layers)
        recipe = read_recipe(run.config) if run.config else {}
        return cls(run, fields.build(SftOptions, recipe, *layers))


def run_sft(
    config: SftStepConfig,
    *,
    begin: Callable[[Mapping[str, Any], RowsFacts], None] | None = None,
    listener: Listener | None = None,
) -> TrainReport:
    """Run a fine-tuning.

    Args:
        config: the options.
        begin: called with the first row and facts about all rows, unless the run is already complete.
        listener: called with each point of the loss curve and each evaluation.

    Raises the same errors as ``training.sft.train``.
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
    """Version 0.1 used fixed sampling defaults instead of the model's own."""
    named = fields.with_new_names(DecodingSettings, options, warn=False)
    others = {name: value for name, value in named.items() if name not in Sampling.model_fields}
    return [others | fields.build(Sampling, options).as_options()]


def _select_of_0_1(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Version 0.1 repaired traces by default, now ``--repair`` is needed: accept both for existing selections."""
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
"""The built-in steps, by name."""


def find_step(name: str) -> Step:
    """The step with this name, or at ``module:object``. Raises ConfigError."""
    return STEPS[name] if name in STEPS else find_plugin(name, Step)


def run_step(name: str, options: Mapping[str, Any]) -> object:
    """Run a step in this process. Raises ConfigError, and the errors of the step."""
    step = find_step(name)
    return step.run(step.config(options))
