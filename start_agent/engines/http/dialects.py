"""The requests and responses of each kind of server.

Requests set all sampling parameters, because servers have their own defaults for missing ones. All servers apply the
filters in ``Sampling``'s order, except SGLang, which applies min-p last.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from start_agent.engines.base import Sampling
from start_agent.engines.http.places import (
    Place,
    aligned,
    completion_places,
    generate_places,
    llama_places,
    sglang_places,
)
from start_agent.errors import ConfigError, EngineError
from start_agent.logprobs import MAX_LOGPROBS, TokenLogprob

USABLE = "vLLM (0.10.2 or later), SGLang or llama.cpp's llama-server"
"""The servers that take and return token ids."""

_VLLM_LARGEST_SEED = (1 << 63) - 1
_LLAMA_SEEDS = (1 << 32) - 1  # the largest 32-bit number means a random seed


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request to continue token ids.

    Attributes:
        token_ids: all ids so far.
        max_tokens: the most new tokens.
        sampling: how they are sampled.
        seed: None for unseeded sampling.
        eos_ids: ids that end the answer, if the server supports that.
        slot: llama.cpp's slot with the trace's cache.
        later: whether open traces should have priority.
        num_logprobs: as in ``TurnRequest``.
    """

    token_ids: Sequence[int]
    max_tokens: int
    sampling: Sampling
    seed: int | None
    eos_ids: Sequence[int] = ()
    slot: int = -1
    later: bool = False
    num_logprobs: int | None = None


class Piece(NamedTuple):
    """The content of one event: new ids, the number of cached prompt tokens (if given), and whether it is the last.

    ``logprobs`` has one entry for each id, if they were requested and the server gives them.
    """

    token_ids: list[int]
    cached: int | None = None
    finished: bool = False
    logprobs: list[TokenLogprob] | None = None


class NoIdsError(EngineError):
    """The server returns only text, no ids."""


class LostIdsError(Exception):
    """The stream omitted ids. ``count`` is the number of ids up to and including this event."""

    def __init__(self, count: int) -> None:
        super().__init__(f"the stream omitted some of its first {count} ids")
        self.count = count


class Dialect(abc.ABC):
    """One kind of server. ``served`` is the model's name on it."""

    kind: ClassVar[str]
    path: ClassVar[str]

    def __init__(self, served: str) -> None:
        self.served = served

    @abc.abstractmethod
    def body(self, request: CompletionRequest, *, stream: bool = True) -> dict[str, Any]:
        """The request body, for a stream of events or one response."""

    def check(self, request: CompletionRequest) -> None:  # noqa: B027 - most kinds support every request
        """Check a request. Raises ``ConfigError`` for what this server does not support."""

    def distribution(self, request: CompletionRequest, number: int) -> dict[str, Any]:
        """The request body for log-probabilities of the likeliest next tokens, for servers whose streams omit ids."""
        raise NotImplementedError(f"{self.kind} omits no ids")

    @abc.abstractmethod
    def parse(self, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
        """Read an event of a stream of which ``seen`` ids are known, or a complete response.

        ``num_logprobs`` is the requested number.

        Raises:
            NoIdsError: there are no ids.
            LostIdsError: the stream omitted ids.
        """


class VLLM(Dialect):
    """vLLM's ``/v1/completions``. With --enable-prompt-tokens-details it reports cached tokens at the end."""

    kind = "vllm"
    path = "/v1/completions"

    def body(self, request: CompletionRequest, *, stream: bool = True) -> dict[str, Any]:
        """See ``Dialect.body``."""
        return _vllm_body(self.served, request, stream=stream) | {
            "prompt": list(request.token_ids),
            "return_token_ids": True,
            # In log-probabilities, because several tokens may have the same text.
            **({} if request.num_logprobs is None else {"return_tokens_as_token_ids": True}),
            **_vllm_sampling(request, request.num_logprobs),
        }

    def parse(self, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
        """See ``Dialect.parse``."""
        usage = event.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        choices = event.get("choices") or []
        if not choices:
            return Piece([], cached)
        token_ids, finished = choices[0].get("token_ids"), choices[0].get("finish_reason") is not None
        ids = _checked([] if token_ids is None and finished else token_ids)
        given = choices[0].get("logprobs")
        logprobs = None if num_logprobs is None or given is None else aligned(ids, self.places(given), num_logprobs)
        return Piece(ids, cached, finished, logprobs)

    def places(self, logprobs: dict[str, Any]) -> Iterable[Place]:
        """Read the ``logprobs`` of a choice."""
        return completion_places(logprobs)


class VLLMGenerate(VLLM):
    """vLLM's ``/inference/v1/generate``, which takes and returns only ids, no text."""

    kind = "vllm-generate"
    path = "/inference/v1/generate"

    def body(self, request: CompletionRequest, *, stream: bool = True) -> dict[str, Any]:
        """See ``Dialect.body``."""
        return _vllm_body(self.served, request, stream=stream) | {
            "token_ids": list(request.token_ids),
            "sampling_params": _vllm_sampling(request, self._number(request.num_logprobs)) | {"detokenize": False},
        }

    def places(self, logprobs: dict[str, Any]) -> Iterable[Place]:
        """See ``VLLM.places``."""
        return generate_places(logprobs)

    @staticmethod
    def _number(num_logprobs: int | None) -> int | None:
        """The number to request: one more, because the sampled token counts even if it is not among the likeliest.

        Only at the maximum does it take the place of the last of the likeliest.
        """
        return num_logprobs and min(num_logprobs + 1, MAX_LOGPROBS)


class SGLang(Dialect):
    """SGLang's ``/generate``. Seeds work if it runs with --enable-deterministic-inference (``seeded``).

    Its log-probabilities are those after the temperature, unless SGLANG_RETURN_ORIGINAL_LOGPROB is set in its
    environment (``raw_logprobs``).
    """

    kind = "sglang"
    path = "/generate"

    def __init__(self, served: str, *, seeded: bool = False) -> None:
        super().__init__(served)
        self.seeded, self.raw_logprobs = seeded, False

    def check(self, request: CompletionRequest) -> None:
        """See ``Dialect.check``."""
        if request.num_logprobs is not None and not self.raw_logprobs and request.sampling.temperature not in (0, 1):
            raise ConfigError(
                "--logprobs: SGLang gives those after the temperature; use --temperature 0 or 1, or start it with "
                "SGLANG_RETURN_ORIGINAL_LOGPROB=1"
            )

    def body(self, request: CompletionRequest, *, stream: bool = True) -> dict[str, Any]:
        """See ``Dialect.body``."""
        sampling: dict[str, Any] = {
            "max_new_tokens": request.max_tokens,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "top_k": request.sampling.top_k or -1,
            "min_p": request.sampling.min_p,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "repetition_penalty": 1.0,
            "ignore_eos": True,  # this ignores stop ids, too: the stop checker ends the turn
            "no_stop_trim": True,
            "skip_special_tokens": False,
        }
        if self.seeded and request.seed is not None:
            sampling["sampling_seed"] = request.seed & 0x7FFFFFFF
        body = {"input_ids": list(request.token_ids), "sampling_params": sampling, "stream": stream}
        if request.num_logprobs is not None:
            body |= {"return_logprob": True, "logprob_start_len": -1, "top_logprobs_num": request.num_logprobs}
        return body

    def parse(self, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
        """See ``Dialect.parse``. Events have all ids so far or only new ones, depending on the server's options."""
        meta = event.get("meta_info") or {}
        ids, total = _checked(event.get("output_ids")), int(meta.get("completion_tokens", seen))
        if total - seen > len(ids):
            raise EngineError(f"the server sent {len(ids)} ids, but {total - seen} are new")
        new = ids[len(ids) - (total - seen) :]
        logprobs = None
        if num_logprobs is not None and "output_token_logprobs" in meta:
            logprobs = aligned(new, sglang_places(meta, len(new)), num_logprobs)
        return Piece(new, meta.get("cached_tokens"), meta.get("finish_reason") is not None, logprobs)


class LlamaCpp(Dialect):
    """llama.cpp's ``/completion``.

    Three peculiarities: it always stops at an end of sequence (its ``ignore_eos`` forbids the token instead); its
    stream omits the ids of an incomplete character except the last one; and it never gives log-probabilities for these.
    All are detected, and handled by further requests.

    Args:
        served: see ``Dialect``.
        plain_id: the id of a token that consists of complete characters.
    """

    kind = "llama.cpp"
    path = "/completion"

    def __init__(self, served: str, plain_id: int) -> None:
        super().__init__(served)
        self.plain_id = plain_id

    def body(self, request: CompletionRequest, *, stream: bool = True) -> dict[str, Any]:
        """See ``Dialect.body``."""
        sampling = request.sampling
        greedy = sampling.temperature == 0
        return {
            "model": self.served,
            "prompt": list(request.token_ids),
            "n_predict": request.max_tokens,
            # Samplers that are not in the list are off: penalties, dry, xtc, typical.
            "samplers": ["top_k", "temperature"] if greedy else ["temperature", "min_p", "top_k", "top_p"],
            "temperature": sampling.temperature,
            "top_k": 1 if greedy else sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "mirostat": 0,
            "min_keep": 0,
            "seed": -1 if request.seed is None else request.seed % _LLAMA_SEEDS,
            "ignore_eos": False,
            "logit_bias": [],
            "stop": [],
            "grammar": "",
            "n_probs": 0 if request.num_logprobs is None else max(request.num_logprobs, 1),
            "post_sampling_probs": False,
            "n_indent": 0,
            "t_max_predict_ms": 0,
            "cache_prompt": True,
            "return_tokens": True,
            "id_slot": request.slot,
            "stream": stream,
            "return_progress": stream,
        }

    def distribution(self, request: CompletionRequest, number: int) -> dict[str, Any]:
        """See ``Dialect.distribution``. A bias forces a plain token; the log-probabilities do not include the bias."""
        one = replace(request, max_tokens=1, sampling=Sampling(), num_logprobs=number)
        return self.body(one, stream=False) | {"logit_bias": [[self.plain_id, 1e9]]}

    def parse(self, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
        """See ``Dialect.parse``."""
        if progress := event.get("prompt_progress"):
            return Piece([], int(progress.get("cache", 0)))
        ids = _checked(event.get("tokens"))
        if event.get("tokens_predicted", 0) > seen + len(ids):
            raise LostIdsError(event["tokens_predicted"])
        given, logprobs = event.get("completion_probabilities"), None
        if num_logprobs is not None and given is not None and ids:
            logprobs = aligned(ids, llama_places(given), num_logprobs)
        return Piece(ids, None, bool(event.get("stop")), logprobs)


def _vllm_body(served: str, request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": served, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if request.later:
        body["priority"] = 1  # lower numbers go first
    return body


def _vllm_sampling(request: CompletionRequest, logprobs: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "top_k": request.sampling.top_k,
        "min_p": request.sampling.min_p,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(request.eos_ids),
        "ignore_eos": True,  # only the stop checker ends a turn
    }
    if logprobs is not None:
        body["logprobs"] = logprobs
    return body if request.seed is None else body | {"seed": request.seed & _VLLM_LARGEST_SEED}


def _checked(token_ids: object) -> list[int]:
    if not isinstance(token_ids, list) or not all(isinstance(token_id, int) for token_id in token_ids):
        raise NoIdsError("its responses have no token ids")
    return token_ids


def read(dialect: Dialect, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
    """``Dialect.parse``; raises ``EngineError`` if the event has an unknown form."""
    try:
        return dialect.parse(event, seen, num_logprobs)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise EngineError(f"the server returned an event that is not a completion of {dialect.kind}") from error
