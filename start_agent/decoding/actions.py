"""The controller's decisions: spans to append, the causes of inserted spans, and the next action."""

from __future__ import annotations

from dataclasses import dataclass

from start_agent.tokens.markers import State
from start_agent.tokens.stopping import StopConditions
from start_agent.trace import Span, TraceOutcome

CALLS_USED_UP = "tool_calls_used_up"
"""Cause of the notice that says that no more code is run."""

THINKING_BUDGET = "thinking_budget"
"""Cause of the notice that ends the thinking once ``thinking_token_budget`` is used up."""

FIRST_HINT = "first_hint"
"""Cause of a first hint that is not from the library."""

THINKING_OPENED = "thinking_opened"
"""Cause of the notice that opens the thinking before a first hint, as the model itself would have done."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Generate at most ``max_tokens`` tokens, up to a stop condition.

    ``state`` and ``recent`` are where the stop checker starts: the parser's state and the latest thinking tokens.
    """

    max_tokens: int
    conditions: StopConditions
    state: State
    recent: tuple[int, ...]
    seed: int | None


@dataclass(frozen=True, slots=True)
class RunCode:
    """Run a cell in the trace's kernel."""

    code: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The trace is complete. The fields are those of the trace."""

    outcome: TraceOutcome
    answer: str | None
    answer_begins: tuple[int, int] | None


Action = Generate | RunCode | Finish


@dataclass(frozen=True, slots=True)
class FirstHint:
    """A text inserted at the beginning of the thinking; ``cause`` is the hint's id where it is from the library."""

    text: str
    cause: str = FIRST_HINT


@dataclass(frozen=True, slots=True)
class Step:
    """Spans to append to the trace now, and the next action."""

    spans: tuple[Span, ...]
    action: Action
