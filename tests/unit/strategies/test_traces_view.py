"""Several traces on a terminal: one is streamed at a time, the others get a line when they end."""

from __future__ import annotations

import asyncio
from io import StringIO

import pytest
from rich.console import Console

from sandbox import FakeSandbox
from start_agent.cli.traces import TracesView
from start_agent.decoding.solver import Solver
from start_agent.engines.base import Engine, TurnRequest
from start_agent.engines.scripted import ScriptedEngine
from start_agent.errors import PromptError
from start_agent.strategies import Question, Solution, Strategy
from start_agent.strategies.majority import Majority, MajorityOptions
from start_agent.strategies.single import Single
from tests.support.batches import SETTINGS


class Held(ScriptedEngine):
    """The first trace goes on when the second has ended."""

    def __init__(self) -> None:
        super().__init__(lambda request: f"I think.</think>\\boxed{{{len(self.requests)}}}")
        self.ended = asyncio.Event()

    generate = Engine.generate  # by means of ``stream``

    async def stream(self, request: TurnRequest):  # type: ignore[no-untyped-def]
        async for item in super().stream(request):
            if len(self.requests) == 1 and not self.ended.is_set():
                await self.ended.wait()
            yield item

    async def release(self, trace_id: str) -> None:
        self.ended.set()
        await super().release(trace_id)


async def shown(strategy: Strategy, engine: ScriptedEngine, *, several: bool) -> tuple[str, Solution]:
    output = StringIO()
    async with FakeSandbox() as box:
        solver = Solver(engine, box, settings=SETTINGS)
        view = TracesView(Console(file=output, width=80, highlight=False), solver, several=several)
        solution = await strategy.run(view.solve, Question("What is it?", lambda answer: answer), 0)
        view.on_solution(solution)
    return output.getvalue(), solution


async def test_a_trace_that_ends_first_waits_for_the_one_that_is_streamed() -> None:
    said, solution = await shown(Majority(MajorityOptions(votes=3)), Held(), several=True)
    lines = said.splitlines()
    assert next(line.partition(" ─")[0] for line in lines if line.startswith("trace ")) == "trace 1"
    first = next(at for at, line in enumerate(lines) if line.startswith("answer: "))
    second = next(at for at, line in enumerate(lines) if line.startswith("trace 2: answer: "))
    assert first < second
    assert len(solution.traces) == 3 and "trace 3 ─" in said  # streamed again: nothing else is
    assert "votes: 1 (1), 2 (1), 3 (1)" in said or "votes: 2 (1), 1 (1), 3 (1)" in said
    assert lines[-1].startswith(f"answer: {solution.answer}  (traces: 3, tokens: ")


async def test_one_trace_is_shown_as_ever() -> None:
    said, solution = await shown(Single(), ScriptedEngine(["I think.</think>\\boxed{7}"]), several=False)
    assert said.startswith("I think.</think>") and "trace" not in said and "votes" not in said
    assert said.count("answer: ") == 1 and solution.answer == "7"


async def test_traces_without_an_answer_are_said() -> None:
    said, _ = await shown(Majority(MajorityOptions(votes=1)), ScriptedEngine(["</think>no"]), several=True)
    assert "votes" not in said and said.splitlines()[-1].startswith("answer: no answer")


async def test_what_fails_leaves_the_view_in_order() -> None:
    async with FakeSandbox() as box:
        output = StringIO()
        solver = Solver(ScriptedEngine(["</think>\\boxed{7}"]), box, settings=SETTINGS)
        view = TracesView(Console(file=output, width=80), solver, several=True)
        with pytest.raises(PromptError):
            await view.solve("")
        assert (await view.solve("What is it?")).answer == "7"
        assert "trace 2" in output.getvalue()
