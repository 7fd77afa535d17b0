"""Throughput and memory of the runner itself: many scripted problems, a fake sandbox, a real run directory.

Measures problems per second when model and kernels cost nothing, whether memory stays flat, and how long it takes to
detect that a run directory is complete. Each trace has two turns and one cell.

    python -m benchmarks.runner [--quick] [--problems N] [--concurrency N]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import gc
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata

from rich.table import Table

from benchmarks.report import Report, Target, new_parser, positive, rounded, run, say
from sandbox import FakeSandbox
from start_agent.analysis.summary import summarize
from start_agent.batch import BatchOptions, Progress, RunDirectory, has_pending, run_batch
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import ScriptedEngine
from start_agent.grading import GraderPool, grade
from start_agent.problem import Problem

TARGETS: dict[str, Target] = {
    "problems_per_second": (">=", 1000),
    "memory_growth_mib": ("<=", 64),  # the keys of 100,000 records take about 12 MiB; their traces would take 1 GiB
    "resume_seconds": ("<=", 10),
}

_EVERY = 20  # number of memory measurements


def problems(count: int) -> Iterator[Problem]:
    """Yield problems one at a time, like a streamed data set."""
    for number in range(count):
        yield Problem(f"What is {number} + 1?", str(number + 1), meta={"level": number % 5})


class Forgetful(ScriptedEngine):
    """A scripted model that writes a program and answers. Clears its call history, so that memory stays flat."""

    def __init__(self, box: FakeSandbox) -> None:
        super().__init__(("```python\nprint(3 + 4)\n```", "So 7.</think>\\boxed{7}"))
        self._box = box

    async def release(self, trace_id: str) -> None:
        """Clear the call history."""
        await super().release(trace_id)
        for notes in (self.requests, self.turns, self.released, self._box.codes):
            notes.clear()


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(arguments: argparse.Namespace) -> Report:
    """Run all problems, then check that none is pending."""
    count = arguments.problems or (5_000 if arguments.quick else 100_000)
    settings = DecodingSettings(hints=False)
    options = BatchOptions(concurrency=arguments.concurrency)
    memory: list[float] = []

    def on_progress(progress: Progress) -> None:
        if progress.done % max(count // _EVERY, 1) == 0:
            memory.append(resident_mib())
            say(f"{progress.done}/{count}: {progress.done / progress.seconds:.0f} problems/s, {memory[-1]:.0f} MiB")

    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        path = Path(name) / "run"
        async with FakeSandbox(lambda code: "7", size=arguments.concurrency) as box, GraderPool() as pool:
            solver = Solver(Forgetful(box), box, settings=settings)
            with RunDirectory.open(path, {"benchmark": "runner", "problems": count}) as directory:
                begun, cpu_begun = time.perf_counter(), time.process_time()
                progress = await run_batch(
                    solver,
                    problems(count),
                    directory,
                    options,
                    grade=partial(grade, pool=pool),
                    instruction="",
                    listener=on_progress,
                )
                seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
        size = (path / "records.jsonl").stat().st_size
        del directory
        gc.collect()
        begun = time.perf_counter()
        with RunDirectory.open(path, {"benchmark": "runner", "problems": count}) as directory:
            pending = has_pending(problems(count), directory, 1)
            opened = time.perf_counter() - begun
            found = summarize(path)
        resumed = time.perf_counter() - begun
    if pending or found.records != count:
        raise AssertionError(f"{found.records} of {count} records")
    figures = {
        "problems_per_second": count / seconds,
        "problems_per_cpu_second": count / cpu_seconds,  # independent of other load
        "memory_growth_mib": max(memory) - memory[0],
        "resume_seconds": resumed,
        "resume_scan_seconds": opened,
        "tool_calls_per_problem": progress.tool_calls / count,
        "tokens_per_problem": progress.tokens / count,
        "record_bytes": size / count,
    }
    table = Table("figure", "value", title=f"runner: {count:,} scripted problems", title_justify="left")
    for figure, value in figures.items():
        table.add_row(figure, f"{value:,.2f}")
    report_settings = {
        "quick": arguments.quick,
        "problems": count,
        "concurrency": arguments.concurrency,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version(), "start-agent": metadata.version("start-agent")},
    }
    return Report("runner", rounded(figures), TARGETS, report_settings, [table])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("Throughput and memory of the runner, and the time to resume a finished run.")
    parser.add_argument("--problems", type=positive, metavar="N", help="problems (default: 100000; with --quick 5000)")
    parser.add_argument("--concurrency", type=positive, default=256, metavar="N", help="concurrency (default: 256)")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="parent of the run directory (default: /tmp)")
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
