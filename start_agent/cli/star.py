"""``start-agent star``: trains a model on its own correct rationales, for a task or for the paper's addition."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.cli import flags
from start_agent.cli.solving import hide_transformers_bars
from start_agent.engines import registry
from start_agent.engines.base import Engine, Sampling
from start_agent.errors import ConfigError
from start_agent.fields import Renamed
from start_agent.files import file_digest
from start_agent.papers.addition.options import AdditionOptions
from start_agent.papers.addition.step import MiniatureConfig, MiniatureOptions
from start_agent.recipes.star.loop import StarOptions
from start_agent.recipes.star.store import DEV, HELD_OUT, Iteration
from start_agent.recipes.star.tasks import WritingOptions
from start_agent.tasks.options import DataOptions
from start_agent.training.options import SftOptions, read_recipe

if TYPE_CHECKING:
    from start_agent.problem import Problem

_EXAMPLES = """examples:
  start-agent star addition --output-dir runs/addition            the paper's addition in miniature, on a CPU
  start-agent star addition --quick --output-dir runs/quick       the same in a minute, too short to show anything
  start-agent star --task gsm8k --split train --model Qwen/Qwen2.5-0.5B --rationales rationales.yaml \\
      --sft lora --output-dir runs/star
  start-agent star --task gsm8k --split train --no-rationalize ...            for comparison: without rationalization

In each iteration the model writes a rationale for every problem, and for failed problems again with the answer as a
hint (--rationalize). The base is then trained on the correct rationales, without the hints. The file of rationales has
a few examples, and optionally the format of the texts:

  rationales:
    - question: There are 3 cars, and 2 more arrive. How many are there?
      rationale: There were 3 cars. 2 more arrive. 3 + 2 = 5.
      answer: 5
  form:                                                       # these are the defaults
    question: "Q: {question}\\nA:"
    hint: "Q: {question}\\nThe right answer is {answer}.\\nA:"
    begin: " "                                                # before a rationale
    conclusion: " The answer is {answer}."
    separator: "\\n\\n"

Run the same command again to resume. DIR/summary.json names the best model.
"""

_HIDDEN = frozenset({"num_train_epochs", "max_steps", "seed"})  # training options that the loop sets


def _engines() -> dict[str, type[BaseModel]]:
    """The options of the usable engines, by name: only local engines can load the model of an iteration."""
    return {name: entry.options for name, entry in registry.ENGINES.known().items() if entry.local}


class RunOptions(BaseModel):
    """The models, the rationales and the output folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="the run's folder: a new one, or that of the run to resume")
    engine: str = Field(registry.DEFAULT, description="engine for writing rationales; it must load local models")
    model: str = Field(description="the base: a model on the Hub, or a local folder")
    rationales: Path = Field(description="YAML or JSONL file with a few worked examples")
    sft: Annotated[str | None, Renamed("recipe")] = Field(
        None, description="training settings: the name of a recipe or a YAML file (see sft --config)"
    )
    train_dtype: Annotated[Literal["float32", "bfloat16"] | None, Renamed("weights")] = Field(
        None, description="data type of the weights during training; --dtype is the engine's"
    )
    dev: int = Field(200, ge=1, description="problems reserved for deciding when to stop")
    held_out: int = Field(0, ge=0, description="further problems reserved for reporting")


_GROUPS: dict[str, type[BaseModel]] = {
    "run": RunOptions,
    "problems": DataOptions,
    "loop": StarOptions,
    "writing": WritingOptions,
    "sampling": Sampling,
}


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "star",
        description="STaR: a model learns to reason from its own correct rationales, starting from a few examples.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_config(parser)
    known = set(_HIDDEN)
    groups = _GROUPS | {f"{name} engine": options for name, options in _engines().items()} | {"training": SftOptions}
    for title, model in groups.items():
        flags.add_options(parser, model, title, known=known if model not in _GROUPS.values() else ())
        known |= set(model.model_fields)
    parser.set_defaults(run=run)

    actions = parser.add_subparsers(title="the miniature", metavar="addition")
    addition = actions.add_parser(
        "addition",
        help="n-digit addition with a scratchpad, on a tiny model, with and without rationalization",
        description="The paper's arithmetic in miniature: a tiny base that adds 1 or 2 digits learns to add 5, with "
        "and without rationalization, compared with fine-tuning without a scratchpad. Writes report.md, report.json "
        "and addition.png.",
    )
    flags.add_options(addition, MiniatureOptions, "run")
    flags.add_options(addition, AdditionOptions, "miniature")
    addition.set_defaults(run=run_miniature)


def run_miniature(arguments: argparse.Namespace) -> int:
    """Run the miniature; 0 if it was completed."""
    return run_config(MiniatureConfig.from_layers(vars(arguments)))


def run_config(config: MiniatureConfig) -> int:
    """Run the miniature, and show the progress."""
    from start_agent.papers.addition.report import SECTION
    from start_agent.papers.addition.step import run_miniature

    hide_transformers_bars()

    def show(variant: str, iteration: Iteration) -> None:
        _print_iteration(iteration, f"{variant} rationalization, ")

    run_miniature(config, show)
    print((config.output_dir / SECTION).read_text(encoding="utf-8"))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run the loop on a task; 0 if it was completed."""
    from start_agent.batch.resume import ResumeRules
    from start_agent.batch.store import RunDirectory
    from start_agent.models import local_digests, resolve
    from start_agent.recipes.star.loop import run_star
    from start_agent.recipes.star.rationales import Shots
    from start_agent.recipes.star.store import best, model_folder
    from start_agent.recipes.star.tasks import TaskLearner
    from start_agent.tasks import resolve_task, stream
    from start_agent.versions import versions

    given, file = vars(arguments), fields.read_yaml(arguments.config)
    known: list[type[BaseModel]] = [*_GROUPS.values(), *_engines().values(), SftOptions]
    fields.refuse_unknown(file, known, arguments.config)
    own = fields.build(RunOptions, file, given)
    if own.engine not in _engines():
        names = ", ".join(_engines())
        raise ConfigError(f"--engine {own.engine}: it cannot load the model of an iteration; use one of {names}")
    loop, data = fields.build(StarOptions, file, given), fields.build(DataOptions, file, given)
    data = data.seeded(loop.seed, shuffles=resolve_task(data).shuffles)
    writing, sampling = fields.build(WritingOptions, file, given), fields.build(Sampling, file, given)
    training = _training(own, file, given)
    shots = Shots.read(own.rationales)
    base = resolve(own.model).location

    def engine(model: str) -> Engine:
        return registry.create(own.engine, model, file, given)

    engine(base)  # not opened, only to check its options now
    problems, evaluations = set_aside(list(stream(data)), own.dev, own.held_out)
    decisive: dict[str, Any] = {
        "engine": own.engine,
        "rationales": file_digest(own.rationales),
        "model": own.model,
        "files": local_digests(own.model),
        "dev": own.dev,
        "held_out": own.held_out,
    }
    groups = (data, loop, writing, sampling, training)
    for group in groups:
        decisive[type(group).__name__] = fields.deciding(group)
    hide_transformers_bars()
    learner = TaskLearner(base, engine, shots, sampling=sampling, writing=writing, training=training)
    rules = replace(
        ResumeRules.of({type(group).__name__: type(group) for group in groups}),
        growing={},
        flags={"rationales": "content of --rationales", "SftOptions.dtype": "--train-dtype"},
    )
    with RunDirectory.open(own.output_dir, decisive, versions=versions(), rules=rules) as directory:
        done = run_star(learner, problems, evaluations, loop, directory, _print_iteration)
        top = best(done)
        model = str(model_folder(own.output_dir, top.number)) if top.number else own.model
        directory.write_summary({"best": top.number, "model": model, "scores": top.scores})
    print(f"iteration {top.number} has the best score, {top.scores[DEV]:.1%} of the dev problems: {model}")
    return 0


def _training(own: RunOptions, *layers: Mapping[str, Any]) -> SftOptions:
    """The settings of the training; its ``dtype`` is called ``train_dtype`` here, because the engine has one too."""
    recipe = read_recipe(own.sft) if own.sft else {}
    others = [{name: value for name, value in layer.items() if name not in ("dtype", "weights")} for layer in layers]
    dtype = {} if own.train_dtype is None else {"dtype": own.train_dtype}
    return fields.build(SftOptions, recipe, *others, dtype)


def set_aside(problems: list[Problem], dev: int, held_out: int) -> tuple[list[Problem], dict[str, list[Problem]]]:
    """Reserve the problems with the smallest hashes for evaluation, so that every run reserves the same.

    Returns the remaining problems, in their order, and the reserved ones by set. Raises ConfigError if none remain.
    """
    if len(problems) <= dev + held_out:
        raise ConfigError(f"--dev, --held-out: reserving {dev} + {held_out} of {len(problems)} problems leaves none")
    by_hash = sorted(problems, key=lambda problem: problem.key)
    sets = {DEV: by_hash[:dev], HELD_OUT: by_hash[dev : dev + held_out]}
    taken = {problem.key for name in sets for problem in sets[name]}
    return [problem for problem in problems if problem.key not in taken], {k: v for k, v in sets.items() if v}


def _print_iteration(iteration: Iteration, title: str = "") -> None:
    scores = ", ".join(f"{name} {score:.1%}" for name, score in iteration.scores.items())
    trained = ""
    if iteration.number:
        trained = f"{iteration.generated} of {iteration.tried} correct, {iteration.rationalized} more rationalized, "
        trained += f"{iteration.steps} steps; "
    print(f"{title}iteration {iteration.number}: {trained}{scores}", file=sys.stderr)
