"""``start-agent hint-rft``: runs both rounds of training, from a base model to START."""

from __future__ import annotations

import argparse
from typing import Any

from start_agent.cli import flags
from start_agent.cli.solving import run_to_end
from start_agent.engines import registry
from start_agent.recipes.hint_rft import GROUPS, Parts, check_inputs, recipe_names, stages_of

_ABOUT = """Train a base model to call Python by itself, in two rounds (START, section 3):

  greedy, hinted   the training problems, solved without and with hints
  seed-data        hinted traces of problems that are solved only with hints; the hints are masked from the loss
  start-0          the base, fine-tuned on seed-data
  sampled-1 ...    START-0's own traces, without hints
  start-data       at most one correct trace of each problem
  start            the base, fine-tuned on start-data

With --sampling-rounds 2, START is sampled to train start-2 (and so on). This helps if START-0 seldom calls Python, so
that START had few traces to learn from.

Each stage is a start-agent command with its own folder in --output-dir and a log in logs/. Run the same command again
to resume."""

_EXAMPLES = """examples:
  start-agent hint-rft --config pocket --output-dir runs/start --workers 4
  start-agent hint-rft --config pocket --output-dir runs/start --workers 4 --sampling-rounds 2
  start-agent solve --model runs/start/start --no-hints "What is 48613 * 7957?"
  start-agent hint-rft --config start-32b --engine vllm --tensor-parallel-size 8 --model Qwen/QwQ-32B-Preview \\
      --data problems.jsonl --question-column question --answer-column answer --output-dir runs/start-32b \\
      --launcher "accelerate launch --config_file accelerate-zero3.yaml"
  start-agent hint-rft --config pocket --output-dir runs/start --dry-run        only show the commands
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "hint-rft",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="TEXT", help=f"settings: {', '.join(recipe_names())}, or a YAML file")
    flags.add_old_name(parser, "--recipe", "--config", metavar="TEXT")
    parser.add_argument("--dry-run", action="store_true", help="show the commands of the stages without running them")
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the recipe and of its stages; an option that several have is one flag."""
    known: set[str] = set()
    engines = {f"--engine {name}": model for name, model in registry.ENGINES.option_models().items()}
    for title, model in (GROUPS | engines).items():
        flags.add_options(parser, model, title, known=known)
        known |= set(model.model_fields)


def run(arguments: argparse.Namespace) -> int:
    """Run what is not done; 0 when START is trained."""
    from start_agent.cli.stages import StagesView
    from start_agent.recipes.stages import run_stages

    parts = Parts.from_layers(arguments.config, vars(arguments))
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
