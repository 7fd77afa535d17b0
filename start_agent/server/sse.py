"""Event streams: a job's events, written as they come, with a comment where there is silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from start_agent.server.ascii_json import dumps
from start_agent.server.jobs import Job, gone

PING_SECONDS = 15
"""A comment goes out this often: proxies close connections that are silent for a minute."""

_SEND_SECONDS = 60  # that a client may take to read what was sent

DONE = b"data: [DONE]\n\n"
"""The last event of a stream of completions."""


def data_event(value: Mapping[str, Any]) -> bytes:
    """An event without a name."""
    return f"data: {dumps(value)}\n\n".encode()


def named_event(name: str, value: Mapping[str, Any]) -> bytes:
    """An event with a name."""
    return f"event: {name}\ndata: {dumps(value)}\n\n".encode()


class EventStream(Response):
    """The answer to a request with ``stream``; when it ends, or the client goes away, its job is closed.

    Args:
        job: what is streamed.
        events: what is sent, one or several whole events at once.
    """

    media_type = "text/event-stream"

    def __init__(self, job: Job, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "Connection": "keep-alive", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._job, self._events = job, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Raises TimeoutError: the client does not read what is sent."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        tasks = [asyncio.create_task(work) for work in (self._write(send), _ping(send), gone(receive))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._job.close()
        for task in done:
            task.result()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            async for data in events:
                if data:
                    await _send(send, data)


async def _ping(send: Send) -> None:
    while True:
        await asyncio.sleep(PING_SECONDS)
        await _send(send, b": ping\n\n")


async def _send(send: Send, data: bytes) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await send({"type": "http.response.body", "body": data, "more_body": True})
