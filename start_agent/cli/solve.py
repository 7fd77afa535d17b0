"""``start-agent solve``: solves one question and streams the trace to the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from start_agent.build import question_for
from start_agent.cli.solving import add_options, answer_config, opened, run_to_end
from start_agent.errors import InputError, PromptError
from start_agent.strategies.registry import DEFAULT, STRATEGIES, StrategyChoice, make

_EXAMPLES = """examples:
  start-agent solve "What is 48613 * 7957?"
  start-agent solve --no-hints "What is 48613 * 7957?"      the model alone
  start-agent solve --end-of-think-hints 3 --seed 7 --file question.txt
  start-agent solve --temperature 0.6 --strategy majority --votes 5 "What is 48613 * 7957?"
  start-agent solve --model Qwen/QwQ-32B --device cuda --temperature 0.6 --top-p 0.95 "..."
  echo "What is 12 * 34?" | start-agent solve --json | jq .answer
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "solve",
        description="Solve one question: the model thinks, gets hints, calls Python in a sandbox, and answers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", nargs="?", help="the question; '-' or nothing reads standard input")
    parser.add_argument("--file", type=Path, metavar="PATH", help="read the question from a file")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print only the complete trace, as one line of JSON")
    output.add_argument("--quiet", action="store_true", help="print only the answer")
    add_options(parser, {"strategy": StrategyChoice}, STRATEGIES)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Solve one question; 0 if the trace was finished, whatever the answer is."""
    return run_to_end(_solve(arguments))


async def _solve(arguments: argparse.Namespace) -> int:
    question = _question(arguments)
    config = answer_config(arguments)
    strategy, single = make(config.strategy), config.strategy.name == DEFAULT
    async with opened(config.solver, quiet=arguments.quiet) as solver:
        prepared, seed = question_for(solver, question), config.solver.solve.seed
        if arguments.json or arguments.quiet:
            solution = await strategy.run(solver.solve, prepared, seed)
        else:
            from rich.console import Console

            from start_agent.cli.traces import TracesView

            view = TracesView(Console(highlight=False), solver, several=not single)
            solution = await strategy.run(view.solve, prepared, seed)
            view.on_solution(solution)
        if arguments.json:
            trace = solution.trace.to_json(solver.engine.tokenizer.decode)
            print(json.dumps(trace if single else trace | {"strategy": solution.to_json()}))
    if arguments.quiet:
        print(solution.answer or "")
    return 0


def _question(arguments: argparse.Namespace) -> str:
    """The question from the argument, the file or standard input. Raises InputError if there is none, or several."""
    given: str | None = arguments.question
    if arguments.file is not None:
        if given is not None:
            raise InputError("give the question as an argument or with --file, not both")
        try:
            given = arguments.file.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot read the question from {arguments.file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{arguments.file} is not UTF-8 text: save it as UTF-8") from error
    elif given is None or given == "-":
        if sys.stdin is None or (given is None and sys.stdin.isatty()):
            raise InputError('no question: try  start-agent solve "What is 48613 * 7957?"')
        given = _standard_input()
    assert given is not None
    if not given.strip():
        raise PromptError("the question is empty")
    if any("\ud800" <= char <= "\udfff" for char in given):  # Python's replacement for undecodable bytes
        raise InputError("the question is not UTF-8 text")
    return given


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError("the question is not UTF-8 text") from error
