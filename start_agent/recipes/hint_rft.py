"""Hint-RFT and RFT: from a base model to one that calls Python by itself, as stages (START, section 3).

::

    greedy ──┐                                                ┌─ sampled-1 ─┐
             ├─► seed-data ─► start-0 (from the base) ────────┤     …       ├─► start-data ─► start (from the base)
    hinted ──┘                                                └─ sampled-n ─┘

``seed-data`` (the paper's D_seed) holds the hinted traces of problems that greedy decoding fails and a hint solves;
``start-data`` (D_START) at most one right trace of each problem, sampled from START-0 without hints. Each stage is a
step with a folder of its own below the recipe's.
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
    """What the rounds of training are made of, beside the options of their stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="folder of all stages: new, or that of the same recipe")
    held_out: tuple[str, ...] = Field(
        (), description="problems never to train on: a task, a run directory, or a file (question, answer)"
    )
    reworded: bool = Field(False, description="leave out training problems that are a held-out one in other words, too")
    seed_sft: str = Field("start-32b", description="recipe of START-0's training: a name or a YAML file (see sft)")
    sft: str = Field("start-32b", description="recipe of START's training")
    samples: int = Field(16, ge=1, description="traces of START-0 for each problem")
    sampling_runs: int = Field(1, ge=1, description="run directories over which the samples are spread, side by side")
    sampling_rounds: int = Field(
        1,
        ge=1,
        description="times that a model is sampled and the base trained on what it got right; more than 1: "
        "START is sampled in its turn, for start-2, and so on",
    )
    sampling_temperature: float = Field(0.6, gt=0, description="at which START-0 is sampled")
    sampling_top_p: float = Field(0.95, gt=0, le=1, description="at which START-0 is sampled")
    start_choice: Choice = Field(Choice.SHORTEST, description="which of START-0's right traces of a problem is kept")
    start_require_tool: bool = Field(False, description="learn in the end only from traces that call Python")
    launcher: str = Field(
        "", description="what starts the trainings in place of python: 'accelerate launch --config_file F'"
    )
    workers: int = Field(1, ge=1, description="stages at once, where they do not need each other; they share the cores")


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
"""The groups of options of the recipe and of its stages, by title; a name that several have means the same in all."""


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    names = (entry.name for entry in _RECIPES.iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def read_hint_rft_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe, by its name or by the path of a YAML file. Raises ConfigError."""
    if name in recipe_names():
        with resources.as_file(_RECIPES / f"{name}{_SUFFIX}") as packaged:
            return fields.read_yaml(packaged)
    if Path(name).suffix in {_SUFFIX, ".yml"}:
        return fields.read_yaml(Path(name))
    raise ConfigError(f"--config: no recipe {name!r}; there are {', '.join(recipe_names())}, or a YAML file's path")


@dataclass(frozen=True, slots=True)
class Parts:
    """The options from which the stages are made.

    Attributes:
        recipe: of the recipe itself.
        model: the base: a name or a folder.
        instruction: that follows each question, in every stage alike: that of the base.
        seed: of all that is drawn.
        problems: to learn from.
        running: options of every ``batch`` step: the engine and its settings.
        runtime: likewise, what does not decide the records: how many at once.
        decoding: of the hinted runs; the others have no hints.
        loss: of D_seed; D_START holds no hints.
        filters, selection: of both.
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
        """From a recipe's settings, by its name or by a YAML file's path, and options over them.

        Raises:
            ConfigError: an unknown option, a wrong value, or no seed.
            ModelError: the base cannot be found.
        """
        file = {} if recipe is None else read_hint_rft_recipe(recipe)
        fields.refuse_unknown(file, [*GROUPS.values(), *registry.ENGINES.option_models().values()], recipe)
        layers = (file, given)
        solver = SolverConfig.from_layers(*layers)
        if solver.solve.seed is None:
            raise ConfigError("--seed: a recipe needs a seed, so that what is done can be told from what is not")
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
        """The decoding of all other runs: the same, without hints."""
        return self.decoding.model_copy(update={"hints": False})


def check_inputs(parts: Parts) -> None:
    """See that the problems and the held-out ones can be read: a stage would find out after hours.

    Raises:
        InputError: they cannot; it says why.
    """
    next(iter(stream(parts.problems)), None)
    read_held_out(parts.recipe.held_out)


def stages_of(parts: Parts) -> list[Stage]:
    """The stages, each after those that it needs.

    Raises:
        ConfigError: a recipe that does not exist or is not sound, samples that cannot be spread evenly, or a
            launcher that is no command.
    """
    recipe, folder = parts.recipe, parts.recipe.output_dir
    for name in (recipe.seed_sft, recipe.sft):
        longest = fields.build(SftOptions, read_recipe(name)).max_length
        if parts.filters.max_length > longest:
            raise ConfigError(
                f"--max-length {parts.filters.max_length}: the recipe {name} takes up to {longest} tokens"
            )
    if recipe.samples % recipe.sampling_runs:
        raise ConfigError(f"--sampling-runs {recipe.sampling_runs}: {recipe.samples} samples cannot be spread evenly")
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
    """A ``batch`` step: greedy unless ``sampling`` is given, over the recipe's problems unless others are."""
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
    """Sampling without hints, spread over run directories that differ in their seed, as do all ``earlier`` rounds."""
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
    """A ``select`` step over runs of the recipe, which come before it."""
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
    """An ``sft`` step: always from the base."""
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
