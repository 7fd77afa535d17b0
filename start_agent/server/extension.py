"""The extension of OpenAI's API: the field ``start_agent`` in requests and responses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, create_model

from sandbox import Result
from start_agent.decoding.settings import DecodingSettings
from start_agent.server.errors import APIError
from start_agent.server.rollout import NAME, Finished
from start_agent.trace import SpanKind

_OF_REQUESTS = (
    *("hints", "domain", "template", "hint_probability", "hint_cooldown", "max_hints", "end_of_think_hints"),
    *("tools", "max_tool_calls", "cell_timeout"),
    *("thinking_token_budget", "max_turn_tokens", "repetition_tokens", "repetition_repeats"),
)
"""The decoding settings that a request may change. Those that need another matcher are not included."""


class _Options(BaseModel):
    """Hints, tools and limits of a request. Unset options default to the server's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hint: str | None = Field(
        None,
        max_length=4000,
        description="a hint at the start of the thinking: a text, or the id of one of the library",
    )

    def given(self) -> dict[str, Any]:
        """The decoding settings that the request sets."""
        return self.model_dump(exclude_none=True, exclude={"hint"})

    def settings(self, base: DecodingSettings, **more: Any) -> DecodingSettings:
        """The server's settings, overridden by those of the request.

        Args:
            base: the server's settings.
            more: settings from other parameters of the request; None for unset ones.

        Raises:
            APIError: 400, ``cell_timeout`` is longer than the server allows.
        """
        given = self.given()
        if given.get("cell_timeout", 0.0) > base.cell_timeout:
            param = f"{NAME}.cell_timeout"
            raise APIError(400, f"{param} must be at most {base.cell_timeout:g}", param=param, code="invalid_value")
        return base.model_copy(update=given | {name: value for name, value in more.items() if value is not None})


def _fields() -> dict[str, Any]:
    """The settings as optional fields of a request, with their types, bounds and descriptions."""
    found = {}
    for name in _OF_REQUESTS:
        field = DecodingSettings.model_fields[name]
        kind: Any = field.annotation
        for bound in field.metadata:
            kind = Annotated[kind, bound]
        if name in ("domain", "template"):
            kind = Annotated[kind, Strict(False)]  # convert JSON strings to enum members
        found[name] = (kind | None, Field(None, description=field.description))
    return found


RequestExtension: type[_Options] = create_model(
    "RequestExtension", __base__=_Options, __doc__=_Options.__doc__, **_fields()
)
"""The field ``start_agent`` of a request."""


class SpanReport(BaseModel):
    """Consecutive tokens by one author.

    ``cause`` is the id of a hint, the outcome of an output's cell, the name of a notice, or the stop reason of a model
    span.
    """

    kind: SpanKind
    cause: str
    tokens: int


class CellReport(BaseModel):
    """A cell with its outcome and duration. ``state_lost``: all variables were lost with it."""

    outcome: str
    seconds: float
    state_lost: bool = False


class TokenReport(BaseModel):
    """Token counts by kind; the model wrote those of ``reasoning`` and ``answer``."""

    prompt: int
    cached: int
    reasoning: int
    answer: int
    hint: int
    tool_output: int
    notice: int


class Report(BaseModel):
    """The field ``start_agent`` of a response: outcome, authors and counts of the rollout.

    Attributes:
        outcome: ``answered``, ``no_answer``, ``token_limit``, ``turn_limit``, ``context_limit`` or ``repetition``.
        answer: the content of the last box, or the program; null if there is none.
        tokens: token counts.
        spans: the spans after the prompt, in order.
        hints: the ids of the inserted hints.
        cells: the cells that ran, in order.
        seed: reproduces the hints of the request and, on the same engine, its answer.
        seeded: whether sampling also used the seed: only if the request set one.
    """

    outcome: str
    answer: str | None
    tokens: TokenReport
    spans: list[SpanReport]
    hints: list[str]
    cells: list[CellReport]
    seed: int
    seeded: bool


def report(finished: Finished, results: Sequence[Result]) -> dict[str, Any]:
    """The field ``start_agent`` of a response, as JSON.

    Args:
        finished: the end of the rollout.
        results: the results of its cells, in order.
    """
    trace = finished.trace
    found = Report(
        outcome=str(trace.outcome),
        answer=trace.answer,
        tokens=TokenReport(**asdict(finished.counts)),
        spans=[
            SpanReport(kind=span.kind, cause=span.cause, tokens=len(span.token_ids))
            for span in trace.spans
            if span.kind is not SpanKind.PROMPT
        ],
        hints=[span.cause for span in trace.of_kind(SpanKind.HINT)],
        cells=list(_cells(results)),
        seed=trace.meta["seed"],
        seeded=trace.meta.get("seeded", True),
    )
    return found.model_dump(mode="json")


def _cells(results: Sequence[Result]) -> Iterable[CellReport]:
    for result in results:
        yield CellReport(
            outcome=result.outcome.value, seconds=round(result.duration_s, 6), state_lost=result.state_lost
        )
