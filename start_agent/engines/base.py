"""The interface of an engine: a turn takes ids, sampling settings and a stop checker, and yields new ids.

An engine knows nothing about tools, hints or traces. The caller owns the list of ids and passes all of it in each turn;
``trace_id`` only tells the engine which cached state it may reuse.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from start_agent.errors import ConfigError, PromptError
from start_agent.logprobs import MAX_LOGPROBS, TokenLogprob
from start_agent.models import instruction_for
from start_agent.tokens.stopping import StopChecker, StopKind
from start_agent.tokens.tokenizer import Tokenizer

THREADS = (
    "CPU threads of the model's process; if unset, transformers uses one per 10 million parameters, up to torch's "
    "default, and vLLM all cores but one in eight. Other processes stay off vLLM's cores, unless OMP_NUM_THREADS is "
    "set, which is then the default: set it if several runs share a machine (Ray sets it to 1 in its workers)"
)
"""The help of an option that two engines share."""

REVISION = "branch, tag or commit of a model on the Hub; its main branch if unset"
"""The help of an option that all engines share."""

ENGINE_ARG = (
    "argument without its own option: of vLLM's AsyncEngineArgs, of transformers' from_pretrained or of the "
    "model's configuration (quantization=fp8, 'hf_overrides={...}')"
)
"""The help of an option that two engines share."""

KV_CACHE = (
    "size of the KV cache in GiB; if unset, transformers takes half of the free memory on a CPU and 85% on a GPU, vLLM "
    "takes 2 GiB on a CPU and otherwise what --gpu-memory-utilization leaves"
)
"""The help of an option that two engines share."""

PREFIX_CACHING = (
    "reuse the KV of prefixes that traces share, and with vLLM of a trace's own earlier turns; turn it off only for "
    "measurements"
)
"""The help of an option that two engines share."""


class Sampling(BaseModel):
    """How the next token is sampled. The filters apply in the order temperature, min-p, top-k, top-p."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(0.0, ge=0.0, description="0 decodes greedily; START samples at 0.6")
    top_p: float = Field(
        1.0, gt=0.0, le=1.0, description="sample from the smallest set of tokens with this probability"
    )
    top_k: int = Field(0, ge=0, description="sample from the k likeliest tokens; 0 for all")
    min_p: float = Field(
        0.0, ge=0.0, le=1.0, description="sample from tokens at least this likely, relative to the likeliest"
    )

    def as_options(self) -> dict[str, float | int]:
        """Options that give this sampling whatever the model's own settings are: all fields, or only temperature 0."""
        return self.model_dump(mode="json") if self.temperature else {"temperature": 0.0}


class SamplingOptions(BaseModel):
    """The user's sampling options; unset ones are taken from the model's ``generation_config.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float | None = Field(
        None, ge=0.0, description="0 decodes greedily; if unset, the value in generation_config.json, otherwise 0"
    )
    top_p: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="sample from the smallest set of tokens with this probability; the model's value if unset",
    )
    top_k: int | None = Field(
        None, ge=0, description="sample from the k likeliest tokens; 0 for all; the model's value if unset"
    )
    min_p: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="sample from tokens at least this likely, relative to the likeliest; the model's value if unset",
    )

    def resolved(self, generation: Mapping[str, Any]) -> Sampling:
        """The settings for a model with this ``generation_config.json``."""
        return model_sampling(generation).model_copy(update=self.model_dump(exclude_none=True))


_NOT_APPLIED = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "typical_p": 1.0, "epsilon_cutoff": 0.0}
_NOT_APPLIED |= {"eta_cutoff": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def model_sampling(generation: Mapping[str, Any]) -> Sampling:
    """The sampling settings of a model's ``generation_config.json``; greedy if it has none.

    Values that are out of range are ignored.
    """
    given = {}
    for name in Sampling.model_fields:
        value = generation.get(name)
        with suppress(ValidationError):
            if value is not None:
                Sampling.model_validate({name: value})
                given[name] = value
    sampled = generation.get("do_sample")
    if sampled is False or not (sampled or given):
        return Sampling()
    return Sampling.model_validate({"temperature": 1.0} | given)


def not_applied(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model's ``generation_config.json`` that our engines do not support."""
    return {name: generation[name] for name, off in _NOT_APPLIED.items() if generation.get(name) not in (None, off)}


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """One turn of generation.

    Attributes:
        trace_id: identifies the trace in all its turns; the engine may keep its KV cache under this id.
        token_ids: all ids of the trace so far, including the prompt.
        sampling: how tokens are sampled.
        seed: the seed of this turn; the same ids, settings and seed give the same tokens. None for unseeded sampling.
        max_tokens: the most new tokens, at least 1; together with ``token_ids`` within the engine's context length.
        new_checker: creates the stop checker that ends the turn; an engine that retries creates another.
        num_logprobs: None for no log-probabilities, 0 for those of the sampled tokens, k for those of the k likeliest
            tokens as well, at most ``MAX_LOGPROBS`` (vLLM's ``logprobs``). They are natural logarithms of the model's
            own distribution, before temperature and filters (vLLM's ``raw_logprobs``).
    """

    trace_id: str
    token_ids: Sequence[int]
    sampling: Sampling
    seed: int | None
    max_tokens: int
    new_checker: Callable[[], StopChecker]
    num_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of a turn for the engine.

    Attributes:
        cached_tokens: prompt tokens whose KV was in the cache.
        computed_tokens: tokens whose KV was computed (prefill and decode).
        generated_tokens: sampled tokens, including those that the trim dropped.
        queue_seconds: how long the turn waited for admission.
        preempted: how often the engine dropped the turn's KV to make room for others, as far as it knows.
        recomputed_tokens: the part of ``computed_tokens`` that was computed again after preemptions.
    """

    cached_tokens: int
    computed_tokens: int
    generated_tokens: int
    queue_seconds: float = 0.0
    preempted: int = 0
    recomputed_tokens: int = 0


class Tokens(NamedTuple):
    """A run of new tokens, with one entry in ``logprobs`` for each if the request asks for log-probabilities."""

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The result of a turn: the tokens that are kept by the trim rule, and why it ended.

    ``logprobs`` has one entry for each of these tokens if the request asks for log-probabilities.
    """

    token_ids: tuple[int, ...]
    stop: StopKind
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] | None = None


_PAUSE, _LONGEST_PAUSE = 0.002, 0.1  # seconds


def stream_pause(streams: int) -> float:
    """How long an engine may hold back new tokens after the latest run of their turn, in seconds: at most 0.1.

    The more turns are streamed at once, the longer: what a run costs its listeners is then shared by several tokens,
    and the model is not slowed down by those who listen. The first and the last tokens of a turn never wait.

    Args:
        streams: the number of turns that are streamed at once.
    """
    return min(_LONGEST_PAUSE, _PAUSE * max(0, streams - 1))


async def final_turn(items: AsyncGenerator[Tokens | Turn, None]) -> Turn:
    """The result at the end of a stream."""
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Turn):
                return item
    raise AssertionError("an engine's stream ended without a turn")


class Engine(abc.ABC):
    """The interface of an engine; ``tests/contract`` tests each one. Use it in ``async with``."""

    name: str
    model: str
    tokenizer: Tokenizer
    context_length: int

    @property
    def instruction(self) -> str:
        """The default instruction that follows each question to its model."""
        return instruction_for(self.model)

    @property
    def failure(self) -> str | None:
        """Why the engine can never run a turn again, in one line; None if a later turn may succeed."""
        return None

    async def __aenter__(self) -> Self:
        """Start the engine. Raises ``InputError`` for problems that the user can fix, otherwise ``EngineError``."""
        return self

    async def __aexit__(  # noqa: B027 - an engine without resources has nothing to close
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release all resources; running turns are cancelled."""

    @abc.abstractmethod
    def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """Run a turn: yields runs of new tokens as they become final, and last one ``Turn`` with all of them.

        The runs concatenated are ``Turn.token_ids``: tokens that a later token may still remove (a marker that is
        replaced, a lookahead token) are held back. Closing the iterator early cancels the turn.

        Raises:
            PromptError: there are no ids, or the ids and ``max_tokens`` do not fit the context.
            ConfigError: the engine does not support the sampling settings or the log-probabilities.
            EngineError: the engine failed; the turn may be retried with the same request.
        """

    async def generate(self, request: TurnRequest) -> Turn:
        """Run a turn and return only its result. Raises what ``stream`` raises."""
        return await final_turn(self.stream(request))

    async def release(self, trace_id: str) -> None:  # noqa: B027 - an engine without a cache has nothing to do
        """Drop what is kept for a trace. Unknown ids are ignored."""

    def check(self, request: TurnRequest) -> None:
        """Check a request, as ``stream`` must. Raises ``PromptError`` or ``ConfigError`` if it cannot be run."""
        if not request.token_ids:
            raise PromptError("the prompt has no tokens")
        if request.max_tokens < 1:
            raise PromptError(f"max_tokens must be at least 1, got {request.max_tokens}")
        if len(request.token_ids) + request.max_tokens > self.context_length:
            raise PromptError(
                f"{len(request.token_ids)} tokens and {request.max_tokens} new ones do not fit the context of "
                f"{self.context_length}; shorten the question or lower --max-tokens"
            )
        if request.num_logprobs is not None and not 0 <= request.num_logprobs <= MAX_LOGPROBS:
            raise ConfigError(f"--logprobs must be 0 to {MAX_LOGPROBS}, got {request.num_logprobs}")
