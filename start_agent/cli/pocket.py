"""``start-agent pocket``: build the embedded reasoner anew, list its problems, watch it solve some."""

from __future__ import annotations

import argparse
import json
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.cli import flags
from start_agent.cli.solving import add_options, opened, run_to_end, solver_config
from start_agent.fields import Renamed
from start_agent.pocket import held_out
from start_agent.pocket.options import BuildOptions
from start_agent.problem import Problem
from start_agent.seeds import derive_seed

if TYPE_CHECKING:
    from start_agent.decoding.solver import Solver


_DRAWN_FROM = 500


class ProblemOptions(BaseModel):
    """Which of the held-out problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problems: int = Field(4, ge=1, description="how many held-out problems")


class ListOptions(ProblemOptions):
    """Of the command that lists them."""

    seed: Annotated[int, Renamed("problem_seed")] = Field(0, ge=0, description="decides which ones")


class DemoOptions(ProblemOptions):
    """Of the command that solves them."""

    problem_seed: int | None = Field(None, ge=0, description="decides which ones (default: --seed)")


def add(commands: Any) -> None:
    """Add the command and its own commands to the parser."""
    parser = commands.add_parser("pocket")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    build = actions.add_parser(
        "build",
        help="train the reasoner from scratch",
        description="Train the pocket reasoner from scratch; a run that was cut off goes on where it stopped.",
    )
    flags.add_options(build, BuildOptions, "build")
    build.set_defaults(run=run_build)

    problems = actions.add_parser("problems", help="print held-out problems as JSON lines")
    flags.add_options(problems, ListOptions, "problems")
    problems.set_defaults(run=run_problems)

    demo = actions.add_parser(
        "demo",
        help="solve held-out problems, streaming: first alone, then with hints",
        description="Solve held-out problems: the model alone first, then with hints and Python, streaming.",
    )
    flags.add_options(demo, DemoOptions, "problems")
    add_options(demo)
    demo.set_defaults(run=run_demo)


def run_build(arguments: argparse.Namespace) -> int:
    """Train and save."""
    from start_agent.pocket.build import build

    folder = build(fields.build(BuildOptions, vars(arguments)))
    print(folder)
    return 0


def run_problems(arguments: argparse.Namespace) -> int:
    """Print problems with their answers."""
    options = fields.build(ListOptions, vars(arguments))
    for problem in _mixed(options.problems, options.seed):
        row = {"key": problem.key, "family": problem.meta["subject"], "level": problem.meta["level"]}
        print(json.dumps(row | {"question": problem.question, "answer": problem.answer}))
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """Solve some problems; 0 where every trace came to its end."""
    return run_to_end(_demo(arguments))


async def _demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.rule import Rule

    from start_agent.cli.render import TerminalListener, verdict
    from start_agent.decoding.events import TraceFinished

    console = Console(highlight=False)
    options = fields.build(DemoOptions, vars(arguments))
    right = {"alone": 0, "with hints": 0}
    config = solver_config(arguments)
    chosen = config.solve.seed or 0 if options.problem_seed is None else options.problem_seed
    async with opened(config) as solver:
        alone = _without_hints(solver)
        for problem in _mixed(options.problems, chosen):
            seed = None if config.solve.seed is None else derive_seed(config.solve.seed, problem.key)
            console.print(Rule(f"{problem.meta['subject']}, level {problem.meta['level']}"), problem.question)
            trace = await alone.solve(problem.question, seed=seed)
            right["alone"] += trace.answer == problem.answer
            console.print("\nalone: ", verdict(trace), "\n", sep="")
            listener = TerminalListener(console, solver.engine.tokenizer.eos_ids)
            async with aclosing(solver.stream(problem.question, seed=seed)) as events:
                async for event in events:
                    listener.on_event(event)
                    if isinstance(event, TraceFinished):
                        right["with hints"] += event.trace.answer == problem.answer
            console.print(f"the right answer is {problem.answer}\n", style="bold")
    total = options.problems
    console.print(Rule(), *(f"right {how}: {count} of {total}" for how, count in right.items()), sep="\n")
    return 0


def _mixed(count: int, seed: int) -> list[Problem]:
    """Held-out problems in an order of their own: ``held_out`` goes from family to family, the easy ones first."""
    problems = held_out(max(count, _DRAWN_FROM))
    random.Random(seed).shuffle(problems)
    return problems[:count]


def _without_hints(solver: Solver) -> Solver:
    """The same model and sandbox, with nothing inserted."""
    return solver.changed(settings=solver.settings.model_copy(update={"hints": False}))
