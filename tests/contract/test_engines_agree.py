"""Greedy float32 traces are the same on transformers and on vLLM, token for token, up to ties."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from sandbox import Sandbox
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.base import Engine
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.engines.vllm import VLLMEngine
from start_agent.pocket import held_out, weights_path
from start_agent.trace import SpanKind, Trace
from tests.support.ties import equal_or_parting_at_near_ties

POCKET = str(weights_path())
PROBLEMS = int(os.environ.get("START_AGENT_PARITY_PROBLEMS", "40"))


LOGPROBS_APART = 2e-4
"""How far the engines' log-probabilities may be apart in float32, on the pocket reasoner."""


async def solve_all(engine: Engine, number: int = PROBLEMS, **settings: Any) -> list[Trace]:
    """Traces with hints, code and an end-of-think hint, so that turns also start after insertions."""
    problems = held_out(500)[:: 500 // number][:number]
    async with Sandbox(size=4, prestart=4) as box:
        solver = Solver(engine, box, settings=DecodingSettings(hint_probability=1, end_of_think_hints=1, **settings))
        return list(
            await asyncio.gather(*(solver.solve(problem.question, seed=seed) for seed, problem in enumerate(problems)))
        )


@pytest.mark.server
@pytest.mark.xdist_group("vllm")
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.timeout(600)
async def test_traces_are_equal_or_part_at_a_near_tie(
    pocket_on_vllm: VLLMEngine, record_property: Callable[[str, object], None]
) -> None:
    options = TransformersOptions(device="cpu", context_length=pocket_on_vllm.context_length)
    async with TransformersEngine(POCKET, options) as engine:
        ours = await solve_all(engine)
    theirs = await solve_all(pocket_on_vllm)
    parted = equal_or_parting_at_near_ties(ours, theirs, POCKET)
    record_property("traces that part at a near tie", parted)
    assert parted <= len(ours) // 20


@pytest.mark.server
@pytest.mark.xdist_group("vllm")
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.timeout(600)
async def test_log_probabilities_of_traces_agree(
    pocket_on_vllm: VLLMEngine, record_property: Callable[[str, object], None]
) -> None:
    """Of each token that the model wrote, and of the likeliest in its place; those of inserted tokens are not there."""
    options = TransformersOptions(device="cpu", context_length=pocket_on_vllm.context_length)
    async with TransformersEngine(POCKET, options) as engine:
        ours = await solve_all(engine, 8, logprobs=2)
    theirs = await solve_all(pocket_on_vllm, 8, logprobs=2)
    equal = [(one, other) for one, other in zip(ours, theirs, strict=True) if one.token_ids == other.token_ids]
    assert len(equal) >= 7
    apart = 0.0
    for one, other in equal:
        for kind, here, there in zip(one.kinds(), one.logprobs(), other.logprobs(), strict=True):
            assert (here is None) is (there is None) is (kind is not SpanKind.MODEL)
            apart = max(apart, abs((here or 0) - (there or 0)))
        for mine, its in zip(one.of_kind(SpanKind.MODEL), other.of_kind(SpanKind.MODEL), strict=True):
            for place, same in zip(mine.logprobs or (), its.logprobs or (), strict=True):
                assert len(place.top) == 2
                apart = max(apart, *(abs(a[1] - b[1]) for a, b in zip(place.top, same.top, strict=True)))
    record_property("log-probabilities apart at most", apart)
    assert apart < LOGPROBS_APART
