"""Events of a trace while it is generated: a closed union, discriminated by ``type``.

Events come in the order of the trace. The ``ModelText`` events of a model span come before its ``SpanAdded``.
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
    """The model wrote ``token_ids``; ``text`` is the text that they complete (an incomplete character is held back).

    A stop string, and what follows it in its last token, is in the ids but not in the text.
    ``logprobs`` has one entry per token if the settings ask for log-probabilities.
    """

    token_ids: tuple[int, ...]
    text: str
    phase: Phase
    logprobs: tuple[TokenLogprob, ...] | None = None
    type: Literal["model_text"] = "model_text"


@dataclass(frozen=True, slots=True)
class SpanAdded:
    """A span was appended to the trace; ``text`` is its decoded text."""

    span: Span
    text: str
    type: Literal["span_added"] = "span_added"


@dataclass(frozen=True, slots=True)
class CellStarted:
    """The model's code is sent to the sandbox."""

    code: str
    type: Literal["cell_started"] = "cell_started"


@dataclass(frozen=True, slots=True)
class CellFinished:
    """The sandbox has returned a result; the ``SpanAdded`` of the tool output follows."""

    result: Result
    type: Literal["cell_finished"] = "cell_finished"


@dataclass(slots=True)
class Cost:
    """Engine cost of a trace, summed over its turns.

    Attributes:
        turns: requests to the engine.
        generated_tokens: sampled tokens, including those dropped by the trim rule.
        computed_tokens: tokens whose KV was computed (prefill and decode).
        recomputed_tokens: those of them whose KV had been computed before but was evicted or not found. For a server
            that does not report cached tokens, all earlier tokens count.
        cached_tokens: tokens whose KV was found in the prefix cache.
        prompt_cached_tokens: cached tokens of the first turn, that is of the prompt.
        queue_seconds: seconds that turns spent in the engine's queue, if the engine reports them.
        preempted: preemptions by the engine, if it reports them.
    """

    turns: int = 0
    generated_tokens: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    cached_tokens: int = 0
    prompt_cached_tokens: int = 0
    queue_seconds: float = 0.0
    preempted: int = 0
    _known: int = 0  # tokens with KV at the end of the latest turn: all but the last, which was only sampled

    def add(self, given: int, turn: Turn) -> None:
        """Add a turn whose request had ``given`` tokens."""
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
        """Add the cost of another trace."""
        self.turns += other.turns
        self.generated_tokens += other.generated_tokens
        self.computed_tokens += other.computed_tokens
        self.recomputed_tokens += other.recomputed_tokens
        self.cached_tokens += other.cached_tokens
        self.queue_seconds += other.queue_seconds
        self.preempted += other.preempted


@dataclass(frozen=True, slots=True)
class TraceFinished:
    """The trace is complete; ``cost`` sums over its turns."""

    trace: Trace
    cost: Cost
    type: Literal["trace_finished"] = "trace_finished"


Event = ModelText | SpanAdded | CellStarted | CellFinished | TraceFinished
