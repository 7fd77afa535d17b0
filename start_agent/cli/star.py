"""``start-agent star``: a model that learns from its own right rationales; on problems of words, or on addition."""

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
  start-agent star --task gsm8k --split train --no-rationalize ...            for comparison: failures are left out

An iteration lets the model write a rationale for every problem, and once more with the answer shown where it failed
(--rationalize); what comes out right trains the base anew, without the answer that was shown. The file of rationales
holds a few examples, and may hold the form of the texts:

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

Run the same command again after whatever stopped it: it goes on from there. DIR/summary.json names the best model.
"""

_HIDDEN = frozenset({"num_train_epochs", "max_steps", "seed"})  # of training: the loop decides them


def _engines() -> dict[str, type[BaseModel]]:
    """The options of the engines that can be used, by name: a server cannot load the model of an iteration."""
    return {name: entry.options for name, entry in registry.ENGINES.known().items() if entry.local}


class RunOptions(BaseModel):
    """What is learned from, and where it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="the run's folder: new, or that of the same run")
    engine: str = Field(registry.DEFAULT, description="what writes the rationales: one that loads local models")
    model: str = Field(description="the base: a model of the hub, or a local folder")
    rationales: Path = Field(description="YAML or JSONL file of a few worked examples")
    sft: Annotated[str | None, Renamed("recipe")] = Field(
        None, description="settings of the training: a recipe's name or a YAML file (see sft --config)"
    )
    train_dtype: Annotated[Literal["float32", "bfloat16"] | None, Renamed("weights")] = Field(
        None, description="of the weights while they train; --dtype is the engine's"
    )
    dev: int = Field(200, ge=1, description="problems set aside to decide when to stop")
    held_out: int = Field(0, ge=0, description="problems set aside to report on, beside those")


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
        description="STaR: a model learns to reason from what it reasoned rightly, starting from a few rationales.",
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
        help="n-digit addition with a scratchpad, on a tiny model: with and without rationalization, against none",
        description="The paper's arithmetic in miniature: a tiny base that adds 1 or 2 digits learns to add 5, with "
        "and without rationalization, against fine-tuning without scratchpad. Writes report.md, report.json and "
        "addition.png.",
    )
    flags.add_options(addition, MiniatureOptions, "run")
    flags.add_options(addition, AdditionOptions, "miniature")
    addition.set_defaults(run=run_miniature)


def run_miniature(arguments: argparse.Namespace) -> int:
    """Run the miniature; 0 where it came to its end."""
    return run_config(MiniatureConfig.from_layers(vars(arguments)))


def run_config(config: MiniatureConfig) -> int:
    """Run the miniature, and show how it goes."""
    from start_agent.papers.addition.report import SECTION
    from start_agent.papers.addition.step import run_miniature

    hide_transformers_bars()

    def tell(variant: str, iteration: Iteration) -> None:
        _tell(iteration, f"{variant} rationalization, ")

    run_miniature(config, tell)
    print((config.output_dir / SECTION).read_text(encoding="utf-8"))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run the loop on a task; 0 where it came to its end."""
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
        raise ConfigError(f"--engine {own.engine}: it cannot load the model of an iteration: {', '.join(_engines())}")
    loop, asked = fields.build(StarOptions, file, given), fields.build(DataOptions, file, given)
    data = asked.seeded(loop.seed, shuffles=resolve_task(asked).shuffles)
    writing, sampling = fields.build(WritingOptions, file, given), fields.build(Sampling, file, given)
    training = _training(own, file, given)
    shots = Shots.read(own.rationales)
    base = resolve(own.model).location

    def engine(model: str) -> Engine:
        return registry.create(own.engine, model, file, given)

    engine(base)  # not opened: what it would refuse, it refuses now
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
    rules = replace(ResumeRules.of({type(group).__name__: type(group) for group in groups}), growing={})
    with RunDirectory.open(own.output_dir, decisive, versions=versions(), rules=rules) as directory:
        done = run_star(learner, problems, evaluations, loop, directory, _tell)
        top = best(done)
        model = str(model_folder(own.output_dir, top.number)) if top.number else own.model
        directory.write_summary({"best": top.number, "model": model, "scores": top.scores})
    print(f"the best score, {top.scores[DEV]:.1%} of the dev problems, is that of iteration {top.number}: {model}")
    return 0


def _training(own: RunOptions, *layers: Mapping[str, Any]) -> SftOptions:
    """The settings of the training; its ``dtype`` has another name here, where the engine has one too."""
    recipe = read_recipe(own.sft) if own.sft else {}
    others = [{name: value for name, value in layer.items() if name not in ("dtype", "weights")} for layer in layers]
    dtype = {} if own.train_dtype is None else {"dtype": own.train_dtype}
    return fields.build(SftOptions, recipe, *others, dtype)


def set_aside(problems: list[Problem], dev: int, held_out: int) -> tuple[list[Problem], dict[str, list[Problem]]]:
    """Take out the problems to evaluate on: those with the smallest hashes, so that every run takes the same.

    Returns those that are left, in their order, and those taken by set. Raises ConfigError where too few are left.
    """
    if len(problems) <= dev + held_out:
        raise ConfigError(f"--dev: {dev} and {held_out} problems to set aside, of {len(problems)} in all: none is left")
    by_hash = sorted(problems, key=lambda problem: problem.key)
    sets = {DEV: by_hash[:dev], HELD_OUT: by_hash[dev : dev + held_out]}
    taken = {problem.key for name in sets for problem in sets[name]}
    return [problem for problem in problems if problem.key not in taken], {k: v for k, v in sets.items() if v}


def _tell(iteration: Iteration, title: str = "") -> None:
    scores = ", ".join(f"{name} {score:.1%}" for name, score in iteration.scores.items())
    learned = ""
    if iteration.number:
        learned = f"{iteration.generated} of {iteration.tried} right, {iteration.rationalized} more rationalized, "
        learned += f"{iteration.steps} steps; "
    print(f"{title}iteration {iteration.number}: {learned}{scores}", file=sys.stderr)
