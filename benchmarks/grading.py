"""Correctness of the graders, on gold answers and on recorded answers with known verdicts.

* ``self_worst``: the worst share, over the sets in ``shared/data/sets``, of gold answers that are graded as correct
  when a model gives them in a box; ``self_parsed`` is the same for MATH-500 when each answer goes through Math-Verify,
  even if the texts are equal.
* ``tora_differing``: rows of ``traces/tora-70b-gsm8k.jsonl`` whose verdict differs from a comparison of the numbers in
  ``pred`` and ``gt``.
* ``answers_per_minute``: answers graded by Math-Verify per minute, with ``--size`` processes.

    python -m benchmarks.grading [--data ../shared/data] [--size 2]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import json
import os
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from rich.table import Table

from benchmarks.report import Report, Target, new_parser, positive, rounded, run, say
from start_agent.errors import DataError
from start_agent.grading import GraderPool, Verdict, grade
from start_agent.problem import Problem
from start_agent.tasks import load

TARGETS: dict[str, Target] = {
    "self_worst": (">=", 0.995),
    "self_parsed": (">=", 0.995),
    "tora_differing": ("<=", 0),
    "answers_per_minute": (">=", 2000),
}

SETS = {
    "gsm8k-test": "gsm8k",
    "gsm8k-train": "gsm8k",
    "math500": "math500",
    "aime24": "aime24",
    "aime25": "aime25",
    "amc23": "amc23",
    "commonsenseqa-dev": "commonsenseqa",
}
"""File name → task that reads it."""

_PACKAGES = ("start-agent", "math-verify", "latex2sympy2_extended", "sympy", "datasets")


async def self_graded(problems: Sequence[Problem], pool: GraderPool) -> list[Verdict]:
    """The verdicts on the gold answers, written as a model would write them."""
    return await asyncio.gather(*(grade(p, f"So the answer is \\boxed{{{p.answer}}}.", pool=pool) for p in problems))


def implied(row: dict[str, Any]) -> bool:
    """Whether both columns of a row are numbers, and equal."""
    try:
        return float(row["pred"][0].replace(",", "")) == float(row["gt"].replace(",", ""))
    except ValueError:
        return False


async def measure(arguments: argparse.Namespace) -> Report:
    """Grade all sets and the recorded answers."""
    folder: Path = arguments.data
    figures: dict[str, float] = {}
    shares: list[float] = []
    sets = Table("set", "problems", "right", "share", "seconds", title="gold answers against themselves")
    wrong = Table("where", "prediction", "gold", "verdict", title="rows that differ")
    async with GraderPool(arguments.size) as pool:
        for name, task in SETS.items():
            problems = load(task, data=str(folder / "sets" / f"{name}.jsonl"))
            say(f"{name}: {len(problems)} problems")
            begun = time.perf_counter()
            verdicts = await self_graded(problems, pool)
            right = sum(verdict.correct for verdict in verdicts)
            shares.append(right / len(problems))
            seconds = f"{time.perf_counter() - begun:.2f}"
            sets.add_row(name, str(len(problems)), str(right), f"{shares[-1]:.2%}", seconds)
            for problem, verdict in zip(problems, verdicts, strict=True):
                if not verdict.correct:
                    wrong.add_row(name, problem.answer, problem.answer, f"{verdict.reason} {verdict.detail}")
            if name == "math500":
                async with GraderPool(arguments.size, parse_all=True) as parsing:
                    begun = time.perf_counter()
                    verdicts = await self_graded(problems, parsing)
                    seconds_parsed = time.perf_counter() - begun
                right = sum(verdict.correct for verdict in verdicts)
                share = f"{right / len(problems):.2%}"
                sets.add_row("math500, parsed", str(len(problems)), str(right), share, f"{seconds_parsed:.2f}")
                figures["self_parsed"] = right / len(problems)
                figures["answers_per_minute"] = 60 * len(problems) / seconds_parsed
        path = folder / "traces" / "tora-70b-gsm8k.jsonl"
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        verdicts = await asyncio.gather(*(pool.grade_math(row["pred"][0], row["gt"]) for row in rows))
    differing = [(row, v) for row, v in zip(rows, verdicts, strict=True) if v.correct is not implied(row)]
    for row, verdict in differing:
        wrong.add_row(f"tora {row['idx']}", row["pred"][0], row["gt"], f"{verdict.reason} {verdict.detail}")
    figures["self_worst"] = min(shares)
    figures["tora_differing"] = len(differing)
    figures["tora_accuracy"] = sum(verdict.correct for verdict in verdicts) / len(rows)
    figures["tora_implied"] = sum(map(implied, rows)) / len(rows)
    settings = {
        "size": arguments.size,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    }
    return Report("grading", rounded(figures), TARGETS, settings, [sets, *([wrong] if wrong.row_count else [])])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = new_parser(__doc__.partition("\n")[0] if __doc__ else "")
    shared = os.environ.get("START_AGENT_SHARED") or Path(__file__).parents[2] / "shared"
    parser.add_argument("--data", type=Path, default=Path(shared) / "data", metavar="PATH", help="folder of real data")
    parser.add_argument("--size", type=positive, default=2, metavar="N", help="grader processes (default: 2)")
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
