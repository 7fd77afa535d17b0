"""The pocket reasoner with its real engine and real kernels: many concurrent traces."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from sandbox import Sandbox
from start_agent.decoding.replay import replay
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.base import Sampling, Turn, TurnRequest
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.pocket import held_out, weights_path
from start_agent.problem import Problem
from start_agent.trace import IGNORE_INDEX, SpanKind, Trace, TraceOutcome


class RecordingEngine(TransformersEngine):
    """Keeps, by trace, what it was given and what it gave."""

    def __init__(self) -> None:
        super().__init__(str(weights_path()), TransformersOptions(device="cpu"))
        self.seen: dict[str, list[tuple[list[int], Turn]]] = defaultdict(list)
        self.released: set[str] = set()

    async def generate(self, request: TurnRequest) -> Turn:
        turn = await super().generate(request)
        self.seen[request.trace_id].append((list(request.token_ids), turn))
        return turn

    async def release(self, trace_id: str) -> None:
        await super().release(trace_id)
        self.released.add(trace_id)


async def solve_all(
    problems: list[Problem], settings: DecodingSettings, sampling: Sampling | None = None
) -> tuple[list[Trace], RecordingEngine]:
    async with RecordingEngine() as engine, Sandbox(size=4, prestart=4) as box:
        solver = Solver(engine, box, settings=settings, sampling=sampling)
        traces = await asyncio.gather(
            *(solver.solve(problem.question, seed=seed) for seed, problem in enumerate(problems))
        )
        assert box.stats.cells == sum(trace.tool_calls for trace in traces)
        for trace in traces:
            replay(trace, engine.tokenizer)
        assert engine.released == set(engine.seen)
    return traces, engine


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.6, top_p=0.95)])
async def test_traces_are_what_the_engine_saw(sampling: Sampling) -> None:
    problems = held_out(500)[::42]
    traces, engine = await solve_all(problems, DecodingSettings(hint_probability=1, end_of_think_hints=2), sampling)
    by_prompt_and_end = {
        (tuple(turns[-1][0]), turns[-1][1].token_ids): turns for turns in engine.seen.values()
    }  # a trace is found again by its last turn
    for trace in traces:
        last = len(trace.spans[-1].token_ids)
        ids = trace.token_ids
        turns = by_prompt_and_end[tuple(ids[: len(ids) - last]), tuple(ids[len(ids) - last :])]
        for given, turn in turns:
            assert given == ids[: len(given)]
            assert list(turn.token_ids) == ids[len(given) : len(given) + len(turn.token_ids)]
        # All turns reuse what was computed, the first what it shares with other traces: what is fed is new.
        fed = turns[0][1].usage.cached_tokens + sum(turn.usage.computed_tokens for _, turn in turns)
        dropped = sum(turn.usage.generated_tokens - len(turn.token_ids) for _, turn in turns)
        assert len(ids) - 1 <= fed <= len(ids) + dropped
        assert [label for label in trace.labels() if label != IGNORE_INDEX] == [
            token_id for span in trace.of_kind(SpanKind.MODEL) for token_id in span.token_ids
        ]


async def test_hints_make_right_answers_of_executed_code() -> None:
    """Products that are too hard for mental arithmetic: wrong without Python, correct with it."""
    problems = [
        problem for problem in held_out(500) if problem.meta["subject"] == "products" and problem.meta["level"] >= 2
    ][:8]
    alone, _ = await solve_all(problems, DecodingSettings(hints=False))
    hinted, _ = await solve_all(problems, DecodingSettings(hint_probability=1))
    assert not any(trace.tool_calls for trace in alone)
    right_alone = sum(trace.answer == problem.answer for trace, problem in zip(alone, problems, strict=True))
    right = [trace.answer == problem.answer for trace, problem in zip(hinted, problems, strict=True)]
    assert sum(right) >= right_alone + 4
    for trace, problem, is_right in zip(hinted, problems, right, strict=True):
        assert trace.tool_calls >= 1
        assert trace.outcome is TraceOutcome.ANSWERED
        if is_right:
            assert problem.answer in trace.text(SpanKind.TOOL_OUTPUT)
