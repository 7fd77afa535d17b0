"""Greedy float32 traces are the same on transformers and on vLLM, token for token, up to ties."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from sandbox import Sandbox
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.base import Engine
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.engines.vllm import VLLMEngine
from start_agent.pocket import held_out, weights_path
from start_agent.trace import Trace
from tests.support.ties import equal_or_parting_at_near_ties

POCKET = str(weights_path())
PROBLEMS = int(os.environ.get("START_AGENT_PARITY_PROBLEMS", "40"))


async def solve_all(engine: Engine) -> list[Trace]:
    """Traces with hints, code and a round, so that turns begin behind insertions too."""
    problems = held_out(500)[:: 500 // PROBLEMS][:PROBLEMS]
    async with Sandbox(size=4, prestart=4) as box:
        solver = Solver(engine, box, settings=DecodingSettings(hint_probability=1, end_of_think_hints=1))
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
