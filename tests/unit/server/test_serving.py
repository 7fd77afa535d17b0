"""A server from start to end: signals, a dying engine, idle connections."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from start_agent.build import SolverConfig
from start_agent.engines.base import Engine, Tokens, Turn, TurnRequest
from start_agent.engines.registry import EngineEntry
from start_agent.engines.scripted import ScriptedEngine
from start_agent.errors import ConfigError, EngineError
from start_agent.plugins import NoOptions
from start_agent.server import serving
from start_agent.server.options import ServerOptions
from start_agent.server.serving import End, serve
from tests.unit.server.test_jobs import StuckEngine

BODY = {"model": "pocket", "messages": [{"role": "user", "content": "What is 6 * 7?"}], "stream": True}
CHAT = "/v1/chat/completions"


class MortalEngine(StuckEngine):
    """Writes nothing, until ``die`` is set; then it is dead, as are the turns under way."""

    def __init__(self, expected: int = 1) -> None:
        super().__init__()
        self.die = asyncio.Event()
        self.count, self.expected, self.all_here = 0, expected, asyncio.Event()

    @property
    def failure(self) -> str | None:
        return "it died" if self.die.is_set() else None

    generate = Engine.generate  # by means of ``stream``

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        self.reached.set()
        self.count += 1
        if self.count == self.expected:
            self.all_here.set()
        yield Tokens(tuple(self.tokenizer.encode("Hm. ")))
        await self.die.wait()
        raise EngineError("it died")


ENGINES: list[Engine] = []
"""The engine that the next server has."""

ENTRY = EngineEntry("of-tests", NoOptions, lambda model, options: ENGINES.pop(), {})


@asynccontextmanager
async def served(engine: Engine, **options: Any) -> AsyncGenerator[tuple[str, asyncio.Task[End]], None]:
    """A server of an engine, with its address, and the task that ends with it."""
    ENGINES[:] = [engine]
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def notice(line: str) -> None:
        if " at http" in line:
            address.set_result(line.rpartition(" ")[2].removesuffix("/v1"))

    config = SolverConfig.of(engine=f"{__name__}:ENTRY", tools=False)
    task = asyncio.create_task(serve(config, ServerOptions(port=0, **options), on_notice=notice))
    waiting: list[asyncio.Future[Any]] = [task, address]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield address.result(), task
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await task


async def events(client: httpx.AsyncClient) -> list[str]:
    async with client.stream("POST", CHAT, json=BODY) as response:
        return [line.removeprefix("data: ") async for line in response.aiter_lines() if line.startswith("data: ")]


async def test_an_address_in_use_is_said_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for place in ({"port": taken.getsockname()[1]}, {"host": "no.such.host.invalid"}):
            with pytest.raises(ConfigError):
                await serve(SolverConfig.of(tools=False), ServerOptions(**place))


async def test_a_state_file_that_cannot_be_used_is_an_error_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database")
    for state in (tmp_path / "text", tmp_path / "missing" / "state.sqlite", tmp_path):
        with pytest.raises(ConfigError):
            await serve(SolverConfig.of(tools=False, model="./missing"), ServerOptions(port=0, state=state))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it(number: signal.Signals) -> None:
    async with served(MortalEngine()) as (_, task):
        os.kill(os.getpid(), number)
        assert await task is End.STOPPED


async def test_what_runs_after_the_grace_time_ends_with_an_error() -> None:
    engine = MortalEngine()
    async with served(engine, timeout_graceful_shutdown=0) as (url, task):
        async with httpx.AsyncClient(base_url=url) as client:
            asking = [asyncio.create_task(events(client)) for _ in range(3)]
            await engine.reached.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            for found in await asyncio.gather(*asking):
                assert json.loads(found[-2])["error"]["code"] == "server_stopping" and found[-1] == "[DONE]"
        assert await task is End.STOPPED


async def test_a_second_signal_does_not_wait() -> None:
    engine = MortalEngine()
    async with served(engine, timeout_graceful_shutdown=1000) as (url, task):
        async with httpx.AsyncClient(base_url=url) as client:
            asking = asyncio.create_task(events(client))
            await engine.reached.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert json.loads((await asking)[-2])["error"]["code"] == "server_stopping"
        assert await task is End.STOPPED


async def test_an_engine_that_dies_ends_all_streams_and_the_server() -> None:
    engine = MortalEngine(expected=32)
    async with served(engine) as (url, task):
        async with httpx.AsyncClient(base_url=url) as client:
            asking = [asyncio.create_task(events(client)) for _ in range(32)]
            await engine.all_here.wait()
            engine.die.set()
            for found in await asyncio.gather(*asking):
                assert json.loads(found[-2])["error"]["type"] == "service_unavailable_error" and found[-1] == "[DONE]"
        assert await task is End.ENGINE_DIED


async def test_a_server_without_keys_on_loopback_answers_to_its_own_names_alone() -> None:
    async with served(ScriptedEngine([])) as (url, _), httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/v1/models", headers={"Host": "evil.example"})).status_code == 403
        assert (await client.get("/v1/models", headers={"Host": "localhost:8000"})).status_code == 200


async def test_a_connection_that_says_nothing_is_closed() -> None:
    with mock.patch.object(serving, "_HEADER_SECONDS", 0.05):
        async with served(ScriptedEngine([])) as (url, _):
            port = int(url.rpartition(":")[2])
            for said in (b"", b"GET /health HTTP/1.1\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(said)
                await reader.read()  # until the server closes it
                writer.close()


async def test_heads_are_bounded() -> None:
    async with served(ScriptedEngine([])) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        for number in range(2000):
            writer.write(b"X-%d: %s\r\n" % (number, b"x" * 100))
        assert b" 400 " in await reader.readline()
        writer.close()
