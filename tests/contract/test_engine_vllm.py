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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from start_agent.engines.base import Engine, TurnRequest
from start_agent.engines.testing import EngineContract
from start_agent.engines.vllm import VLLMEngine, VLLMOptions, cpu_threads
from start_agent.errors import ConfigError, EngineError, ModelError
from start_agent.pocket import weights_path

POCKET = str(weights_path())
SMALL = VLLMOptions(kv_cache_gib=0.25, max_batch=32, threads=2)

pytestmark = pytest.mark.timeout(400)  # vLLM takes its time to start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[VLLMEngine]:
    async with VLLMEngine(POCKET, SMALL) as engine:
        yield engine


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

    async def test_more_traces_than_places_wait_their_turn(self, engine: VLLMEngine) -> None:
        async def one(number: int) -> tuple[int, float]:
            name = f"queued {number}"
            turn = await engine.generate(self.request(engine, self.prompt(engine), 5 + number % 20, trace_id=name))
            await engine.release(name)
            return len(turn.token_ids), turn.usage.queued

        results = await asyncio.gather(*map(one, range(60)))
        assert [length for length, _ in results] == [5 + number % 20 for number in range(60)]
        assert results[-1][1] > 0.001


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


def test_a_core_is_left_to_others_where_nobody_says_how_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cpu_threads(VLLMOptions()) == max(len(os.sched_getaffinity(0)) - 1, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert (cpu_threads(VLLMOptions()), cpu_threads(SMALL)) == (7, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert cpu_threads(SMALL) == 2
    with pytest.raises(ConfigError, match=r"OMP_NUM_THREADS=4,2: a number of threads"):
        cpu_threads(VLLMOptions())


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

    async def test_closing_leaves_no_process_behind(self) -> None:
        me = psutil.Process()
        before = {child.pid for child in me.children(recursive=True)}
        async with VLLMEngine(POCKET, SMALL) as engine:
            turn = asyncio.create_task(engine.generate(self.request(engine, 900)))
            async for _ in engine.stream(self.request(engine, 1)):
                pass
            started = [child for child in me.children(recursive=True) if child.pid not in before]
            assert started
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

    async def test_a_model_that_vllm_does_not_know_is_one_line(self, tmp_path: Path) -> None:
        for file in weights_path().iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = (tmp_path / "config.json").read_text(encoding="utf-8")
        (tmp_path / "config.json").write_text(config.replace("LlamaForCausalLM", "NoSuchModel"), encoding="utf-8")
        with pytest.raises(ModelError, match="NoSuchModel") as caught:
            await VLLMEngine(str(tmp_path)).__aenter__()
        assert "\n" not in str(caught.value)
