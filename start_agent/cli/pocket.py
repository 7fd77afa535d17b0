"""``start-agent pocket``: builds the embedded reasoner, lists its problems, or shows how it solves some."""

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


_POOL = 500  # problems to draw from


class ProblemOptions(BaseModel):
    """The choice of held-out problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problems: int = Field(4, ge=1, description="number of held-out problems")


class ListOptions(ProblemOptions):
    """The options of ``pocket problems``."""

    seed: Annotated[int, Renamed("problem_seed")] = Field(0, ge=0, description="seed that draws the problems")


class DemoOptions(ProblemOptions):
    """The options of ``pocket demo``."""

    problem_seed: int | None = Field(None, ge=0, description="seed that draws the problems (default: --seed)")


def add(commands: Any) -> None:
    """Add the command and its subcommands to the parser."""
    parser = commands.add_parser("pocket")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    build = actions.add_parser(
        "build",
        help="train the reasoner from scratch",
        description="Train the pocket reasoner from scratch; run the same command again to resume.",
    )
    flags.add_options(build, BuildOptions, "build")
    build.set_defaults(run=run_build)

    problems = actions.add_parser("problems", help="print held-out problems as JSON lines")
    flags.add_options(problems, ListOptions, "problems")
    problems.set_defaults(run=run_problems)

    demo = actions.add_parser(
        "demo",
        help="solve held-out problems, first without hints, then with them",
        description="Solve held-out problems: first the model alone, then streaming with hints and Python.",
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
    """Solve some problems; 0 if all traces were finished."""
    return run_to_end(_demo(arguments))


async def _demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.rule import Rule

    from start_agent.cli.render import TerminalListener, verdict
    from start_agent.decoding.events import TraceFinished

    console = Console(highlight=False)
    options = fields.build(DemoOptions, vars(arguments))
    correct = {"alone": 0, "with hints": 0}
    config = solver_config(arguments)
    chosen = config.solve.seed or 0 if options.problem_seed is None else options.problem_seed
    async with opened(config) as solver:
        alone = _without_hints(solver)
        for problem in _mixed(options.problems, chosen):
            seed = None if config.solve.seed is None else derive_seed(config.solve.seed, problem.key)
            console.print(Rule(f"{problem.meta['subject']}, level {problem.meta['level']}"), problem.question)
            trace = await alone.solve(problem.question, seed=seed)
            correct["alone"] += trace.answer == problem.answer
            console.print("\nalone: ", verdict(trace), "\n", sep="")
            listener = TerminalListener(console, solver.engine.tokenizer.eos_ids)
            async with aclosing(solver.stream(problem.question, seed=seed)) as events:
                async for event in events:
                    listener.on_event(event)
                    if isinstance(event, TraceFinished):
                        correct["with hints"] += event.trace.answer == problem.answer
            console.print(f"the correct answer is {problem.answer}\n", style="bold")
    total = options.problems
    console.print(Rule(), *(f"correct {how}: {count} of {total}" for how, count in correct.items()), sep="\n")
    return 0


def _mixed(count: int, seed: int) -> list[Problem]:
    """Shuffled held-out problems; ``held_out`` returns them by family, easy ones first."""
    problems = held_out(max(count, _POOL))
    random.Random(seed).shuffle(problems)
    return problems[:count]


def _without_hints(solver: Solver) -> Solver:
    """A solver with the same model and sandbox, but without hints."""
    return solver.changed(settings=solver.settings.model_copy(update={"hints": False}))
