"""vLLM's processes: how they end, that none is left, and their CPU cores.

In a module of its own, whose name comes before ``test_engine_vllm``: only the first engine that is open in a process
has cores of its own, and the one that is shared is not open yet.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import psutil
import pytest

from start_agent.engines.affinity import own_cores
from start_agent.engines.base import Engine, TurnRequest
from start_agent.engines.testing import EngineContract
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.errors import EngineError, ModelError
from start_agent.pocket import weights_path

POCKET = str(weights_path())
SMALL = VLLMOptions(kv_cache_gib=0.25, max_num_seqs=32, threads=1)

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]  # vLLM takes its time to start

_WAITS = """
import asyncio, sys
from start_agent.engines.vllm import VLLMEngine, VLLMOptions

async def main():
    async with VLLMEngine(sys.argv[1], VLLMOptions(kv_cache_gib=0.25, max_num_seqs=32)):
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
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        me = psutil.Process()
        before = {child.pid for child in me.children(recursive=True)}
        async with VLLMEngine(POCKET, SMALL) as engine:
            turns = [asyncio.create_task(engine.generate(self.request(engine, 900))) for _ in range(5)]
            async for _ in engine.stream(self.request(engine, 2)):
                pass
            started = [child for child in me.children(recursive=True) if child.pid not in before]
            core = next(child for child in started if "EngineCore" in " ".join(child.cmdline()))
            assert (threads, os.environ["OMP_NUM_THREADS"]) == (["1"], "5")
            os.kill(core.pid, signal.SIGKILL)
            for result in await asyncio.gather(*turns, return_exceptions=True):
                assert isinstance(result, EngineError)
                assert "died" in str(result)
            assert engine.failure is not None
            with pytest.raises(EngineError, match="died"):
                await engine.generate(self.request(engine))
        _, alive = psutil.wait_procs(started, timeout=10)
        assert not [process for process in alive if "multiprocessing.resource_tracker" not in str(process.cmdline())]

    async def test_closing_leaves_no_process_behind_and_gives_the_cores_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        me, cores = psutil.Process(), os.sched_getaffinity(0)
        own = own_cores(1)
        assert len(own) == min(len(cores) - 1, 1)  # of a single core nothing would be left
        before = {child.pid for child in me.children(recursive=True)}
        async with VLLMEngine(POCKET, SMALL) as engine:
            turn = asyncio.create_task(engine.generate(self.request(engine, 900)))
            async for _ in engine.stream(self.request(engine, 1)):
                pass
            started = [child for child in me.children(recursive=True) if child.pid not in before]
            core = next(child for child in started if "EngineCore" in " ".join(child.cmdline()))
            assert os.sched_getaffinity(core.pid) == (own or cores)
            assert os.sched_getaffinity(0) == cores - own
            assert own_cores(1) == frozenset()  # a second engine has none of its own
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
