"""Event streams: a job's events, written as they come, with a comment where there is silence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from start_agent.server.ascii_json import dumps
from start_agent.server.jobs import Job

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


class EventStream(EventSourceResponse):
    """The answer to a request with ``stream``; when it ends, or the client goes away, its job is closed.

    Args:
        job: what is streamed.
        events: what is sent.
    """

    def __init__(self, job: Job, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, ping=PING_SECONDS, ping_message_factory=_ping, sep="\n", send_timeout=_SEND_SECONDS)
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.close()


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="ping", sep="\n")
