"""A server in a separate process: killed, stopped, with a full disk, with an engine that dies."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from start_agent.cli.exit_codes import ExitCode
from start_agent.engines.base import Tokens, Turn, TurnRequest
from start_agent.engines.registry import EngineEntry
from start_agent.engines.scripted import ScriptedEngine
from start_agent.plugins import NoOptions
from tests.support.ports import free_port
from tests.support.servers import serving
from tests.unit.server.test_serving import MortalEngine

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

QUESTION = "What is 48613 * 7957?"
CHAT: dict[str, Any] = {"model": "pocket", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
STREAMS = 32


class SignalledEngine(MortalEngine):
    """Dies when the process gets SIGUSR1; turns of one token, which ``/health`` asks for, it answers."""

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.die.set)
        return await super().__aenter__()

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        stream = ScriptedEngine.stream if request.max_tokens == 1 else MortalEngine.stream
        async for part in stream(self, request):
            yield part


ENTRY = EngineEntry("of-faults", NoOptions, lambda model, options: SignalledEngine(), {})


@contextmanager
def server(*options: str | Path) -> Iterator[tuple[Any, httpx.Client]]:
    """A server with its client."""
    port = free_port()
    with (
        serving("start_agent", "serve", "--port", str(port), *options, port=port) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        yield process, client


def answer(client: httpx.Client, **more: Any) -> dict[str, Any]:
    found = client.post("/v1/responses", json={"model": "pocket", "input": QUESTION, "seed": 1, **more})
    assert found.status_code == 200, found.text
    body: dict[str, Any] = found.json()
    return body


def test_what_was_said_survives_a_kill(tmp_path: Path) -> None:
    options = ("--state", tmp_path / "state.sqlite")
    with server(*options) as (process, client):
        conversation = client.post("/v1/conversations", json={}).json()["id"]
        first = answer(client)
        answer(client, conversation=conversation)
        items = client.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"}).json()["data"]
        with client.stream(
            "POST", "/v1/responses", json={"model": "pocket", "input": QUESTION, "stream": True}
        ) as some:
            assert next(some.iter_lines())
            process.kill()
            assert process.wait() == -signal.SIGKILL
    with server(*options) as (_, client):
        assert client.get(f"/v1/responses/{first['id']}").json() == first
        found = client.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"}).json()["data"]
        assert items and found == items
        later = answer(client, previous_response_id=first["id"])
        assert later["previous_response_id"] == first["id"]
        assert later["usage"]["input_tokens"] > first["usage"]["input_tokens"]


def test_with_a_full_disk_answers_are_sent_and_not_stored(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    with server("--state", state) as (process, client):
        first = answer(client)
        log = state.with_name(f"{state.name}-wal")
        _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, most))
        unstored = answer(client)
        assert unstored["status"] == "completed" and unstored["start_agent"]["stored"] is False
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        assert client.get(f"/v1/responses/{unstored['id']}").status_code == 404
        later = answer(client, previous_response_id=first["id"])
        assert later["status"] == "completed" and later["start_agent"]["stored"] is True


def test_what_runs_when_it_is_stopped_may_finish() -> None:
    with server() as (process, client), client.stream("POST", "/v1/chat/completions", json=CHAT) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        process.terminate()
        rows = [line for line in lines if line.startswith("data: ")]
        assert rows[-1] == "data: [DONE]" and not any(row.startswith('data: {"error"') for row in rows)
        assert process.wait() == ExitCode.COMPLETE


async def test_an_engine_that_dies_ends_its_streams_and_the_process() -> None:
    with server("--engine", "tests.faults.test_server_faults:ENTRY", "--no-tools") as (process, client):
        started, all_started = 0, asyncio.Event()

        async def events(asking: httpx.AsyncClient) -> list[str]:
            nonlocal started
            found: list[str] = []
            async with asking.stream("POST", "/v1/chat/completions", json=CHAT) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        found.append(line.removeprefix("data: "))
                        started += len(found) == 1
                        if started == STREAMS:
                            all_started.set()
            return found

        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=client.base_url, timeout=120, limits=limits) as asking:
            tasks = [asyncio.create_task(events(asking)) for _ in range(STREAMS)]
            await all_started.wait()
            process.send_signal(signal.SIGUSR1)
            for found in await asyncio.gather(*tasks):
                assert json.loads(found[-2])["error"]["type"] == "service_unavailable_error" and found[-1] == "[DONE]"
        assert await asyncio.to_thread(process.wait) == ExitCode.ENGINE_DIED
