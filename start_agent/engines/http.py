"""A model behind a running server: anything with ``/v1/completions`` that takes and gives token ids.

``vllm serve MODEL`` is such a server. Ids go in (``prompt`` is a list of them) and come back as they are sampled
(``return_token_ids``, streamed); no text is decoded or encoded on the way. The request's watch reads them and decides
the stop; the connection is then closed, which makes the server abort the request.

**Retries.** A connection that fails or breaks, a 429 and a 5xx are tried again, after pauses that double. Each try
begins the turn anew with the same seed. Where a listener has heard a part of the turn already, the new try must say
the same again before it goes on; a server that answers differently (batches of other sizes round differently) is an
``EngineError``: what was told is never taken back.

**What is cached** the server tells only at the end of an answer, and only where it was started with
``--enable-prompt-tokens-details``. A turn that the watch stopped counts its whole prompt as fed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent.config import Runtime
from start_agent.engines.admission import Admission
from start_agent.engines.base import REVISION, Engine, Turn, TurnRequest
from start_agent.engines.reading import TurnReader
from start_agent.errors import ConfigError, EngineError, MissingExtraError, ModelError
from start_agent.tokenizer import Tokenizer, first_line

if TYPE_CHECKING:
    import httpx

API_KEY = "START_AGENT_API_KEY"
"""The environment variable that holds the server's key; it is sent to the server and nowhere else."""

_LARGEST_SEED = (1 << 63) - 1
_LONGEST_PAUSE = 30.0


class HTTPOptions(BaseModel):
    """How a server is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: Runtime[str] = Field("http://localhost:8000/v1", description="of the server, as far as /v1")
    served_model: Runtime[str | None] = Field(None, description="the model's name at the server (default: --model)")
    revision: str | None = Field(None, description=REVISION)
    context_length: int | None = Field(None, ge=2, description="tokens in a trace; the server's own limit where unset")
    max_batch: Runtime[int] = Field(256, ge=1, description="traces that are open at once; others wait")
    max_connections: Runtime[int] = Field(256, ge=1, description="requests that are under way at once")
    http_retries: Runtime[int] = Field(5, ge=0, description="retries of a turn after a failure on the way")
    retry_pause: Runtime[float] = Field(
        0.5, ge=0, description="seconds before the first retry; each later pause doubles"
    )
    connect_timeout: Runtime[float] = Field(10.0, gt=0, description="seconds to wait for a connection")
    read_timeout: Runtime[float] = Field(
        600.0, gt=0, description="seconds to wait for the next token, in the server's queue too"
    )
    server_priority: Runtime[bool] = Field(
        False, description="ask for open traces to go first; the server must run with --scheduling-policy priority"
    )


class _RetryError(Exception):
    """A failure that another try may mend."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause  # as the server wishes, in seconds


class HTTPEngine(Engine):
    """See the module. The server is asked what it serves on entering ``async with``.

    Args:
        base_url: of the server, with or without its ``/v1``.
        model: a name of the hub, or a local folder: whose tokenizer is used, and what the server calls the model
            unless ``options.served_model`` says otherwise.
        options: how the server is asked.
    """

    name = "http"

    def __init__(self, base_url: str, model: str, options: HTTPOptions | None = None) -> None:
        self.model, self.options = model, options or HTTPOptions(base_url=base_url)
        self.base_url = base_url.rstrip("/").removesuffix("/v1") + "/v1"
        self._client: httpx.AsyncClient | None = None
        self._served = ""
        self._admission = Admission(self.options.max_batch)

    async def __aenter__(self) -> Self:
        """Load the tokenizer and ask the server for its models.

        Raises:
            MissingExtraError: httpx is not installed.
            ConfigError: the address is none, the server refuses the key, or it does not say how long a context is.
            ModelError: there is no such tokenizer, or the server does not serve the model.
            EngineError: the server cannot be reached, or is none of this kind.
        """
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError("httpx", "http") from error
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"--base-url: {first_line(error)}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"--base-url: {self.base_url!r} is no address such as http://localhost:8000/v1")
        self.tokenizer = await asyncio.to_thread(Tokenizer.from_pretrained, self.model, revision=self.options.revision)
        options, key = self.options, os.environ.get(API_KEY)
        self._client = httpx.AsyncClient(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(options.read_timeout, connect=options.connect_timeout, pool=None),
            limits=httpx.Limits(
                max_connections=options.max_connections, max_keepalive_connections=options.max_connections
            ),
        )
        try:
            self._take(await self._models())
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections; turns under way end with ``EngineError``."""
        self._admission.refuse(EngineError("the engine failed: it was closed"))
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def stream(self, request: TurnRequest) -> AsyncGenerator[tuple[int, ...] | Turn, None]:
        """See ``Engine.stream``."""
        async with aclosing(self._turn(request, live=True)) as items:
            async for item in items:
                yield item

    async def generate(self, request: TurnRequest) -> Turn:
        """See ``Engine.generate``. Nobody listens: a retry may say something else."""
        async with aclosing(self._turn(request, live=False)) as items:
            async for item in items:
                if isinstance(item, Turn):
                    return item
        raise AssertionError("a turn ended without its Turn")

    async def release(self, trace_id: str) -> None:
        """See ``Engine.release``."""
        self._admission.leave(trace_id)

    async def _turn(self, request: TurnRequest, *, live: bool) -> AsyncGenerator[tuple[int, ...] | Turn, None]:
        self.check(request)
        self._running()
        begun = time.perf_counter()
        continued = await self._admission.enter(request.trace_id, len(request.token_ids) + request.max_tokens)
        queued = time.perf_counter() - begun
        told: list[int] = []
        for tries in range(self.options.http_retries + 1):
            reader, reused, said = TurnReader(request), 0, list[int]()
            try:
                async with aclosing(self._answer(request, reader, continued=continued)) as answer:
                    async for cached in answer:
                        reused = cached or reused
                        said += reader.news() if live else ()
                        common = min(len(said), len(told))
                        if said[:common] != told[:common]:
                            raise EngineError("the server's answer broke off, and asked again it answered differently")
                        if fresh := tuple(said[len(told) :]):
                            told += fresh
                            yield fresh
            except _RetryError as failure:
                if tries == self.options.http_retries:
                    raise EngineError(f"{failure}; tried {tries + 1} times") from failure
                await asyncio.sleep(self._pause(tries, failure))
                continue
            yield reader.turn(prompt=len(request.token_ids), reused=reused, queued=queued)
            return

    async def _answer(self, request: TurnRequest, reader: TurnReader, *, continued: bool) -> AsyncGenerator[int, None]:
        """One try: fills the reader, and yields after each run of ids (how many were cached, once that is known)."""
        import httpx

        client = self._running()
        ended = False
        try:
            body = self._body(request, reader, continued=continued)
            async with client.stream("POST", "/completions", json=body) as response:
                await self._refuse(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data:"):
                        if line and not line.startswith((":", "event:", "id:", "retry:")):
                            raise EngineError(f"{self.base_url} does not answer with a stream of events")
                        continue
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        break
                    cached, token_ids, finished = self._parse(data)
                    ended = ended or finished
                    if reader.read(token_ids) and not finished:
                        yield cached
                        return  # closing the response makes the server abort the request
                    yield cached
        except httpx.TransportError as error:
            if self._client is None:
                raise EngineError("the engine failed: it was closed") from error
            raise _RetryError(f"the server at {self.base_url} failed: {_named(error)}") from error
        if not reader.over:
            if ended:
                raise EngineError(f"the server ended a turn early, after {len(reader.written)} tokens")
            raise _RetryError(f"the server at {self.base_url} broke off its answer")

    def _parse(self, data: str) -> tuple[int, list[int], bool]:
        """An event: tokens that were cached (0 where it does not say), new ids, and whether the answer ended."""
        try:
            event = json.loads(data)
            if error := event.get("error"):
                message, code = str(error.get("message", error)), error.get("code", 500)
                if isinstance(code, int) and code < 500 and code != 429:
                    raise EngineError(f"the server refused a turn: {first_line(ValueError(message))}")
                raise _RetryError(f"the server at {self.base_url} failed: {first_line(ValueError(message))}")
            usage = event.get("usage") or {}
            cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
            choices = event.get("choices") or []
            if not choices:
                return cached, [], False
            token_ids, finished = choices[0].get("token_ids"), choices[0].get("finish_reason") is not None
        except (ValueError, AttributeError, TypeError, IndexError) as error:
            raise EngineError(f"{self.base_url} answers with something that is no completion") from error
        if token_ids is None and finished:
            token_ids = []
        if not isinstance(token_ids, list) or not all(isinstance(token_id, int) for token_id in token_ids):
            raise EngineError(
                f"the answers of {self.base_url} have no token ids: it must know `return_token_ids`, as vLLM does"
            )
        return cached, token_ids, finished

    def _body(self, request: TurnRequest, reader: TurnReader, *, continued: bool) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {  # everything is said: servers take what is left out from the model's own defaults
            "model": self._served,
            "prompt": list(request.token_ids),
            "max_tokens": request.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": 1.0,
            "seed": None if request.seed is None else request.seed & _LARGEST_SEED,
            "stop_token_ids": sorted(reader.watch.armed.eos_ids),
            "ignore_eos": True,  # only what the watch is armed with ends a turn
            "return_token_ids": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.options.server_priority and not continued:
            body["priority"] = 1  # lower goes first
        return body

    async def _models(self) -> list[dict[str, Any]]:
        import httpx

        for tries in range(self.options.http_retries + 1):
            try:
                response = await self._running().get("/models")
                await self._refuse(response)
                models = response.json()["data"]
                return [model for model in models if isinstance(model["id"], str)]
            except (ValueError, KeyError, TypeError) as error:
                raise EngineError(f"{self.base_url} is no server of models: it has no list at /models") from error
            except (httpx.TransportError, _RetryError) as error:
                failure = error if isinstance(error, _RetryError) else _RetryError(_named(error))
                if tries == self.options.http_retries:
                    raise EngineError(f"cannot reach the server at {self.base_url}: {failure}") from error
                await asyncio.sleep(self._pause(tries, failure))
        raise AssertionError("unreachable")

    def _take(self, models: list[dict[str, Any]]) -> None:
        """Choose the model among those that the server serves."""
        wanted = self.options.served_model or self.model
        found = next((model for model in models if wanted in (model["id"], model.get("root"))), None)
        if found is None:
            names = ", ".join(model["id"] for model in models) or "nothing"
            raise ModelError(f"{self.base_url} does not serve {wanted!r} but {names}: name one with --served-model")
        self._served = found["id"]
        limits = [limit for limit in (self.options.context_length, found.get("max_model_len")) if limit]
        if not limits:
            raise ConfigError(f"{self.base_url} does not say how long its context is: give --context-length")
        self.context_length = min(limits)

    async def _refuse(self, response: httpx.Response) -> None:
        """Raise for an answer that is an error."""
        if response.is_success:
            return
        await response.aread()
        status, reason = response.status_code, _message(response)
        if status == 429 or status >= 500:
            raise _RetryError(f"the server at {self.base_url} answered {status}: {reason}", _seconds(response))
        if status in (401, 403):
            raise ConfigError(f"the server at {self.base_url} wants another key: set {API_KEY} in the environment")
        if status == 404 and self._served:
            raise ModelError(f"the server at {self.base_url} has no completions for {self._served!r}: {reason}")
        raise EngineError(f"the server at {self.base_url} answered {status}: {reason}")

    def _running(self) -> httpx.AsyncClient:
        if self._client is None:
            raise EngineError("the engine is not running: use it inside `async with`")
        return self._client

    def _pause(self, tries: int, failure: _RetryError) -> float:
        """Seconds until the next try; a part is left to chance, so that many traces do not come back at once."""
        pause = float(self.options.retry_pause * 2**tries * random.uniform(0.5, 1.0))
        return min(_LONGEST_PAUSE, max(pause, failure.pause or 0.0))


def _named(error: Exception) -> str:
    """Some of httpx's errors have no text."""
    return first_line(error) if str(error).strip() else type(error).__name__


def _message(response: httpx.Response) -> str:
    """What the server says of its refusal, in one line."""
    try:
        body = response.json()
        text = str(body.get("error", body).get("message", body))
    except (ValueError, AttributeError):
        text = response.text or response.reason_phrase
    return " ".join(text.split())[:300]


def _seconds(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
