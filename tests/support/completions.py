"""A server of completions that answers as it is told."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request is answered with: a status, or raw bytes, or ids one by one."""

    ids: list[int] = field(default_factory=list)
    status: int = 200
    raw: bytes | None = None
    breaks: bool = False
    pause: float = 0.0
    retry_after: float | None = None


class FakeServer:
    """Speaks as much HTTP/1.1 as the engine needs. ``bodies`` are the requests for completions so far."""

    def __init__(self, model: str, context_length: int) -> None:
        self.answers: list[Answer] = []
        self.bodies: list[dict[str, Any]] = []
        self.hung_up = asyncio.Event()
        self._models = {"data": [{"id": model, "max_model_len": context_length}]}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *details: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("GET"):
                await self._send(writer, 200, json.dumps(self._models).encode(), "application/json")
                return
            length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:"))
            self.bodies.append(json.loads(await reader.readexactly(length)))
            await self._answer(writer, self.answers.pop(0))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, status: int, body: bytes, kind: str, more: str = "") -> None:
        writer.write(
            f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            f"{more}Connection: close\r\n\r\n".encode()
        )
        writer.write(body)
        await writer.drain()

    async def _answer(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        more = "" if answer.retry_after is None else f"Retry-After: {answer.retry_after}\r\n"
        if answer.raw is not None or answer.status != 200:
            await self._send(writer, answer.status, answer.raw or b"", "text/plain", more)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for place, token_id in enumerate(answer.ids):
            last = place == len(answer.ids) - 1 and not answer.breaks
            choice = {"token_ids": [token_id], "text": "", "finish_reason": "length" if last else None}
            data = f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(answer.pause)
        if not answer.breaks:
            data = b"data: [DONE]\n\n"
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
            await writer.drain()
