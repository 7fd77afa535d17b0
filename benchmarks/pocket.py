"""Effect of hints on accuracy: the pocket reasoner on its held-out problems, without and with several kinds of hints.

Uses the real engine and sandbox, with greedy decoding. Tools are always enabled, so tool calls that the model makes
without hints are counted. An answer is correct if it equals the problem's answer, character for character.

    python -m benchmarks.pocket [--quick] [--problems N] [--model pocket] [--output traces.jsonl]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.table import Table

from benchmarks.report import Report, Target, common_settings, new_parser, positive, rounded, run, say
from sandbox import Sandbox, SandboxError
from start_agent.analysis.stats import mcnemar_p_value, share, wilson_interval
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.models import resolve
from start_agent.pocket import held_out
from start_agent.problem import Problem
from start_agent.seeds import derive_seed
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace, TraceOutcome

CONDITIONS: dict[str, tuple[str, DecodingSettings]] = {
    "greedy": ("no hints", DecodingSettings(hints=False)),
    "connective": ("connective hint", DecodingSettings(hint_probability=1, end_of_think_hints=0)),
    "hint": ("connective hint, 1 at end of thinking", DecodingSettings(hint_probability=1, end_of_think_hints=1)),
    "round_1": ("1 at end of thinking", DecodingSettings(max_hints=0, end_of_think_hints=1)),
    "round_2": ("2 at end of thinking", DecodingSettings(max_hints=0, end_of_think_hints=2)),
    "round_3": ("3 at end of thinking", DecodingSettings(max_hints=0, end_of_think_hints=3)),
}
"""Name → title and settings."""

TARGETS: dict[str, Target] = {
    "greedy_accuracy": (">=", 0.30),
    "greedy_headroom": (">=", 0.40),  # 1 - greedy_accuracy: the base model must leave something to gain
    "greedy_tool_rate": ("<=", 0.02),
    "hint_gain": (">=", 0.25),
}

_FINISHED = {TraceOutcome.ANSWERED, TraceOutcome.NO_ANSWER}
_TRIES = 3  # attempts at a trace when the sandbox fails, which must not count as a wrong answer


@dataclass(frozen=True, slots=True)
class Attempt:
    """A problem and its trace."""

    problem: Problem
    trace: Trace

    @property
    def correct(self) -> bool:
        """Exact match, ignoring surrounding white space."""
        return self.trace.answer is not None and self.trace.answer.strip() == self.problem.answer

    @property
    def hinted(self) -> bool:
        """Whether a hint was inserted."""
        return any(True for _ in self.trace.of_kind(SpanKind.HINT))

    @property
    def tokens(self) -> int:
        """Tokens after the prompt, including inserted ones."""
        return self.trace.count() - self.trace.count(SpanKind.PROMPT)


def summary(attempts: Sequence[Attempt]) -> dict[str, float]:
    """The figures of one condition: rates as fractions, others as means over traces."""
    correct = sum(attempt.correct for attempt in attempts)
    low, high = wilson_interval(correct, len(attempts))
    figures = {
        "accuracy": correct / len(attempts),
        "accuracy_low": low,
        "accuracy_high": high,
        "tool_calls": fmean(attempt.trace.tool_calls for attempt in attempts),
        "tool_rate": share(attempt.trace.tool_calls > 0 for attempt in attempts),
        "tokens": fmean(attempt.tokens for attempt in attempts),
        "finished_rate": share(attempt.trace.outcome in _FINISHED for attempt in attempts),
    }
    hinted = [attempt for attempt in attempts if attempt.hinted]
    if hinted:
        figures["unhinted_repeat_rate"] = share(attempt.trace.unhinted_tool_calls > 0 for attempt in hinted)
    return figures


def figures_of(results: dict[str, list[Attempt]]) -> dict[str, float]:
    """The figures of the report: per condition, prefixed with its name, and comparisons of greedy and hinted."""
    figures = {
        f"{condition}_{name}": figure
        for condition, attempts in results.items()
        for name, figure in summary(attempts).items()
    }
    figures["greedy_headroom"] = 1 - figures["greedy_accuracy"]
    figures["hint_gain"] = figures["hint_accuracy"] - figures["greedy_accuracy"]
    figures["hint_gain_p_value"] = mcnemar_p_value(
        (one.correct, other.correct) for one, other in zip(results["greedy"], results["hint"], strict=True)
    )
    if "hint_unhinted_repeat_rate" in figures:
        figures["unhinted_repeat_rate"] = figures.pop("hint_unhinted_repeat_rate")
    return figures


async def solve_all(
    solver: Solver, problems: Sequence[Problem], *, condition: str, seed: int, open_traces: int
) -> list[Attempt]:
    """Solve all problems, at most ``open_traces`` concurrently. Returns attempts in the order of the problems."""
    places, done, begun = asyncio.Semaphore(open_traces), 0, time.perf_counter()

    async def attempt(problem: Problem) -> Attempt:
        nonlocal done
        async with places:
            trace = await _solve(solver, problem, derive_seed(seed, problem.key))
        done += 1
        if done == len(problems) or done % 100 == 0:
            say(f"{condition}: {done}/{len(problems)} traces, {time.perf_counter() - begun:.0f} s")
        return Attempt(problem, trace)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(problem)) for problem in problems]
    except ExceptionGroup as failed:  # the first error has cancelled the other tasks
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


async def _solve(solver: Solver, problem: Problem, seed: int) -> Trace:
    for remaining in reversed(range(_TRIES)):
        try:
            return await solver.solve(problem.question, seed=seed)
        except SandboxError as error:
            if not remaining:
                raise
            say(f"the sandbox failed, retrying: {error}")
    raise AssertionError("unreachable")


async def measure(arguments: argparse.Namespace) -> Report:
    """Run all conditions in turn."""
    choice = resolve(arguments.model)
    problems = held_out(arguments.problems or (60 if arguments.quick else 500))
    options = TransformersOptions(max_num_seqs=arguments.open_traces, threads=arguments.threads)
    engine = TransformersEngine(choice.location, options)
    box = Sandbox(
        size=arguments.kernels,
        prestart=arguments.kernels // 2,
        unsafe_no_isolation=arguments.unsafe_no_isolation,
    )
    results: dict[str, list[Attempt]] = {}
    async with engine, box:
        for condition, (_, decoding) in CONDITIONS.items():
            solver = Solver(engine, box, settings=decoding, instruction=choice.instruction)
            results[condition] = await solve_all(
                solver, problems, condition=condition, seed=arguments.seed, open_traces=arguments.open_traces
            )
        settings = common_settings(arguments) | {
            "model": arguments.model,
            "problems": len(problems),
            "open_traces": arguments.open_traces,
            "kernels": arguments.kernels,
            "isolation": box.isolation,
            "conditions": {  # settings that differ from the defaults
                name: decoding.model_dump(mode="json", exclude_defaults=True)
                for name, (_, decoding) in CONDITIONS.items()
            },
        }
        if arguments.output is not None:
            _write(arguments.output, results, engine.tokenizer)
    tables = [
        _overview(results),
        _by("family", results, lambda problem: str(problem.meta["subject"])),
        _by("level", results, lambda problem: str(problem.meta["level"])),
    ]
    return Report("pocket", rounded(figures_of(results)), TARGETS, settings, tables)


def _write(path: Path, results: dict[str, list[Attempt]], tokenizer: Tokenizer) -> None:
    with path.open("w", encoding="utf-8") as file:
        for condition, attempts in results.items():
            for attempt in attempts:
                problem = attempt.problem
                row = {
                    "key": problem.key,
                    "family": problem.meta["subject"],
                    "level": problem.meta["level"],
                    "condition": condition,
                    "expected": problem.answer,
                    "correct": attempt.correct,
                    "trace": attempt.trace.to_json(tokenizer.decode),
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _overview(results: dict[str, list[Attempt]]) -> Table:
    count = len(next(iter(results.values())))
    table = Table(title=f"pocket: {count} held-out problems, greedy decoding", title_justify="left")
    for column in ("hints", "accuracy", "95% interval", "calls/trace", "with a call", "more calls without hint"):
        table.add_column(column, justify="left" if column == "hints" else "right")
    for column in ("tokens/trace", "finished", "outcomes"):
        table.add_column(column, justify="left" if column == "outcomes" else "right")
    for condition, attempts in results.items():
        figures = summary(attempts)
        repeats = figures.get("unhinted_repeat_rate")
        outcomes = Counter(str(attempt.trace.outcome) for attempt in attempts)
        table.add_row(
            CONDITIONS[condition][0],
            f"{figures['accuracy']:.1%}",
            f"{figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}",
            f"{figures['tool_calls']:.2f}",
            f"{figures['tool_rate']:.1%}",
            "" if repeats is None else f"{repeats:.1%}",
            f"{figures['tokens']:.0f}",
            f"{figures['finished_rate']:.1%}",
            ", ".join(f"{outcome} {number}" for outcome, number in outcomes.most_common()),
        )
    return table


def _by(what: str, results: dict[str, list[Attempt]], group_of: Callable[[Problem], str]) -> Table:
    """A table of accuracy by groups of problems (rows) and conditions (columns)."""
    table = Table(what, title=f"pocket: accuracy by {what}", title_justify="left")
    table.add_column("problems", justify="right")
    for condition in results:
        table.add_column(CONDITIONS[condition][0], justify="right")
    columns = {condition: _grouped(attempts, group_of) for condition, attempts in results.items()}
    for group, members in sorted(next(iter(columns.values())).items()):
        rates = (share(column[group]) for column in columns.values())
        table.add_row(group, str(len(members)), *(f"{rate:.0%}" for rate in rates))
    return table


def _grouped(attempts: Iterable[Attempt], group_of: Callable[[Problem], str]) -> dict[str, list[bool]]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for attempt in attempts:
        groups[group_of(attempt.problem)].append(attempt.correct)
    return groups


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("Effect of hints on the pocket reasoner's accuracy on its held-out problems.")
    parser.add_argument("--problems", type=positive, metavar="N", help="problems (default: 500; with --quick 60)")
    parser.add_argument("--model", default="pocket", help="a model, as for `start-agent solve` (default: pocket)")
    parser.add_argument("--open-traces", type=positive, default=64, metavar="N", help="concurrent traces (default: 64)")
    parser.add_argument("--kernels", type=positive, default=8, metavar="N", help="maximum live kernels (default: 8)")
    parser.add_argument("--output", type=Path, metavar="PATH", help="write all traces to this file, as JSON lines")
    parser.add_argument("--unsafe-no-isolation", action="store_true", help="DANGEROUS: run the code as your own user")
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
