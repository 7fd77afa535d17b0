"""What a listener hears while a trace grows: a closed union, told apart by ``type``.

The order of events is that of the trace. The runs of a model span's ``ModelText`` come before its ``SpanAdded``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sandbox import Result
from start_agent.engines.base import Turn
from start_agent.logprobs import TokenLogprob
from start_agent.tokens.phases import Phase
from start_agent.trace import Span, Trace


@dataclass(frozen=True, slots=True)
class ModelText:
    """The model wrote ``token_ids``; ``text`` is what they complete of the text (bytes of a character wait).

    A stop string, and what its last token has behind it, is in the ids and not in the text.
    ``logprobs``, one for each token, where the settings ask for log-probabilities.
    """

    token_ids: tuple[int, ...]
    text: str
    phase: Phase
    logprobs: tuple[TokenLogprob, ...] | None = None
    type: Literal["model_text"] = "model_text"


@dataclass(frozen=True, slots=True)
class SpanAdded:
    """A span joined the trace, for good; ``text`` is its text."""

    span: Span
    text: str
    type: Literal["span_added"] = "span_added"


@dataclass(frozen=True, slots=True)
class CellStarted:
    """The model's code goes to the sandbox."""

    code: str
    type: Literal["cell_started"] = "cell_started"


@dataclass(frozen=True, slots=True)
class CellFinished:
    """The sandbox has answered; the tool output's span follows."""

    result: Result
    type: Literal["cell_finished"] = "cell_finished"


@dataclass(slots=True)
class Cost:
    """What a trace cost its engine: sums over its turns.

    Attributes:
        turns: requests to the engine.
        generated_tokens: tokens that it wrote, those that a trim dropped among them.
        computed_tokens: tokens whose KV it computed.
        recomputed_tokens: those of them whose KV had been computed before, and was not kept or not found. Of a server
            that does not report what it had cached: all that went before.
        cached_tokens: tokens whose KV was found, summed over turns.
        prompt_cached_tokens: those of the first turn: what the engine had of the prompt before the trace began.
        queue_seconds: seconds in which turns waited to be let in, as far as the engine knows.
        preempted: how often the engine dropped KV under way to make room for others, as far as it knows.
    """

    turns: int = 0
    generated_tokens: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    cached_tokens: int = 0
    prompt_cached_tokens: int = 0
    queue_seconds: float = 0.0
    preempted: int = 0
    _known: int = 0  # tokens whose KV exists at the end of the latest turn: all but the last, which was only sampled

    def add(self, given: int, turn: Turn) -> None:
        """Count a turn that was given so many tokens."""
        usage = turn.usage
        if not self.turns:
            self.prompt_cached_tokens = usage.cached_tokens
        self.turns += 1
        self.generated_tokens += usage.generated_tokens
        self.computed_tokens += usage.computed_tokens
        self.recomputed_tokens += max(self._known - usage.cached_tokens, 0) + usage.recomputed_tokens
        self.cached_tokens += usage.cached_tokens
        self.queue_seconds += usage.queue_seconds
        self.preempted += usage.preempted
        self._known = given + len(turn.token_ids) - 1

    def include(self, other: Cost) -> None:
        """Count what another trace cost."""
        self.turns += other.turns
        self.generated_tokens += other.generated_tokens
        self.computed_tokens += other.computed_tokens
        self.recomputed_tokens += other.recomputed_tokens
        self.cached_tokens += other.cached_tokens
        self.queue_seconds += other.queue_seconds
        self.preempted += other.preempted


@dataclass(frozen=True, slots=True)
class TraceFinished:
    """The trace is complete; ``cost`` is that of its turns."""

    trace: Trace
    cost: Cost
    type: Literal["trace_finished"] = "trace_finished"


Event = ModelText | SpanAdded | CellStarted | CellFinished | TraceFinished
