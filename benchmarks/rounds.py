"""Independent traces against lockstep rounds: what waiting for the slowest costs.

Both sides are the same runner, solver, engine (vLLM), sandbox, problems, seeds and hints, with all traces in flight at
once. In rounds (generate all until each has stopped, run all tools, repeat: the custom of ToRA, Qwen2.5-Math, CoRT and
SimpleTIR, whose blocking call to the engine comes back when its slowest sequence has stopped) a gate stands before and
behind each turn; it opens when all traces that have not ended stand at it. Nothing else differs: no trace is asked to
do more, and the prefix cache serves both.

Conditions:

* ``real``: cells take what they take in the sandbox, kernels that must be started included.
* ``fresh_process``: each cell also takes as long as a stock interpreter needs here to start and to import sympy, as
  where each program is run in a process of its own. Measured before the runs.
* ``heavy_tail``: each cell also takes a Pareto-distributed time (shape 1, from 0.2 s, cut at the 10 s at which the
  solver stops a cell): half of all cells come back within 0.4 s, about what a fresh interpreter with sympy takes; one
  in five takes more than a second, one in fifty runs into the limit. It is made up, not recorded: a shape for cells of
  which a few search by brute force. The draw follows from the seed, the code and the cell's number.

The time that is added is slept, inside the session: both sides wait for the same, and no core is taken from the engine,
as with a sandbox on other machines.

``speedup_*`` is the wall time in rounds over that of independent traces. Greedy decoding: the traces of both sides are
compared token for token; they may part at a near tie of two logits, which a batch of another shape rounds differently.
``same_traces_*`` is the share that does not; below 95% the run fails.

    python -m benchmarks.rounds [--quick] [--problems N] [--repeats N]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import dataclasses
import random
import subprocess
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from types import TracebackType
from typing import Self

from rich.table import Table

from benchmarks.batches import pocket_problems, solve_batch, vllm_version
from benchmarks.report import Report, Target, common_settings, new_parser, rounded, run, say
from sandbox import BaseSandbox, Result, Sandbox, Session
from sandbox.base import Stats
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.base import Engine, Turn, TurnRequest
from start_agent.engines.vllm import VLLMEngine, VLLMOptions, cpu_threads
from start_agent.models import resolve
from start_agent.problem import Problem
from start_agent.seeds import derive_seed

TARGETS: dict[str, Target] = {"speedup_real": (">=", 1.5), "speedup_heavy_tail": (">=", 3)}

CONDITIONS = ("real", "fresh_process", "heavy_tail")
_SETTINGS = DecodingSettings(hint_probability=1, rounds=3)
_SHORTEST, _LONGEST = 0.2, _SETTINGS.cell_timeout  # seconds that a heavy-tailed cell takes
_LONGEST_QUICK = 2.0
_LEAST_SAME = 0.95


class Gate:
    """Opens each time that all who still come to it stand before it."""

    def __init__(self, coming: int) -> None:
        self._coming, self._waiting = coming, 0
        self._opening = asyncio.Event()

    async def wait(self) -> None:
        """Stand before the gate until it opens."""
        opening = self._opening
        self._waiting += 1
        self._open_if_all()
        await opening.wait()

    def leave(self) -> None:
        """Never come again."""
        self._coming -= 1
        self._open_if_all()

    def _open_if_all(self) -> None:
        if self._waiting == self._coming:
            self._opening.set()
            self._opening, self._waiting = asyncio.Event(), 0


class InRounds(Engine):
    """An engine that runs the turns of all traces together, and starts none before all tools have come back.

    Args:
        engine: open.
        traces: that will be solved, all at once.
    """

    def __init__(self, engine: Engine, traces: int) -> None:
        self.name, self.model, self.tokenizer = engine.name, engine.model, engine.tokenizer
        self.context_length = engine.context_length
        self.rounds, self.idle_seconds = 0, 0.0
        self._engine, self._gate = engine, Gate(traces)
        self._turns: Counter[str] = Counter()
        self._running, self._idle_since = 0, time.perf_counter()

    async def stream(self, request: TurnRequest) -> AsyncGenerator[tuple[int, ...] | Turn, None]:
        """See ``Engine.stream``: one run of ids, at the end of the round."""
        await self._gate.wait()
        if not self._running:
            self.idle_seconds += time.perf_counter() - self._idle_since
        self._running += 1
        turn = await self._engine.generate(request)
        self._running -= 1
        self._idle_since = time.perf_counter()
        self._turns[request.trace_id] += 1
        self.rounds = max(self.rounds, self._turns[request.trace_id])
        await self._gate.wait()
        if turn.token_ids:
            yield turn.token_ids
        yield turn

    async def release(self, trace_id: str) -> None:
        """See ``Engine.release``: the trace has ended."""
        await self._engine.release(trace_id)
        self._gate.leave()


class Slowed(BaseSandbox):
    """A sandbox whose cells take longer: each by a time that follows from the seed, its code and its number.

    Args:
        box: open; it runs the cells.
        seed: decides the times.
        draw: a time, in seconds.
    """

    def __init__(self, box: BaseSandbox, seed: int, draw: Callable[[random.Random], float]) -> None:
        self.limits, self.size = box.limits, box.size
        self._box, self._seed, self._draw = box, seed, draw

    @property
    def isolation(self) -> str:
        """That of the sandbox within."""
        return self._box.isolation

    @property
    def stats(self) -> Stats:
        """Those of the sandbox within."""
        return self._box.stats

    def session(self) -> AbstractAsyncContextManager[Session]:
        """See ``BaseSandbox.session``."""
        return self._session()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        async with self._box.session() as session:
            yield _SlowedSession(session, self.seconds)

    def seconds(self, code: str, number: int) -> float:
        """How much longer the cell takes."""
        return self._draw(random.Random(derive_seed(self._seed, f"cell {number}: {code}")))

    async def __aenter__(self) -> Self:
        """Nothing is to be opened."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be closed."""


class _SlowedSession(Session):
    def __init__(self, session: Session, seconds: Callable[[str, int], float]) -> None:
        self._session, self._seconds = session, seconds
        self._cells = 0

    async def execute(self, code: str, *, timeout: float | None = None, stdin: str | None = None) -> Result:
        self._cells += 1
        begun = time.perf_counter()
        result = await self._session.execute(code, timeout=timeout, stdin=stdin)
        await asyncio.sleep(self._seconds(code, self._cells))
        return dataclasses.replace(result, duration_s=time.perf_counter() - begun)


def heavy_tailed(generator: random.Random, longest: float = _LONGEST) -> float:
    """Seconds: Pareto's distribution of shape 1, by its inverse, cut."""
    return min(_SHORTEST / (1 - generator.random()), longest)


def fresh_process() -> float:
    """Seconds that an interpreter takes to start and to import sympy: the median of three."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import sympy"], check=True)
        times.append(time.perf_counter() - begun)
    return median(times)


def longest(arguments: argparse.Namespace) -> float:
    """Where the times are cut."""
    return _LONGEST_QUICK if arguments.quick else _LONGEST


@dataclass(frozen=True, slots=True)
class Run:
    """All problems, once.

    Attributes:
        seconds: wall time, from the first prompt to the last record.
        engine_idle: seconds in which no trace was in the engine.
        tokens: after the prompts.
        cells: that were run.
        kernel_seconds: in which they ran, over all traces.
        traces: the token ids by the problem's key.
        rounds: 0 for independent traces.
    """

    seconds: float
    engine_idle: float
    tokens: int
    cells: int
    kernel_seconds: float
    traces: dict[str, tuple[int, ...]]
    rounds: int = 0


class Subject:
    """The problems and what solves them; the sandbox is opened anew for each run, so that none finds warm kernels."""

    def __init__(self, engine: VLLMEngine, problems: Sequence[Problem], arguments: argparse.Namespace) -> None:
        self.engine, self.problems, self.arguments = engine, problems, arguments
        self.fresh_process = fresh_process()
        self.draws: dict[str, Callable[[random.Random], float]] = {
            "fresh_process": lambda generator: self.fresh_process,
            "heavy_tail": partial(heavy_tailed, longest=longest(arguments)),
        }

    async def solve(self, condition: str, *, lockstep: bool, some: int | None = None) -> Run:
        """Solve all problems, or the first, graded and recorded, as ``start-agent batch`` does."""
        problems, arguments = self.problems[:some], self.arguments
        count = len(problems)
        engine: Engine = InRounds(self.engine, count) if lockstep else self.engine
        async with Sandbox(size=count, prestart=8, unsafe_no_isolation=arguments.unsafe_no_isolation) as box:
            draw = self.draws.get(condition)
            tools = box if draw is None else Slowed(box, arguments.seed, draw)
            solver = Solver(engine, tools, settings=_SETTINGS)
            batch = await solve_batch(solver, problems, concurrency=count, seed=arguments.seed)
        return Run(
            batch.seconds,
            engine.idle_seconds if isinstance(engine, InRounds) else batch.tally.idle_seconds,
            batch.tally.tokens,
            batch.tally.tool_calls,
            sum(record["course"]["kernel_seconds"] for record in batch.records),
            {key: tuple(trace.token_ids) for key, trace in batch.traces.items()},
            engine.rounds if isinstance(engine, InRounds) else 0,
        )


async def measure(arguments: argparse.Namespace) -> Report:
    """Each condition, independent and in rounds by turns."""
    count = arguments.problems or (16 if arguments.quick else 128)
    problems = pocket_problems(count)
    pairs: dict[str, list[tuple[Run, Run]]] = {condition: [] for condition in CONDITIONS}
    async with VLLMEngine(
        resolve(arguments.model).location, VLLMOptions(max_batch=count, threads=arguments.threads)
    ) as engine:
        subject = Subject(engine, problems, arguments)
        await subject.solve("real", lockstep=False, some=8)  # pays for what is made once
        for repeat in range(arguments.repeats):
            for condition in CONDITIONS:
                say(f"{condition}, repeat {repeat + 1}")
                ours = await subject.solve(condition, lockstep=False)
                pairs[condition].append((ours, await subject.solve(condition, lockstep=True)))
    settings = common_settings(arguments) | {
        "model": arguments.model,
        "threads": cpu_threads(engine.options),
        "problems": count,
        "repeats": arguments.repeats,
        "fresh_process_seconds": round(subject.fresh_process, 3),
        "heavy_tail": {"distribution": "Pareto", "shape": 1, "from": _SHORTEST, "cut_at": longest(arguments)},
        "decoding": _SETTINGS.model_dump(mode="json", exclude_defaults=True),
        "vllm": vllm_version(),
    }
    return Report("rounds", rounded(figures_of(pairs)), TARGETS, settings, [_table(pairs)])


def figures_of(pairs: dict[str, list[tuple[Run, Run]]]) -> dict[str, float]:
    """The figures of the report: medians over the pairs. Raises AssertionError where too many traces part."""
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
    """The share of the traces that are equal token for token."""
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
    """The command: its exit code."""
    parser = new_parser("Independent traces against lockstep rounds, on the same engine and sandbox.")
    parser.add_argument("--problems", type=int, metavar="N", help="traces, all at once (default: 128; with --quick 16)")
    parser.add_argument("--model", default="pocket", help="a model that vLLM runs (default: pocket)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each kind (default: 1)")
    parser.add_argument("--unsafe-no-isolation", action="store_true", help="DANGEROUS: run the code as your own user")
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
