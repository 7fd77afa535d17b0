"""The one field that is not OpenAI's: ``start_agent``, in requests and in answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, create_model

from sandbox import Result
from start_agent.decoding.settings import DecodingSettings
from start_agent.server.errors import APIError
from start_agent.server.rollout import Finished
from start_agent.trace import SpanKind

_OF_REQUESTS = (
    *("hints", "domain", "template", "hint_probability", "hint_cooldown", "max_hints", "end_of_think_hints"),
    *("tools", "max_tool_calls", "cell_timeout"),
    *("thinking_token_budget", "max_turn_tokens", "repetition_tokens", "repetition_repeats"),
)
"""The settings of decoding that a request may change. What would need another matcher is not among them."""

_NAME = "start_agent"


class _Options(BaseModel):
    """What a request may say of hints, tools and limits. What is unset is as the server was started with."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hint: str | None = Field(
        None,
        max_length=4000,
        description="a hint at the start of the thinking: a text, or the id of one of the library",
    )

    def given(self) -> dict[str, Any]:
        """The settings of decoding that the request sets."""
        return self.model_dump(exclude_none=True, exclude={"hint"})

    def settings(self, base: DecodingSettings, **more: Any) -> DecodingSettings:
        """The server's settings with those of the request.

        Args:
            base: the server's.
            more: what other parameters of the request say; None for what they do not.

        Raises:
            APIError: 400, ``cell_timeout`` is longer than the server allows.
        """
        given = self.given()
        if given.get("cell_timeout", 0.0) > base.cell_timeout:
            param = f"{_NAME}.cell_timeout"
            raise APIError(400, f"{param} is at most {base.cell_timeout:g} here", param=param, code="invalid_value")
        return base.model_copy(update=given | {name: value for name, value in more.items() if value is not None})


def _fields() -> dict[str, Any]:
    """The settings as fields of a request: each with its type, bounds and description, and unset."""
    found = {}
    for name in _OF_REQUESTS:
        field = DecodingSettings.model_fields[name]
        kind: Any = field.annotation
        for bound in field.metadata:
            kind = Annotated[kind, bound]
        if name in ("domain", "template"):
            kind = Annotated[kind, Strict(False)]  # words of JSON become members of their enumerations
        found[name] = (kind | None, Field(None, description=field.description))
    return found


RequestExtension: type[_Options] = create_model(
    "RequestExtension", __base__=_Options, __doc__=_Options.__doc__, **_fields()
)
"""The field of a request."""


class SpanReport(BaseModel):
    """A run of tokens by one author.

    ``cause`` is of a hint its id, of an output how its cell ended, of a notice its name, and of what the model wrote
    the reason why it stopped.
    """

    kind: SpanKind
    cause: str
    tokens: int


class CellReport(BaseModel):
    """A cell: how it ended, and the seconds that it took. ``state_lost``: all variables are gone since."""

    outcome: str
    seconds: float
    state_lost: bool = False


class TokenReport(BaseModel):
    """Tokens by what they are; those of ``reasoning`` and ``answer`` the model has written."""

    prompt: int
    cached: int
    reasoning: int
    answer: int
    hint: int
    tool_output: int
    notice: int


class Report(BaseModel):
    """The field of an answer: how the rollout went and who wrote what.

    Attributes:
        outcome: ``answered``, ``no_answer``, ``token_limit``, ``turn_limit``, ``context_limit`` or ``repetition``.
        answer: what stands in the last box, or the program; null where there is none.
        tokens: counts.
        spans: who wrote what after the prompt, in order.
        hints: the ids of the hints that were inserted.
        cells: those that ran, in order.
        seed: with it the same request comes to the same hints, and on the same engine to the same answer.
        seeded: whether sampling followed the seed as well: only where the request has given one.
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
    """The field of an answer, ready for JSON.

    Args:
        finished: the end of the rollout.
        results: of its cells, in order.
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
