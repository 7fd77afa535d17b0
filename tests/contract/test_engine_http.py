"""The HTTP engine under the engines' contract, against a real vLLM server; and against one that fails on purpose."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TextIO

import pytest
import pytest_asyncio

from start_agent.engines.base import Turn
from start_agent.engines.http import API_KEY, HTTPEngine, HTTPOptions
from start_agent.engines.testing import EngineContract
from start_agent.errors import ConfigError, EngineError, ModelError
from start_agent.pocket import weights_path
from tests.support.completions import Answer, FakeServer
from tests.support.ports import free_port

POCKET = str(weights_path())
STARTS = 300
"""Seconds that the server may take to start on a busy machine."""


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: TextIO) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < STARTS:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    log.seek(0)
    pytest.fail(f"vLLM's server did not start:\n{log.read()[-4000:]}")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of the pocket reasoner. Not ``vllm serve``, which the CPU build lacks, but what it runs."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    arguments = ["--model", POCKET, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    arguments += ["--enforce-eager", "--block-size", "32", "--kv-cache-memory-bytes", str(1 << 28)]
    arguments += ["--enable-prompt-tokens-details", "--scheduling-policy", "priority"]
    environment = os.environ | {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_API_KEY": "the key of the test",
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until_up(url.removesuffix("/v1"), process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(server: str) -> AsyncIterator[HTTPEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(API_KEY, "the key of the test")
        async with HTTPEngine(server, POCKET, HTTPOptions(max_batch=32, server_priority=True)) as engine:
            yield engine


@pytest.mark.timeout(STARTS + 100)
@pytest.mark.asyncio(loop_scope="module")
class TestHTTP(EngineContract):
    """The shared tests; and what a real server says of its cache, and of what it does not like."""

    async def test_the_cache_is_told_of_turns_that_end_by_themselves(self, engine: HTTPEngine) -> None:
        ids = self.prompt(engine) * 4
        await engine.generate(self.request(engine, ids, 10))
        usage = (await engine.generate(self.request(engine, ids, 10))).usage
        assert usage.reused == len(ids) // 32 * 32
        assert usage.reused + usage.fed == len(ids) + 9

    async def test_a_wrong_key_is_one_line_without_the_key(
        self, server: str, engine: HTTPEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(API_KEY, "a wrong secret")
        with pytest.raises(ConfigError, match=API_KEY) as caught:
            await HTTPEngine(server, POCKET).__aenter__()
        assert "secret" not in str(caught.value)

    async def test_a_model_that_is_not_served_is_one_line(
        self, server: str, engine: HTTPEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(API_KEY, "the key of the test")
        with pytest.raises(ModelError, match="does not serve 'another'"):
            await HTTPEngine(server, POCKET, HTTPOptions(served_model="another")).__aenter__()


QUICK = HTTPOptions(http_retries=2, retry_pause=0.01, served_model="pocket")


class TestFaults:
    """A server that answers as it is told; the ids are arbitrary, only their order matters."""

    @pytest_asyncio.fixture
    async def fake(self) -> AsyncIterator[FakeServer]:
        async with FakeServer("pocket", context_length=500) as server:
            yield server

    async def turn(self, fake: FakeServer, *answers: Answer, options: HTTPOptions = QUICK) -> tuple[Turn, list[int]]:
        """The turn of a stream over these answers, and what was heard of it."""
        fake.answers = list(answers)
        heard: list[int] = []
        async with HTTPEngine(fake.url, POCKET, options) as engine:
            request = EngineContract().request(engine, [1, 2, 3], 6)
            async with aclosing(engine.stream(request)) as items:
                async for item in items:
                    if isinstance(item, Turn):
                        return item, heard
                    heard += item
        raise AssertionError("no turn")

    async def test_everything_that_matters_is_said(self, fake: FakeServer) -> None:
        turn, heard = await self.turn(fake, Answer(ids=[5, 6, 7, 8, 9, 10]))
        assert heard == list(turn.token_ids) == [5, 6, 7, 8, 9, 10]
        body = fake.bodies[0]
        assert body["prompt"] == [1, 2, 3]
        assert (body["max_tokens"], body["temperature"], body["seed"]) == (6, 0.0, 0)
        assert {"top_p", "top_k", "min_p", "stop_token_ids", "return_token_ids", "ignore_eos"} <= body.keys()

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_a_busy_server_is_asked_again(self, fake: FakeServer, status: int) -> None:
        turn, _ = await self.turn(fake, Answer(status=status), Answer(status=status), Answer(ids=[5, 6, 7, 8, 9, 10]))
        assert turn.token_ids == (5, 6, 7, 8, 9, 10)
        assert len(fake.bodies) == 3

    async def test_a_server_that_stays_busy_is_an_error(self, fake: FakeServer) -> None:
        with pytest.raises(EngineError, match=r"429.*tried 3 times"):
            await self.turn(fake, *[Answer(status=429)] * 3)

    async def test_an_answer_that_breaks_off_is_asked_for_again(self, fake: FakeServer) -> None:
        whole = [5, 6, 7, 8, 9, 10]
        turn, heard = await self.turn(fake, Answer(ids=whole[:3], breaks=True), Answer(ids=whole))
        assert heard == list(turn.token_ids) == whole

    async def test_what_was_told_is_never_taken_back(self, fake: FakeServer) -> None:
        with pytest.raises(EngineError, match="differently"):
            await self.turn(fake, Answer(ids=[5, 6, 7], breaks=True), Answer(ids=[5, 9, 7, 8, 9, 10]))

    async def test_where_nobody_listens_another_answer_will_do(self, fake: FakeServer) -> None:
        fake.answers = [Answer(ids=[5, 6, 7], breaks=True), Answer(ids=[5, 9, 7, 8, 9, 10])]
        async with HTTPEngine(fake.url, POCKET, QUICK) as engine:
            turn = await engine.generate(EngineContract().request(engine, [1, 2, 3], 6))
        assert turn.token_ids == (5, 9, 7, 8, 9, 10)

    @pytest.mark.parametrize("raw", [b"data: {no json\n\n", b"data: [1, 2]\n\n", b"<html>hello</html>\n"])
    async def test_what_is_no_completion_is_one_line(self, fake: FakeServer, raw: bytes) -> None:
        with pytest.raises(EngineError, match=r"does not answer|no completion"):
            await self.turn(fake, Answer(raw=raw))
        assert len(fake.bodies) == 1

    async def test_answers_without_ids_are_one_line(self, fake: FakeServer) -> None:
        with pytest.raises(EngineError, match="return_token_ids"):
            await self.turn(fake, Answer(raw=b'data: {"choices": [{"text": " so"}]}\n\n'))

    async def test_a_refusal_is_told_and_not_tried_again(self, fake: FakeServer) -> None:
        with pytest.raises(EngineError, match=r"400: no such thing"):
            await self.turn(fake, Answer(status=400, raw=b'{"error": {"message": "no such thing"}}'))
        assert len(fake.bodies) == 1

    async def test_the_pause_that_the_server_wishes_is_kept(self, fake: FakeServer) -> None:
        begun = time.monotonic()
        await self.turn(fake, Answer(status=429, retry_after=0.3), Answer(ids=[5, 6, 7, 8, 9, 10]))
        assert time.monotonic() - begun >= 0.3

    async def test_a_server_that_is_not_there_is_one_line(self) -> None:
        with pytest.raises(EngineError, match="cannot reach the server"):
            await HTTPEngine(f"http://127.0.0.1:{free_port()}", POCKET, QUICK).__aenter__()

    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://"])
    async def test_an_address_that_is_none_is_one_line(self, url: str) -> None:
        with pytest.raises(ConfigError, match="--base-url"):
            await HTTPEngine(url, POCKET, QUICK).__aenter__()

    async def test_a_watch_that_stops_closes_the_connection(self, fake: FakeServer) -> None:
        fake.answers = [Answer(ids=list(range(5, 300)), pause=0.01)]
        async with HTTPEngine(fake.url, POCKET, QUICK) as engine:
            turn = await engine.generate(EngineContract().request(engine, [1], 4))
            assert len(turn.token_ids) == 4
            await asyncio.wait_for(fake.hung_up.wait(), 5)
