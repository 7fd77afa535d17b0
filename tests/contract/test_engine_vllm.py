"""The vLLM engine under the engines' contract, on the pocket reasoner; and what only it promises.

These tests fail where vLLM is missing: ``make test`` installs its CPU build.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from start_agent.engines.base import Turn
from start_agent.engines.testing import EngineContract
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.markers import Matcher, State
from start_agent.pocket import weights_path
from start_agent.tokenizer import Tokenizer
from start_agent.watch import Armed, StopKind, Watch

POCKET = str(weights_path())
SMALL = VLLMOptions(kv_cache_gib=0.25, max_batch=32, threads=2)

pytestmark = pytest.mark.timeout(400)  # vLLM takes its time to start


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[False, True], ids=["steps", "steps prepared ahead"]
)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[VLLMEngine]:
    """Under both of vLLM's schedulers: the second, its choice on GPUs, is one that it leaves out on CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setattr(VLLMEngine, "_start", _preparing_ahead(VLLMEngine._start))
        async with VLLMEngine(POCKET, SMALL) as engine:
            assert engine._llm.vllm_config.scheduler_config.async_scheduling is request.param
            yield engine


def _preparing_ahead(start: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def patched(*arguments: Any) -> Any:
        from vllm import AsyncEngineArgs

        create = AsyncEngineArgs.create_engine_config

        def created(*arguments: Any) -> Any:
            config = create(*arguments)
            config.scheduler_config.async_scheduling = True
            return config

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AsyncEngineArgs, "create_engine_config", created)
            return await start(*arguments)

    return patched


@pytest.mark.asyncio(loop_scope="module")
class TestVLLM(EngineContract):
    """The shared tests, and one for each promise about the cache and the queue."""

    async def test_an_insertion_costs_at_most_a_block_more(self, engine: VLLMEngine) -> None:
        ids = self.prompt(engine)
        inserted: list[int] = []
        for number in range(6):
            turn = await engine.generate(self.request(engine, ids, 40, trace_id="counted"))
            assert turn.usage.reused + turn.usage.fed == len(ids) + turn.usage.decoded - 1
            if number:
                again = turn.usage.fed - len(inserted) - (turn.usage.decoded - 1)
                assert 0 <= again <= engine.block_size + 1
            inserted = engine.tokenizer.encode(f" And insertion {number}\n")
            ids += [*turn.token_ids, *inserted]

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_the_model_writes_nothing_behind_the_end_of_a_turn(
        self, engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch, streaming: bool
    ) -> None:
        free = await self.free(engine, ids := self.prompt(engine))
        word = "Wait"  # the pocket reasoner says it in all of its thoughts
        assert word.encode() in engine.tokenizer.bytes_of(free)
        outputs, generate = list[Any](), engine._llm.generate

        async def spied(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
            async for output in generate(*arguments, **named):
                outputs.append(output)
                yield output

        monkeypatch.setattr(engine._llm, "generate", spied)
        request = self.request(engine, ids, 80, armed=Armed(frozenset(), connective=0))
        turn = [item async for item in engine.stream(request)][-1] if streaming else await engine.generate(request)
        assert isinstance(turn, Turn)
        assert turn.stop is StopKind.CONNECTIVE
        written = [token_id for output in outputs for token_id in output.outputs[0].token_ids]
        assert tuple(written) == free[: len(written)]
        assert len(turn.token_ids) <= len(written) == turn.usage.decoded <= len(turn.token_ids) + 1
        assert outputs[-1].finished
        assert (len(outputs) > 1) is streaming

    async def test_more_traces_than_places_wait_their_turn(self, engine: VLLMEngine) -> None:
        async def one(number: int) -> tuple[int, float]:
            name = f"queued {number}"
            turn = await engine.generate(self.request(engine, self.prompt(engine), 5 + number % 20, trace_id=name))
            await engine.release(name)
            return len(turn.token_ids), turn.usage.queued

        results = await asyncio.gather(*map(one, range(60)))
        assert [length for length, _ in results] == [5 + number % 20 for number in range(60)]
        assert results[-1][1] > 0.001


class _Request:
    """What a scheduler asks of one."""

    def __init__(self, kind: Any, extra_args: dict[str, Any] | None) -> None:
        self.sampling_params = SimpleNamespace(output_kind=kind, extra_args=extra_args)
        self.status: Any = None


def test_tokens_that_come_several_at_a_time_are_cut_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under speculative decoding."""
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.core.sched.scheduler import Scheduler

    from start_agent.engines.vllm_core import WatchingScheduler, extra_arguments

    monkeypatch.setattr(Scheduler, "__init__", lambda self, config: None)
    monkeypatch.setattr(Scheduler, "_update_request_with_output", lambda self, request, ids, stale: (ids, False))
    scheduler = WatchingScheduler(SimpleNamespace(model_config=SimpleNamespace(model=POCKET)))
    tokenizer = Tokenizer.from_pretrained(POCKET)
    first, second, rest = (tokenizer.encode(text) for text in ("Well. Let", " me see. Wait", " a moment"))
    packed = extra_arguments(Watch(Matcher(tokenizer), State(), Armed(frozenset(), connective=0)))

    for kind, said in ((RequestOutputKind.DELTA, first), (RequestOutputKind.FINAL_ONLY, [])):
        request = _Request(kind, packed)
        assert scheduler._update_request_with_output(request, list(first)) == (said, False)
        ids, over = scheduler._update_request_with_output(request, [*second, *rest])
        assert ([*said, *ids], over) == ([*first, *second, rest[0]], True)
        assert request.status.name == "FINISHED_STOPPED"
    request = _Request(RequestOutputKind.FINAL_ONLY, None)
    assert scheduler._update_request_with_output(request, [*second, *rest]) == ([*second, *rest], False)
