"""A model behind a running server: ids go in, ids come back as they are sampled, no text is decoded on the way.

The request's stop checker reads the ids and decides the stop; the connection is then closed, which makes the server
cancel the request. What kind of server it is, is found out at the start (``finding.py``); how each is asked, in
``dialects.py``.

**Nothing that was read is lost.** Where an answer breaks off (the server restarts), ends too soon (llama.cpp stops at
any end of sequence) or left ids out, the server is asked to go on behind the last id that is known. A turn may so
consist of several answers; those after the first draw from seeds of their own. How long a server is waited for,
``client.py`` says.

**What is cached** vLLM tells only at the end of an answer, so that there a turn that the stop checker ended counts
its whole prompt as fed; SGLang and llama.cpp tell it at the beginning.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from start_agent.engines.admission import Admission
from start_agent.engines.base import Engine, Tokens, Turn, TurnRequest
from start_agent.engines.http.client import Client, Failure, FailureKind, Patience
from start_agent.engines.http.dialects import Ask, Dialect, LostIdsError, Piece, read
from start_agent.engines.http.finding import Server, find
from start_agent.engines.http.options import HTTPOptions
from start_agent.engines.turns import TurnReader
from start_agent.errors import ConfigError, EngineError
from start_agent.fields import coerce
from start_agent.logprobs import TokenLogprob
from start_agent.seeds import derive_seed
from start_agent.tokens.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_CANDIDATES = (1_000, 10_000_000)  # of the likeliest, among which a sampled token is first looked for, then: all


class HTTPEngine(Engine):
    """See the module. The server is asked what it serves on entering ``async with``.

    Args:
        base_url: of the server, with or without its ``/v1``.
        model: a name of the hub, or a local folder: whose tokenizer is used, and what the server calls the model
            unless ``options.served_model`` says otherwise.
        options: which server is asked, and how; a mapping as well.
    """

    name = "http"

    def __init__(self, base_url: str, model: str, options: HTTPOptions | Mapping[str, Any] | None = None) -> None:
        self.model, self.options = model, coerce(HTTPOptions, options or {"base_url": base_url})
        self.base_url = base_url
        self._client: Client | None = None
        self._server: Server | None = None
        self._admission = Admission(self.options.max_num_seqs)
        self._slots: list[int] = []  # of llama.cpp, that no open trace has
        self._slot_of: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Load the tokenizer and find out what the server is.

        Raises:
            MissingExtraError: httpx is not installed.
            ConfigError: the address is none, the server refuses the key, it does not say how long a context is, or
                it takes and gives no token ids.
            ModelError: there is no such tokenizer, or the server does not serve the model.
            EngineError: the server cannot be reached, or is none of this kind.
        """
        client = Client(self.base_url, self.options)
        try:
            self.tokenizer = await asyncio.to_thread(
                Tokenizer.from_pretrained, self.model, revision=self.options.revision
            )
            self._server = await find(client, self.tokenizer, self.model)
        except BaseException:
            await client.close()
            raise
        self._client, self.context_length = client, self._server.context_length
        logger.warning("the server at %s is %s", client.url, self._server)
        places = self.options.max_num_seqs
        if self._server.slots is not None:
            places = min(places, self._server.slots)
            self._slots = list(reversed(range(places)))
        self._admission = Admission(places)
        return self

    @property
    def kind(self) -> str:
        """What kind of server it is: vllm, vllm-generate, sglang or llama.cpp. Raises EngineError before it is open."""
        return self._running()[1].kind

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections; turns under way end with ``EngineError``."""
        self._admission.refuse(EngineError("the engine failed: it was closed"))
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """See ``Engine.stream``."""
        self.check(request)
        client, dialect = self._running()
        begun = time.perf_counter()
        continued = await self._admission.enter(request.trace_id, len(request.token_ids) + request.max_tokens)
        queued = time.perf_counter() - begun
        if not continued and self._slots:
            self._slot_of[request.trace_id] = self._slots.pop()
        reader, reused, patience, answers = TurnReader(request), 0, Patience(client), 0
        ask = Ask(
            request.token_ids,
            request.max_tokens,
            request.sampling,
            request.seed,
            sorted(reader.checker.conditions.eos_ids),
            self._slot_of.get(request.trace_id, -1),
            later=self.options.server_priority and not continued,
            num_logprobs=request.num_logprobs,
        )
        dialect.check(ask)
        while not reader.over:
            known = len(reader.written)
            try:
                async with aclosing(_answer(client, dialect, _further(ask, reader, answers), reader)) as pieces:
                    async for piece in pieces:
                        if answers == 0:
                            reused = piece.cached or reused
                        if len(reader.written) > known:
                            patience.progress()
                        if fresh := reader.news():
                            yield fresh
            except Failure as failure:
                await patience.wait(failure)
            else:
                if not reader.over and len(reader.written) == known:
                    raise EngineError(f"the server ended a turn early, after {known} tokens")
            answers += len(reader.written) > known
        yield reader.turn(prompt=len(request.token_ids), cached_tokens=reused, queue_seconds=queued)

    async def release(self, trace_id: str) -> None:
        """See ``Engine.release``."""
        if trace_id in self._slot_of:
            self._slots.append(self._slot_of.pop(trace_id))
        self._admission.leave(trace_id)

    def _running(self) -> tuple[Client, Dialect]:
        if self._client is None or self._server is None:
            raise EngineError("the engine is not running: use it inside `async with`")
        return self._client, self._server.dialect


def _further(ask: Ask, reader: TurnReader, answers: int) -> Ask:
    """What is still to be asked, after so many answers that brought something."""
    if not answers:
        return ask
    return replace(
        ask,
        token_ids=[*ask.token_ids, *reader.written],
        max_tokens=ask.max_tokens - len(reader.written),
        seed=None if ask.seed is None else derive_seed(ask.seed, f"answer {answers}"),
    )


async def _answer(client: Client, dialect: Dialect, ask: Ask, reader: TurnReader) -> AsyncGenerator[Piece, None]:
    """One answer: fills the reader, and yields after each piece of it."""
    seen, finished = 0, False
    async with aclosing(client.events(dialect.path, dialect.body(ask))) as events:
        async for event in events:
            try:
                piece = read(dialect, event, seen, ask.num_logprobs)
            except LostIdsError as lost:
                yield await _whole(client, dialect, replace(ask, max_tokens=lost.count), reader, seen)
                return
            seen, finished = seen + len(piece.token_ids), finished or piece.finished
            if ask.num_logprobs is not None and piece.token_ids and piece.logprobs is None:
                raise ConfigError(f"the server at {client.url} gives no log-probabilities: leave --logprobs out")
            over = reader.read(piece.token_ids, piece.logprobs)
            yield piece
            if over and not piece.finished:
                return  # closing the stream makes the server cancel the request
    if not finished:
        raise Failure(FailureKind.ERROR, f"the server at {client.url} broke off its answer")


async def _whole(client: Client, dialect: Dialect, ask: Ask, reader: TurnReader, seen: int) -> Piece:
    """The same answer again in one piece: the same ids and seed give the same, and nothing is left out."""
    body = dialect.body(replace(ask, num_logprobs=None), stream=False)
    ids = read(dialect, await client.post(dialect.path, body), 0).token_ids
    if seen and ids[:seen] != reader.written[-seen:]:
        return Piece([])  # rounded differently beside other traces: go on behind what is known
    logprobs = None
    if ask.num_logprobs is not None:
        logprobs = [
            await _logprob(client, dialect, replace(ask, token_ids=[*ask.token_ids, *ids[:at]]), ids[at])
            for at in range(seen, len(ids))
        ]
    reader.read(ids[seen:], logprobs)
    return Piece(ids[seen:])


async def _logprob(client: Client, dialect: Dialect, ask: Ask, token_id: int) -> TokenLogprob:
    """Of an id that a stream left out, behind the ids of the question."""
    for number in _CANDIDATES:
        answer = await client.post(dialect.path, dialect.distribution(ask, number))
        top = (read(dialect, answer, 0, number).logprobs or [TokenLogprob(0.0)])[0].top
        found = next((value for candidate, value in top if candidate == token_id), None)
        if found is not None:
            return TokenLogprob(found, top[: ask.num_logprobs])
    raise EngineError(f"the server at {client.url} gives no log-probability of token {token_id}")
