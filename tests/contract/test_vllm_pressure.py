"""Many traces with a small KV cache: none is lost, and all are the same as with a large one."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from start_agent.decoding.events import Cost, TraceFinished
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.admission import Admission, Growth
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.pocket import held_out, weights_path
from start_agent.trace import Trace
from tests.contract.conftest import SHARED
from tests.support.ties import equal_or_parting_at_near_ties

POCKET = str(weights_path())
WORST_CASES = 4  # that fit the cache
CONTEXT = SHARED.context_length or 0
TRACES = 64
SETTINGS = DecodingSettings(hint_probability=1, max_hints=2, hint_cooldown=16, end_of_think_hints=2, tools=False)
"""Several turns each; no kernels, which would keep the model waiting."""


def _cache_gib() -> float:
    config = json.loads((weights_path() / "config.json").read_text(encoding="utf-8"))
    heads = config["num_key_value_heads"] * config["head_dim"]
    token_bytes = 2 * config["num_hidden_layers"] * heads * 4  # keys and values, in float32
    return float(WORST_CASES * CONTEXT * token_bytes / (1 << 30))


class _Load:
    """What vLLM itself says of each of its steps: the share of the cache that requests hold, and preemptions."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.preempted = 0

    def reset(self) -> None:
        self.shares, self.preempted = [], 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        if scheduler_stats is not None:
            self.shares.append(scheduler_stats.kv_cache_usage)
        if iteration_stats is not None:
            self.preempted += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Part of what vLLM asks of one that reads its figures."""

    def log(self) -> None:
        """Likewise."""

    def record_sleep_state(self, *_: Any) -> None:
        """Likewise."""


async def solve_all(engine: VLLMEngine) -> list[tuple[Trace, Cost]]:
    async def one(seed: int, question: str) -> tuple[Trace, Cost]:
        async for event in solver.stream(question, seed=seed, live=False):
            if isinstance(event, TraceFinished):
                return event.trace, event.cost
        raise AssertionError("a trace did not end")

    solver = Solver(engine, settings=SETTINGS)
    problems = held_out(TRACES)
    return list(await asyncio.gather(*(one(seed, problem.question) for seed, problem in enumerate(problems))))


@pytest.mark.server
@pytest.mark.xdist_group("vllm")
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.timeout(900)
async def test_64_traces_in_a_cache_for_4_worst_cases(
    pocket_on_vllm: VLLMEngine, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    expected = [trace for trace, _ in await solve_all(pocket_on_vllm)]
    from vllm.v1.engine.async_llm import AsyncLLM

    load, start = _Load(), AsyncLLM.from_vllm_config

    def watched(config: Any, **named: Any) -> Any:
        named |= {"disable_log_stats": False, "stat_loggers": [lambda *_: load]}
        return start(config, **named)

    monkeypatch.setattr(AsyncLLM, "from_vllm_config", watched)
    async with VLLMEngine(POCKET, VLLMOptions(context_length=CONTEXT, kv_cache_gib=_cache_gib())) as engine:
        capacity = engine._admission.capacity
        assert capacity is not None
        assert capacity <= WORST_CASES * CONTEXT
        figures: dict[str, tuple[float, int]] = {}
        reserved, estimated, all_at_once = Admission(TRACES, capacity, 32), engine._admission, Admission(TRACES)
        reserved.growth = Growth(prior=1_000_000)  # it never learns
        kinds = {"worst cases reserved": reserved, "estimated": estimated, "all at once": all_at_once}
        for kind, admission in kinds.items():
            engine._admission = admission
            assert await engine._llm.reset_prefix_cache()
            load.reset()
            solved = await solve_all(engine)
            parted = equal_or_parting_at_near_ties(expected, [trace for trace, _ in solved], POCKET)
            preempted = sum(cost.preempted for _, cost in solved)
            figures[kind] = statistics.fmean(load.shares), preempted
            again = sum(cost.recomputed_tokens for _, cost in solved)
            record_property(kind, f"{figures[kind][0]:.2f} of the cache in use, {len(load.shares)} steps")
            record_property(kind, f"{preempted} preemptions, {again} tokens fed again, {parted} part at near ties")
            assert parted <= TRACES // 20
            assert preempted == load.preempted
            assert len(admission) == 0
    assert figures["worst cases reserved"][0] < figures["estimated"][0]
    assert figures["all at once"][1] > 0  # if no trace waits, vLLM must preempt
