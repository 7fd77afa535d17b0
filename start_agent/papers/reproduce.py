"""The stages of the papers' experiments at small scale, on the pocket reasoner, and the runs for the report.

Besides the stages of Hint-RFT there are: RFT without tools, from as many samples of the base (``plain-*``, ``rft``);
START-0 with other treatments of hints (``seed-data-V``, ``start-0-V``); and evaluations on held-out problems
(``eval-*``), which are greedy unless named ``sampled``, and without hints unless named ``hint`` or ``rounds``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from start_agent.data.loss import HintLoss
from start_agent.decoding.settings import DecodingSettings
from start_agent.engines.base import Sampling
from start_agent.recipes.hint_rft import Parts, fine_tune, sample, select, solve, stages_of
from start_agent.recipes.stages import Stage
from start_agent.tasks.loading import POCKET_COUNT

Part = Literal["table", "rounds", "ablation", "third-round", "star"]
PARTS: tuple[Part, ...] = ("table", "rounds", "ablation", "third-round", "star")

MAJORITY = 4
"""Samples of the base for its majority vote: enough to use at least as many tokens as START or the hinted base."""

QUICK: dict[str, Any] = {"limit": 195, "samples": 4, "start_require_tool": False}
"""Options of the recipe that ``--quick`` overrides: all stages, with too little data for meaningful figures."""
QUICK_HELD_OUT = 39

VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "drop": ("dropped (STaR)", {"hint": HintLoss.DROP}, {}),
    "train": ("trained", {"hint": HintLoss.TRAIN}, {}),
    "mix": ("half masked, half dropped", {"hint": HintLoss.MIX}, {}),
    "letter": ("masked, all else trained, any trace", {"mask_before_hint": False}, {"require_unhinted": False}),
}
"""Variants of START-0 besides the recipe's: name → title, changed loss options, changed filter options."""

BOTH_ROUNDS = "mix"
"""The variant that also goes through the second round, like the recipe's own."""

THIRD = "start-2"
"""The model of the third round, as named by ``hint-rft --sampling-rounds 2``."""


class ReproduceOptions(BaseModel):
    """Options of a reproduction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="folder of all stages and the report: a new folder, or that of the same run")
    parts: tuple[Part, ...] = Field(PARTS, description="parts of the report")
    quick: bool = Field(False, description="run all stages in minutes, with too little data for meaningful figures")
    held_out_limit: int = Field(
        POCKET_COUNT, ge=10, le=POCKET_COUNT, description="held-out problems per evaluation"
    )  # at most as many as `held_out: [pocket]` excludes from the training sets
    seed: int = Field(0, ge=0, description="random seed")
    workers: int = Field(4, ge=1, description="maximum concurrent stages; they share the CPU cores")

    @property
    def held_out(self) -> int:
        """Problems per evaluation."""
        return QUICK_HELD_OUT if self.quick else self.held_out_limit

    @property
    def rounds(self) -> range:
        """Numbers of end-of-thinking hints in the part `rounds`; 0 is in the table already."""
        return range(1, 3 if self.quick else 5)


def parts_of(options: ReproduceOptions) -> Parts:
    """The options of the pocket reasoner's recipe, from which the stages are made. Raises ConfigError."""
    given = {"seed": options.seed, "output_dir": options.output_dir, "workers": options.workers}
    return Parts.from_layers("pocket", given | (QUICK if options.quick else {}))


def reproduce_stages(parts: Parts, options: ReproduceOptions) -> list[Stage]:
    """The stages of the selected parts, in an order that respects their dependencies. Raises ConfigError."""
    stages: list[Stage] = []
    third = "third-round" in options.parts
    if third:
        parts = replace(parts, recipe=parts.recipe.model_copy(update={"sampling_rounds": 2}))
    if set(options.parts) - {"star"}:
        stages += _table(parts, options)
    if "rounds" in options.parts:
        stages += _rounds(parts, options)
    if "ablation" in options.parts:
        stages += _ablation(parts, options)
    if third:
        stages += _greedy_and_sampled(parts, options, THIRD)
    if "star" in options.parts:
        own = {"output_dir": str(options.output_dir / "star"), "seed": options.seed, "quick": options.quick}
        stages.insert(0, Stage("star", "start_agent.papers.addition.step:STEP", own))
    return stages


def _table(parts: Parts, options: ReproduceOptions) -> list[Stage]:
    """START's stages, RFT without tools, and evaluations of all models on held-out problems."""
    plain_runs = sample(parts, "plain", parts.model, "", parts.unhinted.model_copy(update={"tools": False}))
    toolless = replace(parts, recipe=parts.recipe.model_copy(update={"start_require_tool": False}))
    return [
        evaluation(parts, options, "base", parts.model, parts.unhinted),
        evaluation(parts, options, "base-hint", parts.model, parts.decoding),
        evaluation(parts, options, "base-sampled", parts.model, parts.unhinted, sampled=True, samples=MAJORITY),
        *stages_of(parts),
        *plain_runs,
        select(toolless, "plain-data", "rft", [stage.name for stage in plain_runs]),
        fine_tune(parts, "rft", "plain-data", parts.recipe.sft),
        evaluation(parts, options, "rft", "rft", parts.unhinted),
        *_greedy_and_sampled(parts, options, "start-0"),
        *_greedy_and_sampled(parts, options, "start"),
        evaluation(parts, options, "start-hint", "start", parts.decoding),
    ]


def _rounds(parts: Parts, options: ReproduceOptions) -> list[Stage]:
    return [
        evaluation(
            parts,
            options,
            f"{name}-rounds-{rounds}",
            model,
            parts.decoding.model_copy(update={"max_hints": 0, "end_of_think_hints": rounds, "max_tool_calls": 12}),
        )
        for name, model in (("base", parts.model), ("start", "start"))
        for rounds in options.rounds
    ]


def _ablation(parts: Parts, options: ReproduceOptions) -> list[Stage]:
    stages = []
    for variant, (_, loss, filters) in VARIANTS.items():
        data, model = f"seed-data-{variant}", f"start-0-{variant}"
        own_loss = parts.loss.model_copy(update=loss)
        stages += [
            select(parts, data, "hint-rft", ["hinted"], greedy=["greedy"], loss=own_loss, filters=filters),
            fine_tune(parts, model, data, parts.recipe.seed_sft),
            *_greedy_and_sampled(parts, options, model),
        ]
    start_0, start = f"start-0-{BOTH_ROUNDS}", f"start-{BOTH_ROUNDS}"
    sampled = sample(parts, f"sampled-{BOTH_ROUNDS}", str(parts.recipe.output_dir / start_0), start_0)
    return [
        *stages,
        *sampled,
        select(parts, f"start-data-{BOTH_ROUNDS}", "rft", [stage.name for stage in sampled]),
        fine_tune(parts, start, f"start-data-{BOTH_ROUNDS}", parts.recipe.sft),
        *_greedy_and_sampled(parts, options, start),
    ]


def _greedy_and_sampled(parts: Parts, options: ReproduceOptions, model: str) -> list[Stage]:
    """Evaluations of a stage's model without hints, greedy and sampled."""
    return [
        evaluation(parts, options, model, model, parts.unhinted),
        evaluation(parts, options, f"{model}-sampled", model, parts.unhinted, sampled=True),
    ]


def evaluation(
    parts: Parts,
    options: ReproduceOptions,
    name: str,
    model: str,
    decoding: DecodingSettings,
    *,
    sampled: bool = False,
    samples: int = 1,
) -> Stage:
    """A run on the held-out problems; ``model`` is the base or the name of a stage."""
    base = model == parts.model
    recipe = parts.recipe
    sampling = Sampling(temperature=recipe.sampling_temperature, top_p=recipe.sampling_top_p) if sampled else None
    return solve(
        parts,
        f"eval-{name}",
        model if base else str(recipe.output_dir / model),
        decoding,
        after=() if base else (model,),
        sampling=sampling,
        samples=samples,
        problems={"task": "pocket", "limit": options.held_out},
    )
