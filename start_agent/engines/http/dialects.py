"""How each kind of server is asked to go on with token ids, and what its answers say.

Everything that bears on sampling is said: servers take what is left out from defaults of their own. All apply the
filters in ``Sampling``'s order, but for SGLang, which applies min-p last.
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
"""Servers that take and give token ids."""

_VLLM_LARGEST_SEED = (1 << 63) - 1
_LLAMA_SEEDS = (1 << 32) - 1  # the largest 32-bit number itself asks for a random seed


@dataclass(frozen=True, slots=True)
class Ask:
    """What a server is asked: to go on with these ids.

    Attributes:
        token_ids: all so far.
        max_tokens: at most so many more.
        sampling: how they are drawn.
        seed: None leaves it to chance.
        eos_ids: ids that end the answer, as far as the server can be told.
        slot: llama.cpp's slot that holds the trace's cache.
        later: open traces may go first.
        num_logprobs: of ``TurnRequest``.
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
    """What one event says: new ids, how many of the prompt's were cached (where it says so), whether it is the last.

    ``logprobs``, one for each id, only where the server was asked for them and gives them.
    """

    token_ids: list[int]
    cached: int | None = None
    finished: bool = False
    logprobs: list[TokenLogprob] | None = None


class NoIdsError(EngineError):
    """The server answers, but with text only."""


class LostIdsError(Exception):
    """The stream left ids out. ``count`` is how many the answer has up to and including this event."""

    def __init__(self, count: int) -> None:
        super().__init__(f"the stream left out some of its first {count} ids")
        self.count = count


class Dialect(abc.ABC):
    """One kind of server. ``served`` is what it calls the model."""

    kind: ClassVar[str]
    path: ClassVar[str]

    def __init__(self, served: str) -> None:
        self.served = served

    @abc.abstractmethod
    def body(self, ask: Ask, *, stream: bool = True) -> dict[str, Any]:
        """The request, for a stream of events or for one answer."""

    def check(self, ask: Ask) -> None:  # noqa: B027 - most kinds answer whatever is asked
        """Refuse what this server does not answer. Raises ``ConfigError``."""

    def distribution(self, ask: Ask, number: int) -> dict[str, Any]:
        """The request for the log-probabilities of the likeliest tokens behind the ids, for one answer: of kinds whose
        streams leave ids out."""
        raise NotImplementedError(f"{self.kind} leaves no ids out")

    @abc.abstractmethod
    def parse(self, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
        """Read an event of an answer of which ``seen`` ids are known, or a whole answer.

        ``num_logprobs`` is what was asked for.

        Raises:
            NoIdsError: there is text where ids should be.
            LostIdsError: the stream left ids out.
        """


class VLLM(Dialect):
    """vLLM's ``/v1/completions``. It says what was cached at the end, if run with --enable-prompt-tokens-details."""

    kind = "vllm"
    path = "/v1/completions"

    def body(self, ask: Ask, *, stream: bool = True) -> dict[str, Any]:
        """See ``Dialect.body``."""
        return _vllm_body(self.served, ask, stream=stream) | {
            "prompt": list(ask.token_ids),
            "return_token_ids": True,
            # In log-probabilities, where the texts of several tokens may be the same.
            **({} if ask.num_logprobs is None else {"return_tokens_as_token_ids": True}),
            **_vllm_sampling(ask, ask.num_logprobs),
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
        said = choices[0].get("logprobs")
        logprobs = None if num_logprobs is None or said is None else aligned(ids, self.places(said), num_logprobs)
        return Piece(ids, cached, finished, logprobs)

    def places(self, logprobs: dict[str, Any]) -> Iterable[Place]:
        """What a choice's ``logprobs`` say."""
        return completion_places(logprobs)


class VLLMGenerate(VLLM):
    """vLLM's ``/inference/v1/generate``: ids in, ids out, no text at all."""

    kind = "vllm-generate"
    path = "/inference/v1/generate"

    def body(self, ask: Ask, *, stream: bool = True) -> dict[str, Any]:
        """See ``Dialect.body``."""
        return _vllm_body(self.served, ask, stream=stream) | {
            "token_ids": list(ask.token_ids),
            "sampling_params": _vllm_sampling(ask, self._number(ask.num_logprobs)) | {"detokenize": False},
        }

    def places(self, logprobs: dict[str, Any]) -> Iterable[Place]:
        """See ``VLLM.places``."""
        return generate_places(logprobs)

    @staticmethod
    def _number(num_logprobs: int | None) -> int | None:
        """How many to ask for: the sampled token counts as one of them, though it may not be among the likeliest.

        With the most that can be asked for, and only there, it so takes the place of the last of them.
        """
        return num_logprobs and min(num_logprobs + 1, MAX_LOGPROBS)


class SGLang(Dialect):
    """SGLang's ``/generate``. Seeds hold where it runs with --enable-deterministic-inference (``seeded``).

    Its log-probabilities are those after the temperature, unless SGLANG_RETURN_ORIGINAL_LOGPROB is set in its
    environment (``raw_logprobs``).
    """

    kind = "sglang"
    path = "/generate"

    def __init__(self, served: str, *, seeded: bool = False) -> None:
        super().__init__(served)
        self.seeded, self.raw_logprobs = seeded, False

    def check(self, ask: Ask) -> None:
        """See ``Dialect.check``."""
        if ask.num_logprobs is not None and not self.raw_logprobs and ask.sampling.temperature not in (0, 1):
            raise ConfigError(
                "--logprobs: SGLang gives them after the temperature: use --temperature 0 or 1, or start it with "
                "SGLANG_RETURN_ORIGINAL_LOGPROB=1"
            )

    def body(self, ask: Ask, *, stream: bool = True) -> dict[str, Any]:
        """See ``Dialect.body``."""
        sampling: dict[str, Any] = {
            "max_new_tokens": ask.max_tokens,
            "temperature": ask.sampling.temperature,
            "top_p": ask.sampling.top_p,
            "top_k": ask.sampling.top_k or -1,
            "min_p": ask.sampling.min_p,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "repetition_penalty": 1.0,
            "ignore_eos": True,  # which makes it ignore stop ids too: the stop checker ends the turn
            "no_stop_trim": True,
            "skip_special_tokens": False,
        }
        if self.seeded and ask.seed is not None:
            sampling["sampling_seed"] = ask.seed & 0x7FFFFFFF
        body = {"input_ids": list(ask.token_ids), "sampling_params": sampling, "stream": stream}
        if ask.num_logprobs is not None:
            body |= {"return_logprob": True, "logprob_start_len": -1, "top_logprobs_num": ask.num_logprobs}
        return body

    def parse(self, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
        """See ``Dialect.parse``. Events hold all ids so far, or the new ones only: the server's options decide."""
        meta = event.get("meta_info") or {}
        ids, total = _checked(event.get("output_ids")), int(meta.get("completion_tokens", seen))
        if total - seen > len(ids):
            raise EngineError(f"the server sent {len(ids)} ids where {total - seen} are new")
        new = ids[len(ids) - (total - seen) :]
        logprobs = None
        if num_logprobs is not None and "output_token_logprobs" in meta:
            logprobs = aligned(new, sglang_places(meta, len(new)), num_logprobs)
        return Piece(new, meta.get("cached_tokens"), meta.get("finish_reason") is not None, logprobs)


class LlamaCpp(Dialect):
    """llama.cpp's ``/completion``.

    Three habits of its own: it always stops at an end of sequence (its ``ignore_eos`` forbids the token instead); its
    stream leaves out the ids of a character that is not whole yet, all but the last; and of those it never gives
    log-probabilities. All can be seen, and asking again makes up for them.

    Args:
        served: see ``Dialect``.
        plain_id: of a token that is a character, or some.
    """

    kind = "llama.cpp"
    path = "/completion"

    def __init__(self, served: str, plain_id: int) -> None:
        super().__init__(served)
        self.plain_id = plain_id

    def body(self, ask: Ask, *, stream: bool = True) -> dict[str, Any]:
        """See ``Dialect.body``."""
        sampling = ask.sampling
        greedy = sampling.temperature == 0
        return {
            "model": self.served,
            "prompt": list(ask.token_ids),
            "n_predict": ask.max_tokens,
            # What is not in the list does not take place: penalties, dry, xtc, typical.
            "samplers": ["top_k", "temperature"] if greedy else ["temperature", "min_p", "top_k", "top_p"],
            "temperature": sampling.temperature,
            "top_k": 1 if greedy else sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "mirostat": 0,
            "min_keep": 0,
            "seed": -1 if ask.seed is None else ask.seed % _LLAMA_SEEDS,
            "ignore_eos": False,
            "logit_bias": [],
            "stop": [],
            "grammar": "",
            "n_probs": 0 if ask.num_logprobs is None else max(ask.num_logprobs, 1),
            "post_sampling_probs": False,
            "n_indent": 0,
            "t_max_predict_ms": 0,
            "cache_prompt": True,
            "return_tokens": True,
            "id_slot": ask.slot,
            "stream": stream,
            "return_progress": stream,
        }

    def distribution(self, ask: Ask, number: int) -> dict[str, Any]:
        """See ``Dialect.distribution``. A token with which they are given is sampled; they are those without bias."""
        one = replace(ask, max_tokens=1, sampling=Sampling(), num_logprobs=number)
        return self.body(one, stream=False) | {"logit_bias": [[self.plain_id, 1e9]]}

    def parse(self, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
        """See ``Dialect.parse``."""
        if progress := event.get("prompt_progress"):
            return Piece([], int(progress.get("cache", 0)))
        ids = _checked(event.get("tokens"))
        if event.get("tokens_predicted", 0) > seen + len(ids):
            raise LostIdsError(event["tokens_predicted"])
        said, logprobs = event.get("completion_probabilities"), None
        if num_logprobs is not None and said is not None and ids:
            logprobs = aligned(ids, llama_places(said), num_logprobs)
        return Piece(ids, None, bool(event.get("stop")), logprobs)


def _vllm_body(served: str, ask: Ask, *, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": served, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if ask.later:
        body["priority"] = 1  # lower goes first
    return body


def _vllm_sampling(ask: Ask, logprobs: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "max_tokens": ask.max_tokens,
        "temperature": ask.sampling.temperature,
        "top_p": ask.sampling.top_p,
        "top_k": ask.sampling.top_k,
        "min_p": ask.sampling.min_p,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(ask.eos_ids),
        "ignore_eos": True,  # only what the stop checker finds ends a turn
    }
    if logprobs is not None:
        body["logprobs"] = logprobs
    return body if ask.seed is None else body | {"seed": ask.seed & _VLLM_LARGEST_SEED}


def _checked(token_ids: object) -> list[int]:
    if not isinstance(token_ids, list) or not all(isinstance(token_id, int) for token_id in token_ids):
        raise NoIdsError("its answers have no token ids")
    return token_ids


def read(dialect: Dialect, event: dict[str, Any], seen: int, num_logprobs: int | None = None) -> Piece:
    """``Dialect.parse``; raises ``EngineError`` besides, where the event is of no known form."""
    try:
        return dialect.parse(event, seen, num_logprobs)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise EngineError(f"the server answers with something that is no completion of {dialect.kind}'s") from error
