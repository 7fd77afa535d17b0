"""What the controller decides: spans that join a trace, the causes of those that it inserts, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from start_agent.tokens.markers import State
from start_agent.tokens.stopping import StopConditions
from start_agent.trace import Span, TraceOutcome

CALLS_USED_UP = "tool_calls_used_up"
"""The cause of the notice that no more code runs."""

THINKING_BUDGET = "thinking_budget"
"""The cause of the notice that ends the thinking: ``thinking_token_budget`` is used up."""

FIRST_HINT = "first_hint"
"""The cause of a first hint that is no hint of the library."""

THINKING_OPENED = "thinking_opened"
"""The cause of a notice that opens the thinking, as the model would have done: for a hint that comes first."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Have the engine write at most ``max_tokens``, from where the text stands until an armed marker."""

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
    """The trace is complete. ``answer_begins`` is the trace's."""

    outcome: TraceOutcome
    answer: str | None
    answer_begins: tuple[int, int] | None


Action = Generate | RunCode | Finish


@dataclass(frozen=True, slots=True)
class FirstHint:
    """A text that is inserted where the thinking begins; ``cause`` is its span's: of a hint of the library, its id."""

    text: str
    cause: str = FIRST_HINT


@dataclass(frozen=True, slots=True)
class Step:
    """Spans that join the trace now, and what to do then."""

    spans: tuple[Span, ...]
    action: Action
