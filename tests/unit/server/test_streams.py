"""Streams over a real connection: events as they come, comments when idle, and clients that disconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import httpx
import openai
import pytest

from sandbox import FakeSandbox
from start_agent.server import sse
from start_agent.server.state import State
from tests.support.apps import app_of, listening, state
from tests.unit.server.test_jobs import PacedEngine, StuckEngine

BARE = {"hints": False}
ANSWER = "</think>\\boxed{42}<|im_end|>"
TEXT = " ".join(map(str, range(40)))
BODY = {"model": "scripted", "messages": [{"role": "user", "content": "What is 6 * 7?"}]}
CHAT, RAW = "/v1/chat/completions", "/v1/completions"


async def lines(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if line:
            yield line


async def empty(there: State) -> None:
    """Wait until nothing of any request is left."""
    while there.jobs:
        await next(iter(there.jobs)).ended.wait()
    assert (there.admission.running, there.admission.waiting) == (0, 0)


async def test_events_come_while_the_model_writes() -> None:
    release = asyncio.Event()

    async def wait(code: str) -> str:
        await release.wait()
        return "42"

    async with (
        app_of(["Hm. ```no\n```python\nx\n```\n", ANSWER], settings=BARE, sandbox=FakeSandbox(wait)) as app,
        listening(app) as url,
        httpx.AsyncClient(base_url=url) as client,
        client.stream("POST", CHAT, json={**BODY, "stream": True}) as response,
    ):
        seen = ""
        async for line in lines(response):
            event = line.removeprefix("data: ")
            if event == "[DONE]":
                break
            seen += json.loads(event)["choices"][0]["delta"].get("reasoning", "")
            if "x\n```" in seen:
                release.set()  # the code was sent before its cell has ended
        assert "```output\n42\n```" in seen


async def test_there_are_comments_in_silence() -> None:
    with mock.patch.object(sse, "PING_SECONDS", 0.05):
        async with (
            app_of(StuckEngine(), max_requests=1) as app,
            listening(app) as url,
            httpx.AsyncClient(base_url=url) as client,
            client.stream("POST", CHAT, json={**BODY, "stream": True}) as running,
            client.stream("POST", CHAT, json={**BODY, "stream": True}) as queued,
        ):
            for response in (running, queued):
                assert response.headers["Content-Type"].startswith("text/event-stream")
                assert response.headers["X-Accel-Buffering"] == "no"
                found = [line async for line, _ in _first(lines(response), 3)]
                assert found[0].startswith("data: ") and found[1:] == [": ping", ": ping"]


async def _first(items: AsyncIterator[str], count: int) -> AsyncIterator[tuple[str, int]]:
    number = 0
    async for item in items:
        number += 1
        yield item, number
        if number == count:
            return


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "more"), [(CHAT, {}), (RAW, {"messages": None, "prompt": "6 * 7 ="})])
async def test_a_client_that_goes_away_takes_its_rollouts_along(path: str, stream: bool, more: dict[str, Any]) -> None:
    engine = StuckEngine()
    body = {name: value for name, value in {**BODY, "n": 2, "stream": stream, **more}.items() if value is not None}
    async with app_of(engine, max_requests=1) as app, listening(app) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            asking = asyncio.create_task(client.post(path, json=body))
            await engine.reached.wait()
            assert (state(app).admission.running, state(app).admission.waiting) == (1, 1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await empty(state(app))
        assert engine.stuck == 0 and len(engine.released) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_takes_its_kernel_along(stream: bool) -> None:
    started = asyncio.Event()

    async def hang(code: str) -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    box = FakeSandbox(hang)
    async with app_of(["```python\nx\n```\n"], sandbox=box, settings=BARE) as app, listening(app) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            asking = asyncio.create_task(client.post(CHAT, json={**BODY, "stream": stream}))
            await started.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await empty(state(app))
        assert box.open_sessions == 0


async def test_many_streams_at_once_and_some_leave() -> None:
    async with app_of(PacedEngine(lambda request: TEXT + ANSWER), settings=BARE, max_requests=8) as app:
        async with listening(app) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:

            async def one(number: int) -> str | None:
                stream = await client.chat.completions.create(**BODY, stream=True, seed=number)  # type: ignore[call-overload]
                text = ""
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
                    if number % 5 == 0:
                        await stream.close()
                        return None
                return text

            found = await asyncio.gather(*map(one, range(40)))
        await empty(state(app))
    assert [text for text in found if text is not None] == ["\\boxed{42}"] * 32


async def test_half_a_request_is_no_request() -> None:
    async with app_of([]) as app, listening(app) as url:
        port = int(url.rpartition(":")[2])
        for head in (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
            b"GET /health HTTP/1.1\r\nHost",
            b"\x16\x03\x01",
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/v1/models")).status_code == 200
        assert not state(app).jobs
