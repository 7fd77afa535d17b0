"""The vLLM engine under the engines' contract, on the pocket reasoner; and what only it promises.

These tests fail where vLLM is missing: ``make test`` installs its CPU build.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import pytest_asyncio

from start_agent.engines.base import Engine, Turn, TurnRequest
from start_agent.engines.cores import own_cores
from start_agent.engines.testing import EngineContract
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.errors import EngineError, ModelError
from start_agent.markers import Matcher, State
from start_agent.pocket import weights_path
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

    @pytest.mark.parametrize("told", [False, True])
    async def test_the_model_writes_nothing_behind_the_end_of_a_turn(
        self, engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch, told: bool
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
        turn = [item async for item in engine.stream(request)][-1] if told else await engine.generate(request)
        assert isinstance(turn, Turn)
        assert turn.stop is StopKind.CONNECTIVE
        written = [token_id for output in outputs for token_id in output.outputs[0].token_ids]
        assert tuple(written) == free[: len(written)]
        assert len(turn.token_ids) <= len(written) == turn.usage.decoded <= len(turn.token_ids) + 1
        assert outputs[-1].finished
        assert (len(outputs) > 1) is told

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


def test_tokens_that_come_several_at_a_time_are_cut_behind_the_end(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under speculative decoding."""
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.core.sched.scheduler import Scheduler

    from start_agent.engines.vllm_core import WatchingScheduler, extra_arguments

    monkeypatch.setattr(Scheduler, "__init__", lambda self, config: None)
    monkeypatch.setattr(Scheduler, "_update_request_with_output", lambda self, request, ids, stale: (ids, False))
    scheduler = WatchingScheduler(SimpleNamespace(model_config=SimpleNamespace(model=POCKET)))
    first, second, rest = (engine.tokenizer.encode(text) for text in ("Well. Let", " me see. Wait", " a moment"))
    packed = extra_arguments(Watch(Matcher(engine.tokenizer), State(), Armed(frozenset(), connective=0)))

    for kind, said in ((RequestOutputKind.DELTA, first), (RequestOutputKind.FINAL_ONLY, [])):
        request = _Request(kind, packed)
        assert scheduler._update_request_with_output(request, list(first)) == (said, False)
        ids, over = scheduler._update_request_with_output(request, [*second, *rest])
        assert ([*said, *ids], over) == ([*first, *second, rest[0]], True)
        assert request.status.name == "FINISHED_STOPPED"
    request = _Request(RequestOutputKind.FINAL_ONLY, None)
    assert scheduler._update_request_with_output(request, [*second, *rest]) == ([*second, *rest], False)


_WAITS = """
import asyncio, sys
from start_agent.engines.vllm import VLLMEngine, VLLMOptions

async def main():
    async with VLLMEngine(sys.argv[1], VLLMOptions(kv_cache_gib=0.25, max_batch=32)):
        print("ready", flush=True)
        await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main())
"""
"""A process that has an open engine and waits to be killed."""


class TestFailure:
    def request(self, engine: Engine, max_tokens: int = 50) -> TurnRequest:
        return EngineContract().request(engine, [4, 5, 6], max_tokens)

    async def test_an_engine_that_dies_fails_every_turn_and_all_later_ones(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as the engine does, when it is the first to import it
            from vllm.v1.engine.async_llm import AsyncLLM

        threads, start = list[str](), AsyncLLM.from_vllm_config

        def spied(*arguments: Any, **named: Any) -> Any:
            threads.append(os.environ["OMP_NUM_THREADS"])  # the core's own environment is overwritten by its title
            return start(*arguments, **named)

        monkeypatch.setattr(AsyncLLM, "from_vllm_config", spied)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        me = psutil.Process()
        before = {child.pid for child in me.children(recursive=True)}
        async with VLLMEngine(POCKET, SMALL) as engine:
            turns = [asyncio.create_task(engine.generate(self.request(engine, 900))) for _ in range(5)]
            async for _ in engine.stream(self.request(engine, 2)):
                pass
            started = [child for child in me.children(recursive=True) if child.pid not in before]
            core = next(child for child in started if "EngineCore" in " ".join(child.cmdline()))
            assert (threads, os.environ["OMP_NUM_THREADS"]) == (["2"], "1")
            os.kill(core.pid, signal.SIGKILL)
            for result in await asyncio.gather(*turns, return_exceptions=True):
                assert isinstance(result, EngineError)
                assert "died" in str(result)
            with pytest.raises(EngineError, match="died"):
                await engine.generate(self.request(engine))
        _, alive = psutil.wait_procs(started, timeout=10)
        assert not [process for process in alive if "multiprocessing.resource_tracker" not in str(process.cmdline())]

    async def test_closing_leaves_no_process_behind_and_gives_the_cores_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        me, cores = psutil.Process(), os.sched_getaffinity(0)
        own = own_cores(SMALL.threads or 0)
        before = {child.pid for child in me.children(recursive=True)}
        async with VLLMEngine(POCKET, SMALL) as engine:
            turn = asyncio.create_task(engine.generate(self.request(engine, 900)))
            async for _ in engine.stream(self.request(engine, 1)):
                pass
            started = [child for child in me.children(recursive=True) if child.pid not in before]
            core = next(child for child in started if "EngineCore" in " ".join(child.cmdline()))
            assert os.sched_getaffinity(core.pid) == (own or cores)
            assert os.sched_getaffinity(0) == cores - own
        assert os.sched_getaffinity(0) == cores
        with pytest.raises(EngineError, match="closed"):
            await turn
        with pytest.raises(EngineError, match="not running"):
            await engine.generate(self.request(engine))
        _, alive = psutil.wait_procs(started, timeout=10)
        assert not [process for process in alive if "multiprocessing.resource_tracker" not in str(process.cmdline())]

    def test_a_killed_process_leaves_no_core_behind(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(_WAITS, encoding="utf-8")
        with subprocess.Popen([sys.executable, script, POCKET], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("ready"))
            started = psutil.Process(process.pid).children(recursive=True)
            assert any("EngineCore" in " ".join(child.cmdline()) for child in started), line
            process.kill()
        _, alive = psutil.wait_procs(started, timeout=20)
        assert not alive

    async def test_a_model_that_vllm_does_not_know_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        cores = os.sched_getaffinity(0)
        for file in weights_path().iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = (tmp_path / "config.json").read_text(encoding="utf-8")
        (tmp_path / "config.json").write_text(config.replace("LlamaForCausalLM", "NoSuchModel"), encoding="utf-8")
        with pytest.raises(ModelError, match="NoSuchModel") as caught:
            await VLLMEngine(str(tmp_path)).__aenter__()
        assert "\n" not in str(caught.value)
        assert os.sched_getaffinity(0) == cores
