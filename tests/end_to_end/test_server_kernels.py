"""Containers with the real sandbox: variables, files, figures, and reports of their loss."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sandbox import Sandbox
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine
from start_agent.server.container_session import STATE_LOST
from tests.support.apps import app_of, client_of, listening, state
from tests.support.responses import calls_of, respond
from tests.support.waiting import eventually


class CodeOfTheUser(ScriptedEngine):
    """Runs what the last message of the user says, then answers."""

    def __init__(self) -> None:
        super().__init__(self._says)

    def _says(self, request: TurnRequest) -> str:
        text = self.tokenizer.decode(request.token_ids)
        asked, _, since = text.rpartition("<|im_start|>assistant\n")
        if "```output" in since:
            return "</think>Done.<|im_end|>"
        code = asked.rpartition("<|im_start|>user\n")[2].removesuffix("<|im_end|>\n")
        return f"```python\n{code}\n```\n"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        app_of(
            CodeOfTheUser(), sandbox=Sandbox(size=4), settings={"hints": False}, max_requests=2, containers=2
        ) as app,
        client_of(app) as client,
    ):
        yield client


async def ran(client: httpx.AsyncClient, code: str, **more: Any) -> dict[str, Any]:
    (call,) = calls_of(await respond(client, code, **more))
    return call


def logs(call: dict[str, Any]) -> str:
    return "".join(output["logs"] for output in call["outputs"] if output["type"] == "logs")


def within(container: str) -> dict[str, Any]:
    return {"tools": [{"type": "code_interpreter", "container": container}]}


async def test_variables_and_files_stay(client: httpx.AsyncClient) -> None:
    container = (await client.post("/v1/containers", json={"name": "mine"})).json()["id"]
    url = f"/v1/containers/{container}/files"
    await client.post(url, files={"file": ("given.txt", b"41")})
    await ran(client, "x = int(open('given.txt').read()) + 1", **within(container))
    assert logs(await ran(client, "print(x); print(x, file=open('made.txt', 'w'))", **within(container))) == "42"
    files = {one["path"]: one for one in (await client.get(url)).json()["data"]}
    assert {path: one["source"] for path, one in files.items()} == {"given.txt": "user", "made.txt": "assistant"}
    content = await client.get(f"{url}/{files['made.txt']['id']}/content")
    assert content.content == b"42\n"
    assert "NameError" in logs(await ran(client, "x")), "another container has other variables"


async def test_a_conversation_continues_in_its_kernel(client: httpx.AsyncClient) -> None:
    first = await respond(client, "x = 42")
    second = await respond(client, "x", previous_response_id=first["id"])
    (call,) = calls_of(second)
    assert logs(call) == "42"
    await client.delete(f"/v1/containers/{call['container_id']}")
    lost = await ran(client, "1", previous_response_id=second["id"])
    assert logs(lost) == f"{STATE_LOST}\n1" and lost["start_agent"]["cell"]["state_lost"]


async def test_a_figure_comes_back(client: httpx.AsyncClient) -> None:
    pytest.importorskip("matplotlib")
    call = await ran(client, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
    (image,) = [output for output in call["outputs"] if output["type"] == "image"]
    data = base64.b64decode(image["url"].removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG")


async def test_a_kernel_that_dies_is_reported_once(client: httpx.AsyncClient) -> None:
    container = (await client.post("/v1/containers", json={"name": "mine"})).json()["id"]
    await ran(client, "x = 42", **within(container))
    died = await ran(client, "import os; os._exit(1)", **within(container))
    assert died["status"] == "completed" and died["start_agent"]["cell"]["state_lost"]
    after = await ran(client, "x", **within(container))
    assert "NameError" in logs(after) and STATE_LOST not in logs(after), "the model has read of it"


async def test_who_goes_away_leaves_no_kernel() -> None:
    async with (
        app_of(CodeOfTheUser(), sandbox=Sandbox(size=4), settings={"hints": False}) as app,
        listening(app) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        box, active = state(app).solver.sandbox, state(app).active
        assert box is not None

        async def leave(container: str | None) -> None:
            request: dict[str, Any] = {"model": "scripted", "input": "while True: pass", "stream": True}
            more = {} if container is None else within(container)
            async with client.stream("POST", "/v1/responses", json=request | more) as stream:
                async for line in stream.aiter_lines():
                    if line == "event: response.code_interpreter_call.interpreting":
                        return

        named = (await client.post("/v1/containers", json={"name": "mine"})).json()["id"]
        await ran(client, "x = 42", **within(named))
        await asyncio.gather(leave(None), leave(named))
        await eventually(lambda: not active._running and not state(app).jobs)
        found = (await client.get("/v1/containers")).json()["data"]
        assert [one["id"] for one in found] == [named], "it stays, but its cell was ended, and its variables with it"
        after = await ran(client, "x", **within(named))
        assert logs(after).startswith(STATE_LOST) and "NameError" in logs(after)
        await client.delete(f"/v1/containers/{named}")
        containers = state(app).containers
        assert containers is not None
        await containers.settled()
        await eventually(lambda: box.stats.kernels_live == box.stats.kernels_ready)
