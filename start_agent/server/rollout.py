"""One request's rollout: a trace that grows, as the pieces that a client is sent.

``Rollout.items`` is what chat completions, completions and responses are made of: segments in the order of the trace,
the cells between them, and at the end the trace itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from start_agent.decoding.events import CellFinished, CellStarted, Cost
from start_agent.decoding.segments import Segment, SegmentKind
from start_agent.trace import SpanKind, Trace


@dataclass(slots=True)
class TokenCounts:
    """Tokens of a rollout so far, by what they are.

    Attributes:
        prompt: given to the model.
        cached: of the prompt, those whose KV the engine had already; known after the first turn.
        reasoning: written by the model up to the end of its thinking, code among them.
        answer: written by the model after that.
        hint: inserted as hints.
        tool_output: inserted as outputs of cells.
        notice: inserted as notices.
    """

    prompt: int = 0
    cached: int = 0
    reasoning: int = 0
    answer: int = 0
    hint: int = 0
    tool_output: int = 0
    notice: int = 0

    @property
    def completion(self) -> int:
        """What the model wrote: the rest was inserted, at no cost of sampling."""
        return self.reasoning + self.answer

    def add(self, segment: Segment, *, answering: bool) -> None:
        """Count a segment.

        Args:
            segment: the next one of the trace.
            answering: whether the thinking had ended before it.
        """
        number = len(segment.token_ids)
        match segment.author:
            case SpanKind.HINT:
                self.hint += number
            case SpanKind.TOOL_OUTPUT:
                self.tool_output += number
            case SpanKind.NOTICE:
                self.notice += number
            case _ if segment.kind is SegmentKind.ANSWER or (answering and segment.kind is SegmentKind.MARKER):
                self.answer += number
            case _:
                self.reasoning += number


@dataclass(frozen=True, slots=True)
class Finished:
    """The last item: the trace is complete."""

    trace: Trace
    cost: Cost
    counts: TokenCounts


Item = Segment | CellStarted | CellFinished | Finished
"""What a rollout yields, told apart by type."""
