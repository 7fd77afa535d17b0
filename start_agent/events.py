"""What a listener hears while a trace grows: a closed union, told apart by ``type``.

The order of events is that of the trace. The runs of a model span's ``ModelText`` come before its ``SpanAdded``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sandbox import Result
from start_agent.phases import Phase
from start_agent.trace import Span, Trace


@dataclass(frozen=True, slots=True)
class ModelText:
    """The model wrote ``token_ids``; ``text`` is what they complete of the text (bytes of a character wait)."""

    token_ids: tuple[int, ...]
    text: str
    phase: Phase
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


@dataclass(frozen=True, slots=True)
class TraceFinished:
    """The trace is complete."""

    trace: Trace
    type: Literal["trace_finished"] = "trace_finished"


Event = ModelText | SpanAdded | CellStarted | CellFinished | TraceFinished
