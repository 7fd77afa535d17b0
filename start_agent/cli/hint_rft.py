"""``start-agent hint-rft``: both rounds of training, from a base model to START."""

from __future__ import annotations

import argparse
from typing import Any

from pydantic import BaseModel

from start_agent import fields
from start_agent.batch.options import BatchOptions
from start_agent.cli import flags
from start_agent.cli.solving import SolveOptions, run_to_end
from start_agent.data.filters import FilterOptions
from start_agent.data.loss import LossPolicy
from start_agent.data.selection import SelectionOptions
from start_agent.decoding.settings import DecodingSettings
from start_agent.engines import registry
from start_agent.errors import ConfigError
from start_agent.models import resolve
from start_agent.recipes.hint_rft import HintRftOptions, Parts, check_inputs, read_hint_rft_recipe, stages_of
from start_agent.tasks.options import DataOptions

_ABOUT = """From a base model to one that calls Python by itself, in two rounds (START, section 3):

  greedy, hinted   the training problems, without hints and with them
  seed-data        hinted traces of the problems that only a hint solves; no loss on the hints
  start-0          the base, fine-tuned on them
  sampled-1 ...    START-0's own traces, without hints
  start-data       at most one right trace of each problem
  start            the base, fine-tuned on these

With --sampling-rounds 2, START is sampled in its turn, for start-2 (and so on): it helps where START-0 calls Python
seldom, so that START had little to learn from.

Each stage is a start-agent command with a folder of its own below --output-dir; its log is in logs/. The same command
again, after whatever stopped it, goes on from there."""

_EXAMPLES = """examples:
  start-agent hint-rft --recipe pocket --output-dir runs/start --workers 4
  start-agent hint-rft --recipe pocket --output-dir runs/start --workers 4 --sampling-rounds 2
  start-agent solve --model runs/start/start --no-hints "What is 48613 * 7957?"
  start-agent hint-rft --recipe start-32b --engine vllm --tensor-parallel-size 8 --model Qwen/QwQ-32B-Preview \\
      --data problems.jsonl --question-column question --answer-column answer --output-dir runs/start-32b \\
      --launcher "accelerate launch --config_file accelerate-zero3.yaml"
  start-agent hint-rft --recipe pocket --output-dir runs/start --dry-run        only show the commands
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "hint-rft",
        help="train a model to call Python by itself: both rounds, resumable",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--recipe", default=argparse.SUPPRESS, metavar="TEXT", help="settings by name, or a YAML file's path"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the commands of the stages and run none")
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the recipe and of its stages; a name that several have means the same in all."""
    known: set[str] = set()
    for title, model in (_models() | {f"--engine {name}": model for name, model in registry.OPTIONS.items()}).items():
        flags.add_options(parser, model, title, known=known)
        known |= set(model.model_fields)


def parts_of(arguments: argparse.Namespace) -> Parts:
    """What the stages' commands are made of: the recipe's settings, with the flags over them. Raises ConfigError."""
    given = vars(arguments)
    file = read_hint_rft_recipe(arguments.recipe) if "recipe" in given else {}
    models = _models()
    fields.refuse_unknown(file, [*models.values(), *registry.OPTIONS.values()], given.get("recipe"))
    built = {title: fields.build(model, file, given) for title, model in models.items()}
    engine = fields.of_type(registry.EngineChoice, built).engine
    registry.refuse_foreign(engine, file, given)
    solving, batch = fields.of_type(SolveOptions, built), built["batch"]
    if solving.seed is None:
        raise ConfigError("--seed: a recipe needs a seed, so that what is done can be told from what is not")
    choice = resolve(solving.model)
    instruction = choice.instruction if solving.instruction is None else solving.instruction
    engine_options = fields.build(registry.OPTIONS[engine], file, given)
    runtime = fields.runtime_names(type(engine_options), BatchOptions)
    running = [
        *([] if engine == "transformers" else ["--engine", engine]),
        *fields.flags(engine_options, leave_out=runtime),
        *fields.flags(batch, leave_out=runtime | {"samples"}),
        *fields.flags(solving, leave_out={"model", "seed", "instruction"}),
    ]
    how = [
        *fields.flags(engine_options, leave_out=set(type(engine_options).model_fields) - runtime),
        *fields.flags(batch, leave_out=set(type(batch).model_fields) - runtime),
    ]
    return Parts(
        recipe=fields.of_type(HintRftOptions, built),
        model=solving.model,
        instruction=instruction,
        seed=solving.seed,
        problems=fields.of_type(DataOptions, built),
        running=tuple(running),
        how=tuple(how),
        decoding=fields.of_type(DecodingSettings, built),
        loss=fields.of_type(LossPolicy, built),
        filters=fields.of_type(FilterOptions, built),
        selection=fields.of_type(SelectionOptions, built),
    )


def _models() -> dict[str, type[BaseModel]]:
    return {
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


def run(arguments: argparse.Namespace) -> int:
    """Run what is not done; 0 when START is there."""
    from start_agent.cli.stages import StagesView
    from start_agent.recipes.stages import run_stages

    parts = parts_of(arguments)
    stages = stages_of(parts)
    check_inputs(parts)
    if arguments.dry_run:
        for stage in stages:
            print(stage.shown)
        return 0

    async def work() -> int:
        with StagesView() as view:
            await run_stages(stages, parts.recipe.output_dir, workers=parts.recipe.workers, listener=view.on_progress)
        print(parts.recipe.output_dir / stages[-1].name)
        return 0

    return run_to_end(work())
