"""The benchmarks of batches: rounds, slowed cells, figures."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batches import Batch, exactly
from benchmarks.lockstep import Gate, InRounds
from benchmarks.overhead import Pair, Speed, work_of
from benchmarks.overhead import figures_of as overhead_figures
from benchmarks.rounds import Run, heavy_tailed, joined, same
from benchmarks.rounds import figures_of as rounds_figures
from benchmarks.sandboxes import Recorded, Slowed
from sandbox import FakeSandbox
from start_agent.batch import Progress
from start_agent.decoding.solver import Solver
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine
from start_agent.problem import Problem
from start_agent.trace import Span, SpanKind, Trace, TraceOutcome
from tests.support.batches import SCRIPT, SETTINGS, run_scripted, stable

SHORT = ("So it is 7.</think>\n\\boxed{7}",)


async def test_a_gate_opens_for_all_who_still_come() -> None:
    gate, passed = Gate(3), list[str]()

    async def walk(name: str, times: int) -> None:
        for number in range(times):
            await gate.wait()
            passed.append(f"{name}{number}")
        gate.leave()

    await asyncio.gather(walk("a", 1), walk("b", 3), walk("c", 2))
    assert [sorted(passed[:3]), sorted(passed[3:5]), passed[5:]] == [["a0", "b0", "c0"], ["b1", "c1"], ["b2"]]


class Watched(ScriptedEngine):
    """Some traces have no cell; notes how many cells had come back when each turn began."""

    def __init__(self, box: FakeSandbox) -> None:
        super().__init__(lambda request: self._say(request))
        self.box, self.started = box, list[tuple[int, int]]()
        self._number: dict[str, int] = {}

    def _say(self, request: TurnRequest) -> Any:
        number = self._number[request.trace_id] = self._number.get(request.trace_id, -1) + 1
        self.started.append((number, len(self.box.codes)))
        one_turn = len(self._number) % 3 == 0 if number == 0 else False
        return self.tokenizer.encode_template(SHORT[0] if one_turn else SCRIPT[number])


async def test_in_rounds_no_turn_begins_before_all_cells_of_the_round_before_are_back() -> None:
    async def slow(code: str) -> str:
        for _ in range(random.Random(code).randrange(20)):
            await asyncio.sleep(0)
        return "7"

    async with FakeSandbox(slow, size=9) as box:
        inner = Watched(box)
        engine = InRounds(inner, 9)
        solver = Solver(engine, box, settings=SETTINGS)
        traces = await asyncio.gather(*(solver.solve(f"What is {number}?") for number in range(9)))
    assert all(trace.answer == "7" for trace in traces)
    assert engine.rounds == 2
    cells = len(box.codes)
    assert cells == 6
    assert {back for number, back in inner.started if number == 0} == {0}
    assert {back for number, back in inner.started if number == 1} == {cells}


async def test_slowed_cells_take_the_same_time_on_both_sides() -> None:
    drawn: list[float] = []

    def draw(generator: random.Random) -> float:
        drawn.append(generator.random())
        return 0.0

    for _ in range(2):
        async with FakeSandbox(lambda code: code) as box, Slowed(box, 3, draw).session() as session:
            assert [(await session.execute(code)).stdout for code in ("1", "2", "2")] == ["1", "2", "2"]
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3


async def test_recorded_cells_are_not_run_again_but_where_a_trace_goes_another_way() -> None:
    async with FakeSandbox(lambda code: f"{code}!") as inner:
        box = Recorded(inner)

        async def run(*cells: str) -> list[str]:
            async with box.session() as session:
                return [(await session.execute(code)).stdout for code in cells]

        assert await run("1", "2") == ["1!", "2!"]
        box.recording = False
        assert await run("1", "2") == ["1!", "2!"]
        assert inner.codes == ["1", "2"]
        assert await run("1", "3") == ["1!", "3!"]
        assert inner.codes == ["1", "2", "1", "3"]
        assert await run("1", "3") == ["1!", "3!"]
        assert (inner.codes, box.again) == (["1", "2", "1", "3"], 1)


def test_the_heavy_tail_is_as_it_says() -> None:
    generator = random.Random(0)
    times = sorted(heavy_tailed(generator) for _ in range(20_000))
    assert (times[0] >= 0.2, times[-1]) == (True, 10.0)
    assert times[10_000] == pytest.approx(0.4, rel=0.05)
    assert sum(time > 1 for time in times) / 20_000 == pytest.approx(0.2, abs=0.01)
    assert times.count(10.0) / 20_000 == pytest.approx(0.02, abs=0.003)


def solved(seconds: float, *, rounds: int = 0, idle: float = 0.0, **traces: tuple[int, ...]) -> Run:
    return Run(seconds, idle, 100, 4, 1.0, traces, rounds)


def test_the_figures_of_rounds() -> None:
    pair = (solved(2.0, a=(1, 2), b=(3,), idle=0.5), solved(6.0, a=(1, 2), b=(3,), rounds=5, idle=3.0))
    figures = rounds_figures({"real": [pair]})
    assert figures["speedup_real"] == 3.0
    assert figures["same_traces_real"] == 1.0
    assert (figures["engine_idle_real"], figures["engine_idle_rounds_real"], figures["rounds_real"]) == (0.25, 0.5, 5)


def test_batches_one_after_the_other_are_one_run() -> None:
    whole = joined([solved(2.0, a=(1,), rounds=3, idle=0.5), solved(3.0, b=(2,), rounds=4, idle=1.0)])
    assert whole == Run(5.0, 1.5, 200, 8, 2.0, {"a": (1,), "b": (2,)}, 7)


def test_traces_that_part_are_counted_and_too_many_are_no_comparison() -> None:
    one, other = solved(1.0, a=(1, 2), b=(3,)), solved(1.0, a=(1, 2), b=(4,))
    assert same(one, other) == 0.5
    with pytest.raises(AssertionError, match=r"50\.0%"):
        rounds_figures({"real": [(one, other)]})


def test_bare_decodes_what_the_model_wrote_or_all_that_followed_the_prompt() -> None:
    kinds = [(SpanKind.PROMPT, 3), (SpanKind.MODEL, 5), (SpanKind.HINT, 4), (SpanKind.MODEL, 2)]
    trace = Trace([Span(kind, tuple(range(size))) for kind, size in kinds], TraceOutcome.ANSWERED, "1")
    assert work_of([trace], inserted=False) == [((0, 1, 2), 7)]
    assert work_of([trace], inserted=True) == [((0, 1, 2), 11)]


def test_the_figures_of_overhead() -> None:
    record = {"course": {"fed": 60, "again": 15}, "counts": {"prompt_tokens": 11, "model_tokens": 30}}
    pairs = [Pair(Speed(30, 2.0), Speed(30, time)) for time in (1.0, 1.8, 3.0)]
    figures = overhead_figures({"tokens": pairs}, [Batch(2.0, Progress(), [record])])
    assert figures["tokens_ratio"] == pytest.approx(0.9)
    assert figures["tokens_per_second"] == 15.0
    assert figures["tokens_per_second_bare"] == pytest.approx(30 / 1.8)
    assert (figures["fed_ratio"], figures["again_share"]) == (1.5, 0.25)


async def test_a_batch_holds_the_traces_of_its_records(tmp_path: Path) -> None:
    problems = [Problem("What is 3 + 4?", "7"), Problem("What is 4 + 4?", "8")]
    progress = await run_scripted(tmp_path, problems, grader=exactly)
    batch = Batch(1.0, progress, list(stable(tmp_path).values()))
    assert [record["correct"] for record in batch.records] == [problem.answer == "7" for problem in problems]
    assert {trace.answer for trace in batch.traces.values()} == {"7"}
