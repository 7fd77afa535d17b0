"""Hint-RFT and RFT as stages, from a base model to one that calls Python without hints (START, section 3).

::

    greedy ──┐                                                ┌─ sampled-1 ─┐
             ├─► seed-data ─► start-0 (from the base) ────────┤     …       ├─► start-data ─► start (from the base)
    hinted ──┘                                                └─ sampled-n ─┘

``seed-data`` (the paper's D_seed) has hinted traces of problems that greedy decoding does not solve without a hint;
``start-data`` (D_START) has at most one correct trace per problem, sampled from START-0 without hints. Each stage is a
step with its own subfolder.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.batch.options import BatchOptions
from start_agent.build import SolveOptions, SolverConfig
from start_agent.data.filters import FilterOptions
from start_agent.data.leakage import read_held_out
from start_agent.data.loss import LossPolicy
from start_agent.data.selection import Choice, SelectionOptions
from start_agent.decoding.settings import DecodingSettings
from start_agent.engines import registry
from start_agent.engines.base import Sampling
from start_agent.errors import ConfigError
from start_agent.recipes.stages import Stage
from start_agent.tasks import DataOptions, stream
from start_agent.training.options import SftOptions, read_recipe

_RECIPES = resources.files("start_agent.recipes") / "hint-rft"
_SUFFIX = ".yaml"


class HintRftOptions(BaseModel):
    """Options of the recipe itself, besides those of its stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="folder of all stages: a new folder, or that of the same recipe")
    held_out: tuple[str, ...] = Field(
        (), description="problems never to train on: a task, a run directory, or a file (question, answer)"
    )
    reworded: bool = Field(
        False, description="also exclude problems with the same numbers and answer as a held-out problem"
    )
    seed_sft: str = Field("start-32b", description="sft recipe for START-0: a name or a YAML file (see sft)")
    sft: str = Field("start-32b", description="sft recipe for START")
    samples: int = Field(16, ge=1, description="samples of START-0 per problem")
    sampling_runs: int = Field(1, ge=1, description="number of run directories that the samples are split over")
    sampling_rounds: int = Field(
        1,
        ge=1,
        description="rounds of sampling a model and training the base on its correct traces; with more than 1, "
        "START is sampled for start-2, and so on",
    )
    sampling_temperature: float = Field(0.6, gt=0, description="temperature for sampling START-0")
    sampling_top_p: float = Field(0.95, gt=0, le=1, description="top-p for sampling START-0")
    start_choice: Choice = Field(Choice.SHORTEST, description="which of START-0's correct traces of a problem is kept")
    start_require_tool: bool = Field(False, description="train START only on traces that call Python")
    launcher: str = Field(
        "", description="launcher for the training stages: 'accelerate launch --config_file F' (default: python)"
    )
    workers: int = Field(1, ge=1, description="maximum concurrent stages; they share the CPU cores")


GROUPS: dict[str, type[BaseModel]] = {
    "recipe": HintRftOptions,
    "engine of the batches": registry.EngineChoice,
    "model": SolveOptions,
    "problems": DataOptions,
    "batch": BatchOptions,
    "decoding of the hinted runs": DecodingSettings,
    "selection": SelectionOptions,
    "filters": FilterOptions,
    "loss": LossPolicy,
}
"""The groups of options of the recipe and its stages, by title; equal names have the same meaning in all of them."""


def recipe_names() -> list[str]:
    """The names of the recipes that ship with the package."""
    names = (entry.name for entry in _RECIPES.iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def read_hint_rft_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe, given by its name or by the path of a YAML file. Raises ConfigError."""
    if name in recipe_names():
        with resources.as_file(_RECIPES / f"{name}{_SUFFIX}") as packaged:
            return fields.read_yaml(packaged)
    if Path(name).suffix in {_SUFFIX, ".yml"}:
        return fields.read_yaml(Path(name))
    raise ConfigError(f"--config: no recipe {name!r}; use {', '.join(recipe_names())}, or a path to a YAML file")


@dataclass(frozen=True, slots=True)
class Parts:
    """The options that the stages are made from.

    Attributes:
        recipe: options of the recipe itself.
        model: the base model: a name or a folder.
        instruction: text after each question, the same in all stages: that of the base model.
        seed: seed of all random draws.
        problems: the training problems.
        running: options of all ``batch`` steps that affect the records: the engine and its settings.
        runtime: options of all ``batch`` steps that do not affect the records, such as concurrency.
        decoding: settings of the hinted runs; the others have no hints.
        loss: loss policy of D_seed; D_START has no hints.
        filters, selection: options for both data sets.
    """

    recipe: HintRftOptions
    model: str
    instruction: str
    seed: int
    problems: DataOptions
    running: Mapping[str, Any]
    runtime: Mapping[str, Any]
    decoding: DecodingSettings
    loss: LossPolicy
    filters: FilterOptions
    selection: SelectionOptions

    @classmethod
    def from_layers(cls, recipe: str | None, given: Mapping[str, Any]) -> Self:
        """Build from a recipe, given by its name or by the path of a YAML file, and options that override it.

        Raises:
            ConfigError: an unknown option, an invalid value, or no seed.
            ModelError: the base model cannot be found.
        """
        file = {} if recipe is None else read_hint_rft_recipe(recipe)
        fields.refuse_unknown(file, [*GROUPS.values(), *registry.ENGINES.option_models().values()], recipe)
        layers = (file, given)
        solver = SolverConfig.from_layers(*layers)
        if solver.solve.seed is None:
            raise ConfigError("--seed: a recipe needs a seed, so that it can be resumed")
        engine, batch = solver.engine_options, fields.build(BatchOptions, *layers)
        runtime = fields.runtime_names(type(engine), BatchOptions)
        return cls(
            recipe=fields.build(HintRftOptions, *layers),
            model=solver.solve.model,
            instruction=solver.instruction,
            seed=solver.solve.seed,
            problems=fields.build(DataOptions, *layers),
            running={
                **({} if solver.engine == registry.DEFAULT else {"engine": solver.engine}),
                **fields.changed(engine, leave_out=runtime),
                **fields.changed(batch, leave_out=runtime | {"samples"}),
                **fields.changed(solver.solve, leave_out={"model", "seed", "instruction"}),
            },
            runtime={
                **fields.changed(engine, leave_out=set(type(engine).model_fields) - runtime),
                **fields.changed(batch, leave_out=set(type(batch).model_fields) - runtime),
            },
            decoding=solver.decoding,
            loss=fields.build(LossPolicy, *layers),
            filters=fields.build(FilterOptions, *layers),
            selection=fields.build(SelectionOptions, *layers),
        )

    @property
    def unhinted(self) -> DecodingSettings:
        """The settings of all other runs: the same without hints."""
        return self.decoding.model_copy(update={"hints": False})


def check_inputs(parts: Parts) -> None:
    """Check that the problems and the held-out ones are readable, before stages run for hours.

    Raises:
        InputError: they are not; the message says why.
    """
    next(iter(stream(parts.problems)), None)
    read_held_out(parts.recipe.held_out)


def stages_of(parts: Parts) -> list[Stage]:
    """The stages, in an order that respects their dependencies.

    Raises:
        ConfigError: a recipe does not exist or is invalid, the samples cannot be split evenly, or the launcher is
            not a valid command.
    """
    recipe, folder = parts.recipe, parts.recipe.output_dir
    for name in (recipe.seed_sft, recipe.sft):
        longest = fields.build(SftOptions, read_recipe(name)).max_length
        if parts.filters.max_length > longest:
            raise ConfigError(
                f"--max-length {parts.filters.max_length}: the recipe {name} accepts at most {longest} tokens"
            )
    if recipe.samples % recipe.sampling_runs:
        raise ConfigError(f"--sampling-runs {recipe.sampling_runs}: {recipe.samples} samples cannot be split evenly")
    greedy = solve(parts, "greedy", parts.model, parts.unhinted)
    hinted = solve(parts, "hinted", parts.model, parts.decoding)
    seed_data = select(parts, "seed-data", "hint-rft", [hinted.name], greedy=[greedy.name])
    start_0 = fine_tune(parts, "start-0", seed_data.name, recipe.seed_sft)
    stages, model = [greedy, hinted, seed_data, start_0], start_0.name
    for done in range(recipe.sampling_rounds):
        name = f"-{done + 1}" if done else ""
        sampled = sample(parts, f"sampled{name}", str(folder / model), model, earlier=done)
        start_data = select(parts, f"start-data{name}", "rft", [stage.name for stage in sampled])
        start = fine_tune(parts, f"start{name}", start_data.name, recipe.sft)
        stages, model = [*stages, *sampled, start_data, start], start.name
    return stages


def solve(
    parts: Parts,
    name: str,
    model: str,
    decoding: DecodingSettings,
    *,
    after: Sequence[str] = (),
    sampling: Sampling | None = None,
    samples: int = 1,
    seed: int | None = None,
    problems: Mapping[str, Any] | None = None,
) -> Stage:
    """A ``batch`` step: greedy unless ``sampling`` is given, on the recipe's problems unless ``problems`` is given."""
    options = {
        "output_dir": str(parts.recipe.output_dir / name),
        "model": model,
        "instruction": parts.instruction,
        "seed": parts.seed if seed is None else seed,
        **(fields.changed(parts.problems) if problems is None else problems),
        **parts.running,
        **fields.changed(decoding),
        **(sampling or Sampling()).as_options(),
        **({"samples": samples} if samples > 1 else {}),
    }
    return Stage(name, "batch", options, tuple(after), parts.runtime)


def sample(
    parts: Parts,
    name: str,
    model: str,
    after: str,
    decoding: DecodingSettings | None = None,
    *,
    earlier: int = 0,
) -> list[Stage]:
    """Stages that sample without hints, split over run directories with different seeds, also from earlier rounds."""
    recipe = parts.recipe
    before = parts.seed + earlier * recipe.sampling_runs
    sampling = Sampling(temperature=recipe.sampling_temperature, top_p=recipe.sampling_top_p)
    return [
        solve(
            parts,
            f"{name}-{number}",
            model,
            decoding or parts.unhinted,
            after=[after] if after else (),
            sampling=sampling,
            samples=recipe.samples // recipe.sampling_runs,
            seed=before + number,
        )
        for number in range(1, recipe.sampling_runs + 1)
    ]


def select(
    parts: Parts,
    name: str,
    kind: str,
    runs: Sequence[str],
    *,
    greedy: Sequence[str] = (),
    loss: LossPolicy | None = None,
    filters: Mapping[str, Any] | None = None,
) -> Stage:
    """A ``select`` step that depends on runs of the recipe."""
    folder, recipe = parts.recipe.output_dir, parts.recipe
    if kind == "rft":
        selection = parts.selection.model_copy(update={"choice": recipe.start_choice})
        own = {"require_tool": recipe.start_require_tool, "require_unhinted": False}
        loss = loss or LossPolicy()
    else:
        selection, own, loss = parts.selection, {}, loss or parts.loss
    options = {
        "kind": kind,
        "output_dir": str(folder / name),
        "runs": [str(folder / run) for run in runs],
        **({"greedy": [str(folder / run) for run in greedy]} if greedy else {}),
        **({"held_out": list(recipe.held_out)} if recipe.held_out else {}),
        **({"reworded": True} if recipe.reworded else {}),
        **fields.changed(selection),
        **fields.changed(parts.filters.model_copy(update=own | dict(filters or {}))),
        **fields.changed(loss),
    }
    return Stage(name, "select", options, (*runs, *greedy))


def fine_tune(parts: Parts, name: str, data: str, recipe: str) -> Stage:
    """An ``sft`` step, always from the base model."""
    folder = parts.recipe.output_dir
    try:
        launcher = tuple(shlex.split(parts.recipe.launcher))
    except ValueError as error:
        raise ConfigError(f"--launcher: {str(error).lower()} in {parts.recipe.launcher!r}") from error
    options = {
        "config": recipe,
        "model": parts.model,
        "data": str(folder / data),
        "output_dir": str(folder / name),
        "seed": parts.seed,
    }
    return Stage(name, "sft", options, (data,), launcher=launcher)
