"""The engine for a running server: sends token ids and reads sampled ids, without decoding text.

The request's stop checker reads the ids and decides the stop; then the connection is closed, which makes the server
cancel the request. The kind of server is detected at the start (``finding.py``); ``dialects.py`` has the requests and
responses of each kind.

**Ids that were read are never lost.** If an answer breaks off (the server restarts), ends too early (llama.cpp stops at
any end of sequence) or omits ids, another request continues after the last known id. So a turn may consist of several
answers; those after the first have derived seeds. ``client.py`` decides how long to wait for a server.

**Cached tokens:** vLLM reports them only at the end of an answer, so a turn that the stop checker ended counts its
whole prompt as computed; SGLang and llama.cpp report them at the beginning.
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
from start_agent.engines.http.client import Client, Failure, FailureKind, Retries
from start_agent.engines.http.dialects import CompletionRequest, Dialect, LostIdsError, Piece, read
from start_agent.engines.http.finding import Server, find
from start_agent.engines.http.options import HTTPOptions
from start_agent.engines.turns import TurnReader
from start_agent.errors import ConfigError, EngineError
from start_agent.fields import coerce
from start_agent.logprobs import TokenLogprob
from start_agent.seeds import derive_seed
from start_agent.tokens.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_CANDIDATES = (1_000, 10_000_000)  # numbers of likeliest tokens to search for a sampled one: first some, then all


class HTTPEngine(Engine):
    """An engine for a running server, which is detected on entering ``async with``.

    Args:
        base_url: the URL of the server, with or without ``/v1``.
        model: a name on the Hub, or a local folder, of the tokenizer; also the model's name on the server unless
            ``options.served_model`` is set.
        options: the connection options, also as a mapping.
    """

    name = "http"

    def __init__(self, base_url: str, model: str, options: HTTPOptions | Mapping[str, Any] | None = None) -> None:
        self.model, self.options = model, coerce(HTTPOptions, options or {"base_url": base_url})
        self.base_url = base_url
        self._client: Client | None = None
        self._server: Server | None = None
        self._admission = Admission(self.options.max_num_seqs)
        self._slots: list[int] = []  # free slots of llama.cpp
        self._slot_of: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Load the tokenizer and detect the server.

        Raises:
            MissingExtraError: httpx is not installed.
            ConfigError: the URL is invalid, or the server rejects the key, does not report its context length, or does
                not take and return token ids.
            ModelError: there is no such tokenizer, or the server does not serve the model.
            EngineError: the server cannot be reached, or is not a supported server.
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
        """The kind of server: vllm, vllm-generate, sglang or llama.cpp. Raises EngineError if it is not open."""
        return self._running()[1].kind

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections; running turns raise ``EngineError``."""
        self._admission.fail_waiting(EngineError("the engine failed: it was closed"))
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
        reader, reused, retries, answers = TurnReader(request, self._admission.__len__), 0, Retries(client), 0
        completion = CompletionRequest(
            request.token_ids,
            request.max_tokens,
            request.sampling,
            request.seed,
            sorted(reader.checker.conditions.eos_ids),
            self._slot_of.get(request.trace_id, -1),
            later=self.options.server_priority and not continued,
            num_logprobs=request.num_logprobs,
        )
        dialect.check(completion)
        while not reader.over:
            known = len(reader.written)
            try:
                async with aclosing(
                    _answer(client, dialect, _continuation(completion, reader, answers), reader)
                ) as pieces:
                    async for piece in pieces:
                        if answers == 0:
                            reused = piece.cached or reused
                        if len(reader.written) > known:
                            retries.progress()
                        if tokens := reader.new_tokens():
                            yield tokens
            except Failure as failure:
                await retries.wait(failure)
            else:
                if not reader.over and len(reader.written) == known:
                    raise EngineError(f"the server ended a turn too early, after {known} tokens")
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


def _continuation(completion: CompletionRequest, reader: TurnReader, answers: int) -> CompletionRequest:
    """The request for the rest of a turn, after this number of answers with new ids."""
    if not answers:
        return completion
    return replace(
        completion,
        token_ids=[*completion.token_ids, *reader.written],
        max_tokens=completion.max_tokens - len(reader.written),
        seed=None if completion.seed is None else derive_seed(completion.seed, f"answer {answers}"),
    )


async def _answer(
    client: Client, dialect: Dialect, completion: CompletionRequest, reader: TurnReader
) -> AsyncGenerator[Piece, None]:
    """Read one answer into the reader; yields each piece after it was read."""
    seen, finished = 0, False
    async with aclosing(client.events(dialect.path, dialect.body(completion))) as events:
        async for event in events:
            try:
                piece = read(dialect, event, seen, completion.num_logprobs)
            except LostIdsError as lost:
                yield await _unstreamed(client, dialect, replace(completion, max_tokens=lost.count), reader, seen)
                return
            seen, finished = seen + len(piece.token_ids), finished or piece.finished
            if completion.num_logprobs is not None and piece.token_ids and piece.logprobs is None:
                raise ConfigError(f"the server at {client.url} gives no log-probabilities; remove --logprobs")
            over = reader.read(piece.token_ids, piece.logprobs)
            yield piece
            if over and not piece.finished:
                return  # closing the stream makes the server cancel the request
    if not finished:
        raise Failure(FailureKind.ERROR, f"the server at {client.url} broke off its answer")


async def _unstreamed(
    client: Client, dialect: Dialect, completion: CompletionRequest, reader: TurnReader, seen: int
) -> Piece:
    """Repeat a request without streaming: the same ids and seed give the same answer, with no ids omitted."""
    body = dialect.body(replace(completion, num_logprobs=None), stream=False)
    ids = read(dialect, await client.post(dialect.path, body), 0).token_ids
    if seen and ids[:seen] != reader.written[-seen:]:
        return Piece([])  # other rounding in another batch: continue after the known ids
    logprobs = None
    if completion.num_logprobs is not None:
        logprobs = [
            await _logprob(client, dialect, replace(completion, token_ids=[*completion.token_ids, *ids[:at]]), ids[at])
            for at in range(seen, len(ids))
        ]
    reader.read(ids[seen:], logprobs)
    return Piece(ids[seen:])


async def _logprob(client: Client, dialect: Dialect, completion: CompletionRequest, token_id: int) -> TokenLogprob:
    """The log-probability of an id that a stream omitted, after the ids of the request."""
    for number in _CANDIDATES:
        answer = await client.post(dialect.path, dialect.distribution(completion, number))
        top = (read(dialect, answer, 0, number).logprobs or [TokenLogprob(0.0)])[0].top
        found = next((value for candidate, value in top if candidate == token_id), None)
        if found is not None:
            return TokenLogprob(found, top[: completion.num_logprobs])
    raise EngineError(f"the server at {client.url} gives no log-probability for token {token_id}")
