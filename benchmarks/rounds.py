"""Independent traces compared with lockstep rounds: the cost of waiting for the slowest.

Both sides use the same runner, solver, engine (vLLM), sandbox, problems, seeds and hints, with all traces in flight at
once, except in one condition. Lockstep rounds (generate until all sequences have stopped, run all tools, repeat) are
usual in ToRA, Qwen2.5-Math, CoRT and SimpleTIR, whose blocking call to the engine returns when its slowest sequence has
stopped. Here a barrier before and after each turn (``lockstep.py``) opens when all remaining traces wait at it. Both
sides do the same work and use the prefix cache. One more difference favours lockstep: on a CPU the engine has its own
cores, which kernels do not use; in lockstep, where kernels and the model never run at the same time, both use all.

Conditions:

* ``real``: cells take their real time in the sandbox, including the start of kernels.
* ``real_batches``: the same, with 16 traces in flight: lockstep takes them batch by batch, like a loop with a fixed
  batch size around ``generate``; independent traces start as others end.
* ``fresh_process``: each cell takes as much longer as a stock interpreter needs to start and to import sympy, as where
  each program runs in its own process. Measured before the runs.
* ``heavy_tail``: each cell takes longer by a Pareto-distributed time (shape 1, from 0.2 s, cut at 10 s, the solver's
  timeout): half of the cells return within 0.4 s, about the time of a fresh interpreter with sympy; one in five takes
  more than a second, one in fifty reaches the limit. The distribution is an assumption, not recorded: it imitates cells
  of which a few search by brute force. The time is determined by the seed, the code and the cell's number.

The added time is slept inside the session: both sides wait equally, and no core is taken from the engine, as with a
sandbox on other machines.

``speedup_*`` is the wall time in lockstep divided by that of independent traces. Decoding is greedy, and the traces of
both sides are compared token for token; they may diverge at a near tie of two logits, which batches of different shapes
round differently. ``same_traces_*`` is the share of identical traces; below 95% the run fails.

    python -m benchmarks.rounds [--quick] [--problems N] [--repeats N]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

from rich.table import Table

from benchmarks.batches import solve_batch, vllm_version
from benchmarks.lockstep import InRounds, on_cores
from benchmarks.report import Report, Target, common_settings, new_parser, positive, rounded, run, say
from benchmarks.sandboxes import Slowed
from sandbox import Sandbox
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.base import Engine
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.models import resolve
from start_agent.pocket import held_out
from start_agent.problem import Problem

TARGETS: dict[str, Target] = {"speedup_real": (">=", 1.5), "speedup_heavy_tail": (">=", 3)}

BATCHES = "real_batches"
CONDITIONS = ("real", BATCHES, "fresh_process", "heavy_tail")
_PLACES, _PLACES_QUICK = 16, 8  # traces in flight in the condition `real_batches`
_SETTINGS = DecodingSettings(hint_probability=1, end_of_think_hints=3)
_SHORTEST, _LONGEST = 0.2, _SETTINGS.cell_timeout  # seconds that a heavy-tailed cell takes
_LONGEST_QUICK = 2.0
_LEAST_SAME = 0.95


def joined(runs: Sequence[Run]) -> Run:
    """Consecutive runs merged into one."""
    return Run(
        sum(run.seconds for run in runs),
        sum(run.engine_idle for run in runs),
        sum(run.tokens for run in runs),
        sum(run.cells for run in runs),
        sum(run.kernel_seconds for run in runs),
        {key: ids for run in runs for key, ids in run.traces.items()},
        sum(run.rounds for run in runs),
    )


def heavy_tailed(generator: random.Random, longest: float = _LONGEST) -> float:
    """A time in seconds, Pareto-distributed with shape 1 (inverse transform), cut at ``longest``."""
    return min(_SHORTEST / (1 - generator.random()), longest)


def fresh_process() -> float:
    """Seconds that an interpreter needs to start and to import sympy (median of three)."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import sympy"], check=True)
        times.append(time.perf_counter() - begun)
    return median(times)


def longest(arguments: argparse.Namespace) -> float:
    """The maximum of the heavy-tailed times, in seconds."""
    return _LONGEST_QUICK if arguments.quick else _LONGEST


@dataclass(frozen=True, slots=True)
class Run:
    """One run over all problems.

    Attributes:
        seconds: wall time, from the first prompt to the last record.
        engine_idle: seconds in which no trace was in the engine.
        tokens: tokens after the prompts.
        cells: number of cells.
        kernel_seconds: total seconds of all cells.
        traces: token ids by problem key.
        rounds: number of lockstep rounds; 0 for independent traces.
    """

    seconds: float
    engine_idle: float
    tokens: int
    cells: int
    kernel_seconds: float
    traces: dict[str, tuple[int, ...]]
    rounds: int = 0


class Subject:
    """Solves the problems; opens a new sandbox for each run, so that no run starts with warm kernels.

    Args:
        engine: an open engine.
        problems: all problems.
        arguments: options of the benchmark.
        cores: all cores of the machine, including those of the engine.
    """

    def __init__(
        self, engine: VLLMEngine, problems: Sequence[Problem], arguments: argparse.Namespace, cores: set[int]
    ) -> None:
        self.engine, self.problems, self.arguments, self._cores = engine, problems, arguments, cores
        self.places = _PLACES_QUICK if arguments.quick else _PLACES
        self.fresh_process = fresh_process()
        self.draws: dict[str, Callable[[random.Random], float]] = {
            "fresh_process": lambda generator: self.fresh_process,
            "heavy_tail": partial(heavy_tailed, longest=longest(arguments)),
        }

    async def solve(self, condition: str, *, lockstep: bool) -> Run:
        """Solve all problems, graded and recorded, as ``start-agent batch`` does."""
        if condition != BATCHES:
            return await self._solve(condition, self.problems, len(self.problems), lockstep=lockstep)
        places = self.places
        if not lockstep:
            return await self._solve(condition, self.problems, places, lockstep=False)
        parts = [self.problems[place : place + places] for place in range(0, len(self.problems), places)]
        return joined([await self._solve(condition, part, places, lockstep=True) for part in parts])

    async def warm_up(self) -> None:
        """Solve a few problems, so that one-time costs are not measured."""
        await self._solve("real", self.problems[:8], 8, lockstep=False)

    async def _solve(self, condition: str, problems: Sequence[Problem], places: int, *, lockstep: bool) -> Run:
        arguments = self.arguments
        engine: Engine = InRounds(self.engine, len(problems)) if lockstep else self.engine
        async with AsyncExitStack() as stack:
            if lockstep:
                stack.enter_context(on_cores(self._cores))
            box = Sandbox(size=places, prestart=8, unsafe_no_isolation=arguments.unsafe_no_isolation)
            await stack.enter_async_context(box)
            draw = self.draws.get(condition)
            tools = box if draw is None else Slowed(box, arguments.seed, draw)
            solver = Solver(engine, tools, settings=_SETTINGS)
            batch = await solve_batch(solver, problems, concurrency=places, seed=arguments.seed)
        return Run(
            batch.seconds,
            engine.idle_seconds if isinstance(engine, InRounds) else batch.progress.idle_seconds,
            batch.progress.tokens,
            batch.progress.tool_calls,
            sum(record["course"]["kernel_seconds"] for record in batch.records),
            {key: tuple(trace.token_ids) for key, trace in batch.traces.items()},
            engine.rounds if isinstance(engine, InRounds) else 0,
        )


async def measure(arguments: argparse.Namespace) -> Report:
    """Run each condition alternately with independent traces and in lockstep."""
    count = arguments.problems or (16 if arguments.quick else 128)
    problems, cores = held_out(count), os.sched_getaffinity(0)
    pairs: dict[str, list[tuple[Run, Run]]] = {condition: [] for condition in CONDITIONS}
    async with VLLMEngine(
        resolve(arguments.model).location, VLLMOptions(max_num_seqs=count, threads=arguments.threads)
    ) as engine:
        subject = Subject(engine, problems, arguments, cores)
        await subject.warm_up()
        for repeat in range(arguments.repeats):
            for condition in CONDITIONS:
                say(f"{condition}, repeat {repeat + 1}")
                ours = await subject.solve(condition, lockstep=False)
                pairs[condition].append((ours, await subject.solve(condition, lockstep=True)))
    settings = common_settings(arguments) | {
        "model": arguments.model,
        "threads": engine.threads,
        "problems": count,
        "in_flight_in_batches": subject.places,
        "repeats": arguments.repeats,
        "fresh_process_seconds": round(subject.fresh_process, 3),
        "heavy_tail": {"distribution": "Pareto", "shape": 1, "from": _SHORTEST, "cut_at": longest(arguments)},
        "decoding": _SETTINGS.model_dump(mode="json", exclude_defaults=True),
        "vllm": vllm_version(),
    }
    return Report("rounds", rounded(figures_of(pairs)), TARGETS, settings, [_table(pairs)])


def figures_of(pairs: dict[str, list[tuple[Run, Run]]]) -> dict[str, float]:
    """The figures of the report: medians over the pairs. Raises AssertionError if too many traces differ."""
    figures: dict[str, float] = {}
    for condition, some in pairs.items():
        figures[f"speedup_{condition}"] = median(rounds.seconds / ours.seconds for ours, rounds in some)
        figures[f"same_traces_{condition}"] = min(same(ours, rounds) for ours, rounds in some)
        figures[f"seconds_{condition}"] = median(ours.seconds for ours, _ in some)
        figures[f"engine_idle_{condition}"] = median(ours.engine_idle / ours.seconds for ours, _ in some)
        figures[f"engine_idle_rounds_{condition}"] = median(rounds.engine_idle / rounds.seconds for _, rounds in some)
        figures[f"rounds_{condition}"] = max(rounds.rounds for _, rounds in some)
        if figures[f"same_traces_{condition}"] < _LEAST_SAME:
            raise AssertionError(f"only {figures[f'same_traces_{condition}']:.1%} of the traces are the same")
    return figures


def same(one: Run, other: Run) -> float:
    """The share of traces that are identical token for token."""
    assert one.traces.keys() == other.traces.keys()
    return sum(ids == other.traces[key] for key, ids in one.traces.items()) / len(one.traces)


def _table(pairs: dict[str, list[tuple[Run, Run]]]) -> Table:
    table = Table("tool times", "traces", title="rounds: medians", title_justify="left")
    for column in ("seconds", "tokens/s", "engine idle", "cells", "seconds a cell", "rounds"):
        table.add_column(column, justify="right")
    for condition, some in pairs.items():
        for label, runs in zip(("independent", "in rounds"), zip(*some, strict=True), strict=True):
            table.add_row(
                condition,
                label,
                f"{median(one.seconds for one in runs):.2f}",
                f"{median(one.tokens / one.seconds for one in runs):,.0f}",
                f"{median(one.engine_idle / one.seconds for one in runs):.0%}",
                str(runs[0].cells),
                f"{median(one.kernel_seconds / max(one.cells, 1) for one in runs):.3f}",
                str(runs[0].rounds or ""),
            )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("Compares independent traces with lockstep rounds, on the same engine and sandbox.")
    parser.add_argument("--problems", type=positive, metavar="N", help="traces (default: 128; with --quick 16)")
    parser.add_argument("--model", default="pocket", help="a model that vLLM runs (default: pocket)")
    parser.add_argument("--repeats", type=positive, default=1, help="runs of each kind (default: 1)")
    parser.add_argument("--unsafe-no-isolation", action="store_true", help="DANGEROUS: run the code as your own user")
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
