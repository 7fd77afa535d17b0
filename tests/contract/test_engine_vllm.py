"""The engine contract on the vLLM engine with the pocket reasoner, and its own guarantees.

These tests fail where vLLM is missing: ``make test`` installs its CPU build.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
import pytest_asyncio

from start_agent.engines.base import Turn
from start_agent.engines.testing import EngineContract
from start_agent.engines.vllm import VLLMEngine, VLLMOptions, compatibility
from start_agent.pocket import weights_path
from start_agent.tokens.markers import Matcher, State
from start_agent.tokens.stopping import StopChecker, StopConditions, StopKind
from start_agent.tokens.tokenizer import Tokenizer
from tests.contract.conftest import SHARED

POCKET = str(weights_path())

pytestmark = [
    pytest.mark.server,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.timeout(400),  # vLLM takes its time to start
]


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """As the engine does when it is the first to import it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import start_agent.engines.vllm.scheduler  # noqa: F401 - for what it imports


@pytest_asyncio.fixture(
    scope="module", loop_scope="session", params=["steps", "watched in our process", "steps prepared ahead"]
)
async def engine(request: pytest.FixtureRequest, pocket_on_vllm: VLLMEngine) -> AsyncIterator[VLLMEngine]:
    """Under both of vLLM's schedulers: the second, its choice on GPUs, is one that it leaves out on CPUs.

    And without our own scheduler, as with a vLLM version that does not accept it.
    """
    ahead, inside = request.param == "steps prepared ahead", request.param != "watched in our process"
    with pytest.MonkeyPatch.context() as patch:
        if not ahead:
            assert not pocket_on_vllm._llm.vllm_config.scheduler_config.async_scheduling
            assert pocket_on_vllm.watches_in_scheduler
            patch.setattr(pocket_on_vllm, "watches_in_scheduler", inside)
            yield pocket_on_vllm
            return
        patch.setattr(VLLMEngine, "_start", _preparing_ahead(VLLMEngine._start))
        async with VLLMEngine(POCKET, SHARED) as engine:
            assert engine._llm.vllm_config.scheduler_config.async_scheduling and engine.watches_in_scheduler
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


@pytest.mark.asyncio(loop_scope="session")
class TestVLLM(EngineContract):
    """The shared tests, and one for each promise about the cache and the queue."""

    async def test_an_insertion_costs_at_most_a_block_more(self, engine: VLLMEngine) -> None:
        assert await engine._llm.reset_prefix_cache()  # another test may have said the same to the same engine
        ids = self.prompt(engine)
        inserted: list[int] = []
        for number in range(6):
            turn = await engine.generate(self.request(engine, ids, 40, trace_id="counted"))
            assert turn.usage.cached_tokens + turn.usage.computed_tokens == len(ids) + turn.usage.generated_tokens - 1
            if number:
                again = turn.usage.computed_tokens - len(inserted) - (turn.usage.generated_tokens - 1)
                assert 0 <= again <= engine.block_size + 1
            inserted = engine.tokenizer.encode(f" And insertion {number}\n")
            ids += [*turn.token_ids, *inserted]

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_the_model_writes_nothing_behind_the_end_of_a_turn(
        self, engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch, streaming: bool
    ) -> None:
        if not engine.watches_in_scheduler:
            pytest.skip("it writes on until we have read the end")
        free = await self.free(engine, ids := self.prompt(engine))
        word = "Wait"  # the pocket reasoner says it in all of its thoughts
        assert word.encode() in engine.tokenizer.bytes_of(free)
        outputs, generate = list[Any](), engine._llm.generate

        async def spied(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
            async for output in generate(*arguments, **named):
                outputs.append(output)
                yield output

        monkeypatch.setattr(engine._llm, "generate", spied)
        request = self.request(engine, ids, 80, conditions=StopConditions(frozenset(), connective=0))
        turn = [item async for item in engine.stream(request)][-1] if streaming else await engine.generate(request)
        assert isinstance(turn, Turn)
        assert turn.stop is StopKind.CONNECTIVE
        written = [token_id for output in outputs for token_id in output.outputs[0].token_ids]
        assert tuple(written) == free[: len(written)]
        assert len(turn.token_ids) <= len(written) == turn.usage.generated_tokens <= len(turn.token_ids) + 1
        assert outputs[-1].finished
        assert (len(outputs) > 1) is streaming

    async def test_more_traces_than_places_wait_their_turn(self, engine: VLLMEngine) -> None:
        async def one(number: int) -> tuple[int, float]:
            name = f"queued {number}"
            turn = await engine.generate(self.request(engine, self.prompt(engine), 5 + number % 20, trace_id=name))
            await engine.release(name)
            return len(turn.token_ids), turn.usage.queue_seconds

        results = await asyncio.gather(*map(one, range(60)))
        assert [length for length, _ in results] == [5 + number % 20 for number in range(60)]
        assert results[-1][1] > 0.001


@pytest.mark.parametrize("name", ["Scheduler", "AsyncScheduler"])
def test_the_installed_version_takes_our_scheduler(name: str) -> None:
    assert compatibility.unfit(_schedulers()[name]) is None
    scheduler, reason = compatibility.watching(_schedulers()[name])
    assert issubclass(scheduler, _schedulers()[name])
    assert not reason


@pytest.mark.parametrize("inside", [True, False])
def test_an_option_says_where_turns_are_watched(inside: bool) -> None:
    engine = VLLMEngine(POCKET, VLLMOptions(watch_in_scheduler=inside))
    own = _schedulers()["Scheduler"]
    settings = SimpleNamespace(get_scheduler_cls=lambda: own, scheduler_cls=None)
    engine._choose_watch(settings)
    assert engine.watches_in_scheduler is inside
    assert settings.scheduler_cls is (compatibility.watching(own)[0] if inside else None)


def test_a_scheduler_with_another_interface_is_left_as_it_is() -> None:
    class Renamed:
        pass

    class Reordered:
        def _update_request_with_output(self, new_token_ids: list[int], request: Any) -> tuple[list[int], bool]:
            raise NotImplementedError

    class Several:
        def _update_request_with_output(self, request: Any, new_token_ids: list[int]) -> list[tuple[list[int], bool]]:
            raise NotImplementedError

    class Earlier:
        def _update_request_with_output(self, request: Any, new_token_ids: list[int]) -> tuple[list[int], bool]:
            raise NotImplementedError

    # Names without quotes: what vLLM's own annotations are, too.
    for method in (Reordered, Several, Earlier):
        hints = get_type_hints(method._update_request_with_output)
        method._update_request_with_output.__annotations__ = hints
    assert compatibility.unfit(Earlier) is None
    for scheduler in (Renamed, Reordered, Several):
        assert scheduler.__name__ in (compatibility.unfit(scheduler) or "")
    assert compatibility.watching(Earlier)[0] is None  # it is not one that we know


def test_what_preemptions_cost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.core.sched.scheduler import Scheduler

    from start_agent.engines.vllm.scheduler import CheckingScheduler, extra_arguments, preemptions

    first, other = (_Request(RequestOutputKind.FINAL_ONLY, None) for _ in range(2))
    steps = [((), [0, 0]), (("first",), [64, 200]), ((), [164, 201]), (("first",), [0, 202])]

    def step(self: Any) -> SimpleNamespace:
        resumed, found = steps.pop(0)
        known = SimpleNamespace(req_ids=["first", "other"], resumed_req_ids={*resumed}, num_computed_tokens=found)
        return SimpleNamespace(scheduled_cached_reqs=known)

    monkeypatch.setattr(Scheduler, "__init__", lambda self, config: None)
    monkeypatch.setattr(Scheduler, "schedule", step)
    monkeypatch.setattr(Scheduler, "_preempt_request", lambda self, request, timestamp: None)
    monkeypatch.setattr(Scheduler, "_update_request_with_output", lambda self, request, ids: (ids, False))
    scheduler = CheckingScheduler(SimpleNamespace(model_config=SimpleNamespace(model=POCKET, revision=None)))
    scheduler.requests = {"first": first, "other": other}
    tokenizer = Tokenizer.from_pretrained(POCKET)
    packed = extra_arguments(StopChecker(Matcher(tokenizer), State(), StopConditions(frozenset({5}), code=False)))
    first.sampling_params.extra_args = other.sampling_params.extra_args = packed
    scheduler.schedule()
    for computed in (100, 170):
        first.num_computed_tokens = computed
        scheduler._preempt_request(first, 0.0)
        scheduler.schedule()
        if computed == 100:
            scheduler.schedule()
    for request, costs in ((first, (2, 100 - 64 + 170)), (other, (0, 0))):
        assert scheduler._update_request_with_output(request, [7, 5]) == ([7, 5], True)
        assert preemptions(request.stop_reason) == costs


def _schedulers() -> dict[str, type]:
    from start_agent.engines.vllm.scheduler import WATCHING

    return {scheduler.__name__: scheduler for scheduler in WATCHING}


class _Request:
    """What a scheduler asks of one."""

    def __init__(self, kind: Any, extra_args: dict[str, Any] | None) -> None:
        self.sampling_params = SimpleNamespace(output_kind=kind, extra_args=extra_args)
        self.status: Any = None
        self.stop_reason: str | None = None
        self.num_computed_tokens = 0


def test_tokens_that_come_several_at_a_time_are_cut_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under speculative decoding."""
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.core.sched.scheduler import Scheduler

    from start_agent.engines.vllm.scheduler import CheckingScheduler, extra_arguments

    monkeypatch.setattr(Scheduler, "__init__", lambda self, config: None)
    monkeypatch.setattr(Scheduler, "_update_request_with_output", lambda self, request, ids: (ids, False))
    scheduler = CheckingScheduler(SimpleNamespace(model_config=SimpleNamespace(model=POCKET, revision=None)))
    tokenizer = Tokenizer.from_pretrained(POCKET)
    first, second, rest = (tokenizer.encode(text) for text in ("Well. Let", " me see. Wait", " a moment"))
    packed = extra_arguments(StopChecker(Matcher(tokenizer), State(), StopConditions(frozenset(), connective=0)))

    for kind, said in ((RequestOutputKind.DELTA, first), (RequestOutputKind.FINAL_ONLY, [])):
        request = _Request(kind, packed)
        assert scheduler._update_request_with_output(request, list(first)) == (said, False)
        ids, over = scheduler._update_request_with_output(request, [*second, *rest])
        assert ([*said, *ids], over) == ([*first, *second, rest[0]], True)
        assert request.status.name == "FINISHED_STOPPED"
    request = _Request(RequestOutputKind.FINAL_ONLY, None)
    assert scheduler._update_request_with_output(request, [*second, *rest]) == ([*second, *rest], False)
