"""The KV cache's budget, running out of memory, and the life cycle of the transformers engine."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from start_agent.engines.base import Sampling, Turn
from start_agent.engines.testing import EngineContract
from start_agent.engines.transformers import TransformersEngine, TransformersOptions, batch
from start_agent.engines.transformers.cache import SlotCache
from start_agent.engines.transformers.sampling import sample
from start_agent.errors import ConfigError, EngineError

pytestmark = pytest.mark.slow

_ask = EngineContract().request
_COUNT = 10
_PROMPTS = [[3 + number, *range(10, 20 + 9 * number)] for number in range(_COUNT)]


async def _two_turns(engine: TransformersEngine, number: int, sampling: Sampling | None = None) -> list[Turn]:
    """A trace with an insertion, released at its end."""
    ids, name = list(_PROMPTS[number]), f"{number}"
    turns = []
    for length in (60, 90):
        turns.append(await engine.generate(_ask(engine, ids, length, trace_id=name, sampling=sampling, seed=number)))
        ids += [*turns[-1].token_ids, 40, 41, 42]
    await engine.release(name)
    return turns


async def _all(engine: TransformersEngine, sampling: Sampling | None = None) -> list[list[Turn]]:
    return list(await asyncio.gather(*(_two_turns(engine, number, sampling) for number in range(_COUNT))))


def _ids(results: list[list[Turn]]) -> list[list[tuple[int, ...]]]:
    return [[turn.token_ids for turn in turns] for turns in results]


def _open(**options: Any) -> TransformersEngine:
    return TransformersEngine("pocket", TransformersOptions(device="cpu", context_length=400, **options))


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0)])
async def test_a_small_budget_preempts_and_loses_nothing(sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_MARGIN", 0)  # rows are admitted although they soon outgrow the budget
    async with _open() as engine:
        expected = await _all(engine, sampling)
        assert engine._batch.preempted == 0
        bytes_each = engine._batch.cache.token_bytes()
    tokens = 700  # not two whole contexts, for ten traces
    async with _open(kv_cache_gib=tokens * bytes_each / 2**30) as engine:
        found = await _all(engine, sampling)
        assert _ids(found) == _ids(expected)
        cache = engine._batch.cache
        assert 0 < cache.slots * cache.capacity <= tokens
        assert engine._batch.preempted > 0
    usages = [turn.usage for turns in found for turn in turns]
    assert any(usage.preempted for usage in usages)
    assert all(usage.recomputed_tokens <= usage.computed_tokens for usage in usages)


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Tensors of more than so many positions, slots times capacity, are refused as a GPU refuses them."""
    refused: list[int] = []
    resized = SlotCache.resized

    def within(most: int) -> list[int]:
        def allocate(cache: SlotCache, states: torch.Tensor) -> torch.Tensor:
            if cache.slots * cache.capacity > most:
                refused.append(cache.slots * cache.capacity)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return resized(cache, states)

        monkeypatch.setattr(SlotCache, "resized", allocate)
        return refused

    return within


async def test_memory_that_runs_out_while_the_cache_grows_loses_no_trace(scarce: Callable[[int], list[int]]) -> None:
    async with _open() as engine:
        expected = _ids(await _all(engine))
    refused = scarce(1500)
    async with _open() as engine:
        assert _ids(await _all(engine)) == expected
        assert refused
        assert engine._batch.preempted > 0


async def test_memory_that_runs_out_beside_ended_traces_loses_no_trace(scarce: Callable[[int], list[int]]) -> None:
    """What is kept of them goes with all else, and what ends later is kept again."""
    async with _open() as engine:
        expected = _ids(await _all(engine))
    refused = scarce(1500)
    async with _open() as engine:
        for _ in range(3):
            assert _ids(await _all(engine)) == expected
            assert refused
            refused.clear()
            assert engine._batch.rows  # what ended last is kept


async def test_memory_that_runs_out_in_a_pass_loses_no_trace() -> None:
    async with _open() as engine:
        expected = _ids(await _all(engine))
        calls = 0

        def refuse(*_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls in (2, 60, 61):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

        handle = engine._batch.passes.model.register_forward_pre_hook(refuse)
        assert _ids(await _all(engine)) == expected
        handle.remove()


async def test_a_trace_too_long_for_what_memory_is_left_fails_alone(scarce: Callable[[int], list[int]]) -> None:
    async with _open() as engine:
        scarce(300)
        with pytest.raises(EngineError, match="--kv-cache-gib"):
            await engine.generate(_ask(engine, [*range(3, 353)], 5, trace_id="long"))
        await engine.release("long")
        assert len((await engine.generate(_ask(engine, [5, 6, 7], 9))).token_ids) == 9


async def test_a_budget_below_a_context_shortens_it() -> None:
    async with _open() as engine:
        bytes_each = engine._batch.cache.token_bytes()
    async with _open(kv_cache_gib=200.5 * bytes_each / 2**30) as engine:
        assert engine.context_length == 200
        assert len((await engine.generate(_ask(engine, [5, 6, 7], 197))).token_ids) == 197
    with pytest.raises(ConfigError, match="--kv-cache-gib"):
        await _open(kv_cache_gib=20 * bytes_each / 2**30).__aenter__()


async def test_an_engine_can_be_opened_again_and_gives_its_memory_back() -> None:
    engine = _open()
    async with engine:
        first = await engine.generate(_ask(engine, [5, 6, 7], 20, trace_id="same"))
        model = weakref.ref(engine._batch.passes.model)
        keys = weakref.ref(engine._batch.cache.layers[0].keys)
        with pytest.raises(EngineError, match="already open"):
            await engine.__aenter__()
    gc.collect()
    assert model() is None
    assert keys() is None
    async with engine:
        again = await engine.generate(_ask(engine, [5, 6, 7], 20, trace_id="same"))
    assert again.token_ids == first.token_ids


async def test_an_engine_that_failed_can_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a kernel failed")

    # The log's record of the failure holds its frames, these the model, and pytest keeps the records.
    monkeypatch.setattr(logging.getLogger("start_agent.engines.transformers.engine"), "disabled", True)
    engine = _open()
    async with engine:
        engine._batch.passes.model.register_forward_pre_hook(fail)
        with pytest.raises(EngineError, match="a kernel failed"):
            await engine.generate(_ask(engine, [5, 6, 7], 20))
        model = weakref.ref(engine._batch.passes.model)
    gc.collect()
    assert model() is None
    async with engine:
        assert len((await engine.generate(_ask(engine, [5, 6, 7], 20))).token_ids) == 20


async def test_a_trace_released_while_its_turn_runs_ends_the_turn() -> None:
    async with _open(max_num_seqs=1) as engine:
        turn = asyncio.create_task(engine.generate(_ask(engine, [5, 6, 7], 300, trace_id="running")))
        waiting = asyncio.create_task(engine.generate(_ask(engine, [5, 6, 7], 300, trace_id="waiting")))
        await asyncio.sleep(0)  # both have started
        await engine.release("waiting")
        await engine.release("running")
        for task in (turn, waiting):
            with pytest.raises(EngineError, match="released"):
                await task
        assert len((await engine.generate(_ask(engine, [5, 6, 7], 3))).token_ids) == 3


class _OnMps(torch.Tensor):
    """A tensor that claims to lie on mps, where nothing is float64."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # torch declares an attribute
        return torch.device("mps")

    def cpu(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)

    def double(self, *_: Any, **__: Any) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")


def test_mps_draws_what_a_cpu_draws() -> None:
    import random

    logits = torch.randn(6, 5000, generator=torch.Generator().manual_seed(1))
    for settings in (Sampling(temperature=1.0), Sampling(temperature=0.7, top_p=0.8, top_k=50)):
        draws = [
            sample(tensor, [settings] * 6, [random.Random(number) for number in range(6)])
            for tensor in (logits, logits.as_subclass(_OnMps))
        ]
        assert draws[0] == draws[1]
