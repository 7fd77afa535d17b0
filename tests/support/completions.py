"""Servers of completions for tests: a scripted one, and one that imitates a kind of server for a model.

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
from start_agent.logprobs import TokenLogprob
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


Written = list[tuple[int, TokenLogprob | None]]
"""Ids with their log-probabilities, where they are asked for."""


class ModelServer(Server):
    """Speaks a kind's wire for a model that an open engine runs.

    Args:
        kind: whose wire.
        engine: open.
        raw: whether log-probabilities are those before the temperature; else they are divided by it.
        numbered: whether /inference/v1/generate writes ids as numbers, as later versions do.
        cumulative: whether SGLang's events hold all ids so far.
    """

    def __init__(
        self, kind: Kind, engine: Engine, *, raw: bool = True, numbered: bool = True, cumulative: bool = True
    ) -> None:
        super().__init__(kind, engine.model, engine.context_length)
        self.engine = engine
        self._raw, self._numbered, self._cumulative = raw, numbered, cumulative
        self._matcher = Matcher(engine.tokenizer)

    async def answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """See ``Server.answer``."""
        self.bodies.append(body)
        await begin(writer)
        prompt = body.get("prompt") or body.get("token_ids") or body["input_ids"]
        values = body.get("sampling_params") or body
        stops = set(values.get("stop_token_ids", ()))
        number = values.get("logprobs", body.get("top_logprobs_num"))
        written: Written = []
        async with aclosing(self._tokens(prompt, values, number)) as tokens:
            async for token in tokens:
                written.append(token)
                ended = token[0] in stops
                await event(writer, self._event(written, 1, ended))
                if ended:
                    break
            else:
                await event(writer, self._event(written, 0, True))
        if self.kind != "sglang":
            await event(writer, {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 0}}})
        await event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _event(self, written: Written, new: int, ended: bool) -> dict[str, Any]:
        """The event after the last ``new`` tokens of those so far."""
        latest = written[len(written) - new :]
        if self.kind == "sglang":
            shown = written if self._cumulative else latest
            reason = {"type": "stop"} if ended else None
            meta: dict[str, Any] = {"completion_tokens": len(written), "cached_tokens": 0, "finish_reason": reason}
            asked = [(token_id, one) for token_id, one in shown if one is not None]
            if asked:
                meta["output_token_logprobs"] = [[one.logprob, token_id, None] for token_id, one in asked]
            if any(one.top for _, one in asked):
                meta["output_top_logprobs"] = [[[value, top, None] for top, value in one.top] for _, one in asked]
            return {"text": "", "output_ids": [token_id for token_id, _ in shown], "meta_info": meta}
        choice: dict[str, Any] = {"token_ids": [token_id for token_id, _ in latest]}
        content = [self._place(token_id, one) for token_id, one in latest if one is not None]
        return {
            "choices": [
                choice
                | {"finish_reason": "stop" if ended else None}
                | ({"logprobs": {"content": content}} if content else {})
            ]
        }

    def _place(self, token_id: int, found: TokenLogprob) -> dict[str, Any]:
        """As vLLM's /inference/v1/generate has it: the sampled token first, and with it no more than were asked for."""

        def said(token_id: int, value: float) -> dict[str, Any]:
            return ({"token_id": token_id} if self._numbered else {"token": f"token_id:{token_id}"}) | {
                "logprob": value
            }

        top = {token_id: found.logprob, **dict(found.top)}
        shown = [said(*pair) for pair in top.items()][: max(len(found.top), 1)]
        return said(token_id, found.logprob) | {"top_logprobs": shown}

    async def _tokens(
        self, prompt: list[int], values: dict[str, Any], number: int | None
    ) -> AsyncGenerator[tuple[int, TokenLogprob | None], None]:
        name = uuid4().hex
        sampling = Sampling(
            temperature=values["temperature"],
            top_p=values["top_p"],
            top_k=max(values["top_k"], 0),
            min_p=values["min_p"],
        )
        request = TurnRequest(
            name,
            prompt,
            sampling,
            values.get("seed", values.get("sampling_seed")),
            values.get("max_tokens") or values["max_new_tokens"],
            partial(StopChecker, self._matcher, State(), NEVER),
            number,
        )
        warmth = 1.0 if self._raw else sampling.temperature or 1.0
        try:
            async with aclosing(self.engine.stream(request)) as items:
                async for item in items:
                    if isinstance(item, Turn):
                        return
                    for place, token_id in enumerate(item.token_ids):
                        one = item.logprobs[place] if item.logprobs is not None else None
                        yield token_id, one and _cooled(one, warmth)
        finally:
            await self.engine.release(name)


def _cooled(found: TokenLogprob, warmth: float) -> TokenLogprob:
    return TokenLogprob(found.logprob / warmth, tuple((token_id, value / warmth) for token_id, value in found.top))
