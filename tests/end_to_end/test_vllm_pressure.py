"""Many traces, and a KV cache for few: none is lost, and all are what they are where there is room for everyone."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.admission import Admission
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.events import Cost, TraceFinished
from start_agent.pocket import held_out, weights_path
from start_agent.trace import Trace
from tests.support.ties import equal_or_parting_at_near_ties

POCKET = str(weights_path())
WORST_CASES = 4  # that fit the cache
TRACES = 64
SETTINGS = DecodingSettings(hint_probability=1, max_hints=2, hint_cooldown=16, rounds=2, tools=False)
"""Several turns each; no kernels, which would keep the model waiting."""


def _cache_gib() -> float:
    config = json.loads((weights_path() / "config.json").read_text(encoding="utf-8"))
    heads = config["num_key_value_heads"] * config["head_dim"]
    token_bytes = 2 * config["num_hidden_layers"] * heads * 4  # keys and values, in float32
    return WORST_CASES * config["max_position_embeddings"] * token_bytes / (1 << 30)


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


@pytest.mark.timeout(900)
async def test_64_traces_in_a_cache_for_4_worst_cases(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    async with VLLMEngine(POCKET, VLLMOptions(kv_cache_gib=0.5)) as roomy:
        expected = [trace for trace, _ in await solve_all(roomy)]
        from vllm.v1.engine.async_llm import AsyncLLM

    load, start = _Load(), AsyncLLM.from_vllm_config

    def watched(config: Any, **named: Any) -> Any:
        named |= {"disable_log_stats": False, "stat_loggers": [lambda *_: load]}
        return start(config, **named)

    monkeypatch.setattr(AsyncLLM, "from_vllm_config", watched)
    async with VLLMEngine(POCKET, VLLMOptions(kv_cache_gib=_cache_gib())) as engine:
        capacity = engine._admission.capacity
        assert capacity is not None
        assert capacity <= WORST_CASES * engine.context_length
        estimated = engine._admission
        for name, admission in (("estimated", estimated), ("all at once", Admission(TRACES))):
            engine._admission = admission
            assert await engine._llm.reset_prefix_cache()
            load.reset()
            solved = await solve_all(engine)
            traces = [trace for trace, _ in solved]
            parted = equal_or_parting_at_near_ties(expected, traces, POCKET)
            preempted = sum(cost.preempted for _, cost in solved)
            busy = statistics.fmean(load.shares)
            record_property(f"{name}: share of the cache in use, mean over steps", round(busy, 3))
            record_property(f"{name}: steps", len(load.shares))
            record_property(f"{name}: tokens of the longest trace", max(len(trace.token_ids) for trace in traces))
            record_property(f"{name}: preemptions", preempted)
            record_property(f"{name}: tokens fed again", sum(cost.again for _, cost in solved))
            record_property(f"{name}: traces that part at a near tie", parted)
            assert parted <= TRACES // 20
            assert preempted == load.preempted
            assert len(admission) == 0
        assert preempted > 0  # where nobody waits, vLLM must make room
