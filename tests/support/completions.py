"""Servers of completions for tests: one that answers as it is told, and one that speaks a kind's wire for a model.

Both speak as much HTTP/1.1 as the engine needs, one request for each connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Self
from uuid import uuid4

from start_agent.engines.base import Engine, Sampling, Turn, TurnRequest
from start_agent.tokens.markers import Matcher, State
from start_agent.tokens.stopping import NEVER, StopChecker

Kind = Literal["vllm", "vllm-generate", "sglang", "text"]
_PATHS = {"vllm": "/v1/completions", "text": "/v1/completions"}
_PATHS |= {"vllm-generate": "/inference/v1/generate", "sglang": "/generate"}
_OWNERS = {"vllm": "vllm", "vllm-generate": "vllm", "sglang": "sglang", "text": "somebody"}


class Server:
    """What both have in common: connections, the list of models, what SGLang says of itself."""

    def __init__(self, kind: Kind, model: str, context_length: int) -> None:
        self.kind, self.path = kind, _PATHS[kind]
        self.bodies: list[dict[str, Any]] = []
        self.hung_up = asyncio.Event()
        self._gets = {
            "/v1/models": {"data": [{"id": model, "max_model_len": context_length, "owned_by": _OWNERS[kind]}]},
            "/server_info": {"enable_deterministic_inference": True, "max_total_num_tokens": context_length},
        }

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *details: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Answer a request for a completion."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.split(" ", 2)
            if method == "GET" and path in self._gets:
                await send(writer, 200, json.dumps(self._gets[path]).encode(), "application/json")
            elif method == "POST" and path == self.path:
                length = next(
                    int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")
                )
                await self.answer(json.loads(await reader.readexactly(length)), writer)
            else:
                await send(writer, 404, b"", "text/plain")
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()


async def send(writer: asyncio.StreamWriter, status: int, body: bytes, kind: str, more: str = "") -> None:
    """A whole answer."""
    writer.write(
        f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"{more}Connection: close\r\n\r\n".encode()
    )
    writer.write(body)
    await writer.drain()


async def begin(writer: asyncio.StreamWriter) -> None:
    """The head of a stream of events."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    await writer.drain()


async def event(writer: asyncio.StreamWriter, content: object) -> None:
    """One event: an object, or a word such as [DONE]."""
    data = f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode()
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request is answered with: a status, or raw bytes, or ids one by one."""

    ids: list[int] = field(default_factory=list)
    status: int = 200
    raw: bytes | None = None
    breaks: bool = False
    pause: float = 0.0
    retry_after: str | None = None


class FakeServer(Server):
    """Answers requests with ``answers``, in order; the engine's first question, for one token, with a token.

    ``bodies`` are the requests so far, without that question.
    """

    def __init__(self, model: str, context_length: int, kind: Kind = "vllm") -> None:
        super().__init__(kind, model, context_length)
        self.answers: list[Answer] = []

    async def answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """See ``Server.answer``."""
        if body.get("max_tokens") == 1 and len(body["prompt"]) == 1:
            await self._ids(Answer(ids=[7]), writer)
            return
        self.bodies.append(body)
        answer = self.answers.pop(0)
        more = "" if answer.retry_after is None else f"Retry-After: {answer.retry_after}\r\n"
        if answer.raw is not None or answer.status != 200:
            kind = "text/event-stream" if (answer.raw or b"").startswith(b"data:") else "text/plain"
            await send(writer, answer.status, answer.raw or b"", kind, more)
        else:
            await self._ids(answer, writer)

    async def _ids(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for place, token_id in enumerate(answer.ids):
            last = place == len(answer.ids) - 1 and not answer.breaks
            ids = {} if self.kind == "text" else {"token_ids": [token_id]}
            await event(writer, {"choices": [{**ids, "text": "so", "finish_reason": "length" if last else None}]})
            await asyncio.sleep(answer.pause)
        if not answer.breaks:
            await event(writer, "[DONE]")
            writer.write(b"0\r\n\r\n")
            await writer.drain()


class ModelServer(Server):
    """Speaks a kind's wire for a model that an open engine runs."""

    def __init__(self, kind: Kind, engine: Engine) -> None:
        super().__init__(kind, engine.model, engine.context_length)
        self.engine = engine
        self._matcher = Matcher(engine.tokenizer)

    async def answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """See ``Server.answer``."""
        self.bodies.append(body)
        await begin(writer)
        prompt = body.get("prompt") or body.get("token_ids") or body["input_ids"]
        values = body.get("sampling_params") or body
        stops = set(values.get("stop_token_ids", ()))
        written: list[int] = []
        async with aclosing(self._ids(prompt, values)) as ids:
            async for token_id in ids:
                written.append(token_id)
                ended = token_id in stops
                await event(writer, self._event(written, len(prompt), ended))
                if ended:
                    break
            else:
                await event(writer, self._event(written, len(prompt), True, new=()))
        if self.kind != "sglang":
            await event(writer, {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 0}}})
        await event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _event(self, written: list[int], prompt: int, ended: bool, new: Any = None) -> dict[str, Any]:
        new = written[-1:] if new is None else list(new)
        if self.kind == "sglang":
            reason = {"type": "stop"} if ended else None
            meta = {"completion_tokens": len(written), "cached_tokens": 0, "finish_reason": reason}
            return {"text": "", "output_ids": list(written), "meta_info": meta | {"prompt_tokens": prompt}}
        return {"choices": [{"token_ids": new, "finish_reason": "stop" if ended else None}]}

    async def _ids(self, prompt: list[int], values: dict[str, Any]) -> AsyncGenerator[int, None]:
        name = uuid4().hex
        request = TurnRequest(
            name,
            prompt,
            Sampling(
                temperature=values["temperature"],
                top_p=values["top_p"],
                top_k=max(values["top_k"], 0),
                min_p=values["min_p"],
            ),
            values.get("seed", values.get("sampling_seed")),
            values.get("max_tokens") or values["max_new_tokens"],
            partial(StopChecker, self._matcher, State(), NEVER),
        )
        try:
            async with aclosing(self.engine.stream(request)) as items:
                async for item in items:
                    if not isinstance(item, Turn):
                        for token_id in item.token_ids:
                            yield token_id
        finally:
            await self.engine.release(name)
