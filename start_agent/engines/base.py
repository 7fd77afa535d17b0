"""What every engine is: a turn takes ids, sampling settings and a stop checker; it yields new ids and why it ended.

An engine knows nothing of tools, hints or traces. The caller owns the list of ids and hands in the whole of it each
turn; ``trace_id`` only tells the engine which cached state may be of use.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from start_agent.errors import ConfigError, PromptError
from start_agent.logprobs import MAX_LOGPROBS, TokenLogprob
from start_agent.models import instruction_for
from start_agent.tokens.stopping import StopChecker, StopKind
from start_agent.tokens.tokenizer import Tokenizer

THREADS = (
    "CPU threads of the model's process; unset, for transformers one per 10 million parameters, up to torch's own "
    "choice, for vLLM all cores but one in eight. All else keeps off vLLM's cores, unless OMP_NUM_THREADS is set, "
    "which then is the default: set it where several runs share a machine (Ray does in its workers, to 1)"
)
"""The help of an option that two engines have in common."""

REVISION = "branch, tag or commit of a model of the hub; unset, its main branch"
"""The help of an option that all engines have in common."""

ENGINE_ARG = (
    "argument that has no option here: of vLLM's AsyncEngineArgs, of transformers' from_pretrained or of the model's "
    "configuration (quantization=fp8, 'hf_overrides={...}')"
)
"""The same."""

KV_CACHE = (
    "size of the KV cache; unset, for transformers half of the memory that is free on a CPU and 85% on a GPU, for "
    "vLLM 2 on a CPU and elsewhere what --gpu-memory-utilization leaves"
)
"""The same."""

PREFIX_CACHING = (
    "reuse the KV of tokens that earlier traces began with, and with vLLM of a trace's own earlier turns; off only to "
    "measure"
)
"""The same."""


class Sampling(BaseModel):
    """How the next token is drawn. The filters apply in the order temperature, min-p, top-k, top-p."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(0.0, ge=0.0, description="0 decodes greedily; START samples at 0.6")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="smallest set of tokens with this much probability")
    top_k: int = Field(0, ge=0, description="the k likeliest tokens only; 0 takes all")
    min_p: float = Field(0.0, ge=0.0, le=1.0, description="tokens at least this likely, relative to the likeliest")

    def as_options(self) -> dict[str, float | int]:
        """The options that say so, whatever the model's own sampling: all of them, or that it is greedy."""
        return self.model_dump(mode="json") if self.temperature else {"temperature": 0.0}


class SamplingOptions(BaseModel):
    """What the user says of sampling; what is unset is taken from the model's ``generation_config.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float | None = Field(
        None, ge=0.0, description="0 decodes greedily; unset, as the model's generation_config.json says, else greedily"
    )
    top_p: float | None = Field(
        None, gt=0.0, le=1.0, description="smallest set of tokens with this much probability; unset, the model's"
    )
    top_k: int | None = Field(None, ge=0, description="the k likeliest tokens only; 0 takes all; unset, the model's")
    min_p: float | None = Field(
        None, ge=0.0, le=1.0, description="tokens at least this likely, relative to the likeliest; unset, the model's"
    )

    def resolved(self, generation: Mapping[str, Any]) -> Sampling:
        """The settings for a model with this ``generation_config.json``."""
        return model_sampling(generation).model_copy(update=self.model_dump(exclude_none=True))


_NOT_APPLIED = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "typical_p": 1.0, "epsilon_cutoff": 0.0}
_NOT_APPLIED |= {"eta_cutoff": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def model_sampling(generation: Mapping[str, Any]) -> Sampling:
    """The sampling that a model's ``generation_config.json`` asks for; greedy where it asks for none.

    A value that is out of range says nothing.
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
    """What a model's ``generation_config.json`` asks for and no engine of ours does."""
    return {name: generation[name] for name, off in _NOT_APPLIED.items() if generation.get(name) not in (None, off)}


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """One turn of generation.

    Attributes:
        trace_id: names the trace across its turns; the engine may keep its KV cache under this name.
        token_ids: everything so far, prompt included.
        sampling: how tokens are drawn.
        seed: of this turn; the same ids, settings and seed give the same tokens. None: the engine's own randomness.
        max_tokens: at least 1; with ``token_ids`` within the engine's context length.
        new_checker: makes the stop checker that ends the turn; an engine that tries again makes another.
        num_logprobs: None asks for no log-probabilities, 0 for those of the sampled tokens, k for those of the k
            likeliest tokens as well, at most ``MAX_LOGPROBS`` (vLLM's ``logprobs``). They are natural logarithms of
            the model's own distribution, before temperature and filters (vLLM's ``raw_logprobs``).
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
    """What a turn cost the engine.

    Attributes:
        cached_tokens: tokens of the prompt whose KV was found in the cache.
        computed_tokens: tokens whose KV was computed (prefill and decode).
        generated_tokens: tokens that were sampled, those that a trim dropped among them.
        queue_seconds: how long the turn waited to be admitted.
        preempted: how often the engine dropped its KV while it ran to make room for others, as far as it knows.
        recomputed_tokens: of ``computed_tokens``, those computed again for that.
    """

    cached_tokens: int
    computed_tokens: int
    generated_tokens: int
    queue_seconds: float = 0.0
    preempted: int = 0
    recomputed_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """A run of new tokens; ``logprobs``, one for each of them, only where the request asks for log-probabilities."""

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The end of a turn: the tokens that are kept, trimmed by the trim rule, and why it ended.

    ``logprobs``, one for each token that is kept, only where the request asks for log-probabilities.
    """

    token_ids: tuple[int, ...]
    stop: StopKind
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] | None = None


async def final_turn(items: AsyncGenerator[Tokens | Turn, None]) -> Turn:
    """What a stream ends with."""
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Turn):
                return item
    raise AssertionError("an engine's stream ended without a turn")


class Engine(abc.ABC):
    """The contract of an engine; ``tests/contract`` proves it for each. Use it in ``async with``."""

    name: str
    model: str
    tokenizer: Tokenizer
    context_length: int

    @property
    def instruction(self) -> str:
        """What follows each question to its model, unless the user says another sentence."""
        return instruction_for(self.model)

    @property
    def failure(self) -> str | None:
        """Why it will never run a turn again, in a line; None where it does, or where a later turn may succeed."""
        return None

    async def __aenter__(self) -> Self:
        """Make the engine ready. Raises ``InputError`` for what the user can mend, else ``EngineError``."""
        return self

    async def __aexit__(  # noqa: B027 - an engine that holds nothing has nothing to give back
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give back everything; turns under way are cancelled."""

    @abc.abstractmethod
    def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """Run a turn: runs of new tokens as they are settled, then one ``Turn`` with all of them, last.

        Concatenated, the runs are ``Turn.token_ids``: what a later token may still undo (a marker that is
        replaced, a looked-ahead token) is held back. Closing the iterator early cancels the turn.

        Raises:
            PromptError: the ids and ``max_tokens`` do not fit the context, or there are none.
            ConfigError: the engine does not take the sampling settings, or gives no such log-probabilities.
            EngineError: the engine failed; the turn may be tried again with the same request.
        """

    async def generate(self, request: TurnRequest) -> Turn:
        """Run a turn to its end, without listening. Raises what ``stream`` raises."""
        return await final_turn(self.stream(request))

    async def release(self, trace_id: str) -> None:  # noqa: B027 - an engine without a cache has nothing to do
        """Forget what is kept for a trace. Unknown names are fine."""

    def check(self, request: TurnRequest) -> None:
        """Refuse a request that cannot be run, as ``stream`` must. Raises ``PromptError``, ``ConfigError``."""
        if not request.token_ids:
            raise PromptError("the prompt has no tokens")
        if request.max_tokens < 1:
            raise PromptError(f"max_tokens is {request.max_tokens}: a turn needs at least 1")
        if len(request.token_ids) + request.max_tokens > self.context_length:
            raise PromptError(
                f"{len(request.token_ids)} tokens and {request.max_tokens} new ones do not fit the context of "
                f"{self.context_length}: shorten the question or lower --max-tokens"
            )
        if request.num_logprobs is not None and not 0 <= request.num_logprobs <= MAX_LOGPROBS:
            raise ConfigError(f"--logprobs {request.num_logprobs}: none, or 0 to {MAX_LOGPROBS}")
