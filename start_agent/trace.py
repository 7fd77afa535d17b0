"""The trace: the exact token ids that a model read and wrote, each span marked with its author.

A trace is a list of spans. Concatenated, they are exactly the ids that the engine was given and generated. Masks, text
and counts are computed from the spans and never stored. A new field of ``Trace`` or ``Span`` must be added to
``to_json`` and ``from_json``, one of ``Trace`` also to ``__reduce__``, and to the table of docs/reference/traces.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from start_agent.errors import TraceFormatError
from start_agent.logprobs import TokenLogprob, logprobs_from_json, logprobs_to_json

Field = TypeVar("Field")

Decode = Callable[[Iterable[int]], str]
"""Token ids → their text, decoded together."""

SCHEMA_VERSION = 2
"""Version of the JSON format; readers refuse later versions. Version 1 has no ``answer_begins``."""

IGNORE_INDEX = -100
"""The label that torch's cross-entropy, and so every trainer built on it, ignores."""


class SpanKind(StrEnum):
    """The author of a span."""

    PROMPT = "prompt"
    MODEL = "model"
    HINT = "hint"
    TOOL_OUTPUT = "tool_output"
    NOTICE = "notice"


class TraceOutcome(StrEnum):
    """How a trace ended. All outcomes are data; infrastructure faults raise instead."""

    ANSWERED = "answered"
    NO_ANSWER = "no_answer"
    TOKEN_LIMIT = "token_limit"
    TURN_LIMIT = "turn_limit"
    CONTEXT_LIMIT = "context_limit"
    REPETITION = "repetition"
    UNPROMPTABLE = "unpromptable"
    """The trace could not start: the question is empty or longer than the model's context. It has no spans."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens by one author.

    ``cause`` is, for a model span, why it ended (a ``StopKind``); for a hint its id; for a tool output the cell's
    outcome; for a notice its name. ``logprobs`` has one entry per token; only model spans have it, if the engine was
    asked for log-probabilities.

    Raises:
        ValueError: log-probabilities of a span of another kind, or of a number other than that of the tokens.
    """

    kind: SpanKind
    token_ids: tuple[int, ...]
    cause: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None

    def __post_init__(self) -> None:
        if self.logprobs is not None and (self.kind is not SpanKind.MODEL or len(self.logprobs) != len(self.token_ids)):
            raise ValueError(
                f"{len(self.logprobs)} log-probabilities for {len(self.token_ids)} tokens of kind {self.kind}"
            )


@dataclass(slots=True)
class Trace:
    """Spans in order, and how the trace ended.

    ``outcome`` is None while the trace is being generated. ``answer`` is the content of the last closed box after
    thinking or, in the domain of code, the program.
    ``answer_begins`` is where the thinking ended: the index of a token in the trace, and the number of its bytes that
    still belong to the end of thinking (0 unless one token holds both). It is None if the thinking never ended; a model
    that ended its text anyway has answered in its thoughts.
    ``schema`` is the version that the trace was stored in; version 1 has no ``answer_begins``.
    ``meta`` holds what is needed to reproduce the trace: model, engine, seed, settings, sandbox isolation.
    ``decode`` turns ids into text, if the producer of the trace has set it; ``texts`` are the stored texts of the spans
    of a loaded trace. These two are not compared and not pickled.
    """

    spans: list[Span] = field(default_factory=list)
    outcome: TraceOutcome | None = None
    answer: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    answer_begins: tuple[int, int] | None = None
    schema: int = SCHEMA_VERSION
    decode: Decode | None = field(default=None, compare=False, repr=False)
    texts: tuple[str, ...] | None = field(default=None, compare=False, repr=False)

    def append(self, span: Span) -> None:
        """Append a span. It may be empty: a turn may end before its first kept token.

        Raises:
            ValueError: the trace has ended.
        """
        if self.outcome is not None:
            raise ValueError(f"the trace has ended ({self.outcome}): nothing can be appended")
        self.spans.append(span)

    @property
    def token_ids(self) -> list[int]:
        """All token ids, including the prompt."""
        return [token_id for span in self.spans for token_id in span.token_ids]

    def kinds(self) -> list[SpanKind]:
        """The author of each token; as long as ``token_ids``."""
        return [span.kind for span in self.spans for _ in span.token_ids]

    def labels(self, trained: Iterable[SpanKind] = (SpanKind.MODEL,)) -> list[int]:
        """Labels for the loss: the ids in spans of the ``trained`` kinds, ``IGNORE_INDEX`` elsewhere."""
        wanted = frozenset(trained)
        return [token_id if span.kind in wanted else IGNORE_INDEX for span in self.spans for token_id in span.token_ids]

    def logprobs(self) -> list[float | None]:
        """The log-probability of each token, as long as ``token_ids``; None for tokens that the model did not write,
        and for all tokens if the engine was not asked for log-probabilities."""
        return [
            one
            for span in self.spans
            for one in (
                [None] * len(span.token_ids) if span.logprobs is None else [found.logprob for found in span.logprobs]
            )
        ]

    def without_logprobs(self) -> Trace:
        """The same trace without log-probabilities; itself if it has none."""
        if all(span.logprobs is None for span in self.spans):
            return self
        return replace(self, spans=[replace(span, logprobs=None) for span in self.spans])

    def count(self, *kinds: SpanKind) -> int:
        """The number of tokens in spans of the given kinds (default: all)."""
        return sum(len(span.token_ids) for span in self.spans if not kinds or span.kind in kinds)

    def of_kind(self, *kinds: SpanKind) -> Iterator[Span]:
        """The spans of the given kinds, in order."""
        return (span for span in self.spans if span.kind in kinds)

    @property
    def tool_calls(self) -> int:
        """The number of cells that ran: spans of kind tool_output."""
        return sum(1 for _ in self.of_kind(SpanKind.TOOL_OUTPUT))

    @property
    def unhinted_tool_calls(self) -> int:
        """The number of cells whose code was not started by a hint: the model called Python by itself."""
        unhinted, hinted = 0, False
        for span in self.spans:
            if span.kind is SpanKind.HINT:
                hinted = True
            elif span.kind is SpanKind.TOOL_OUTPUT:
                unhinted += not hinted
                hinted = False
        return unhinted

    def text(self, *kinds: SpanKind, decode: Decode | None = None) -> str:
        """The text of the spans of the given kinds (default: all), decoded together.

        ``decode`` defaults to the trace's own, or to the texts stored with the trace.

        Raises:
            ValueError: the trace has neither: it was read from JSON without texts.
        """
        decode = decode or self.decode
        if decode is not None:
            return decode(
                token_id for span in self.spans if not kinds or span.kind in kinds for token_id in span.token_ids
            )
        if self.texts is None and self.spans:
            raise ValueError("the trace has only token ids: pass decode, as in trace.text(decode=tokenizer.decode)")
        named = zip(self.spans, self.texts or (), strict=True)
        return "".join(text for span, text in named if not kinds or span.kind in kinds)

    def __str__(self) -> str:
        """The text after the prompt; if it is not known, a summary of the counts."""
        try:
            return self.text(*(kind for kind in SpanKind if kind is not SpanKind.PROMPT))
        except ValueError:
            return f"<trace of {self.count()} tokens in {len(self.spans)} spans, {self.outcome or 'unfinished'}>"

    def _repr_html_(self) -> str | None:
        """For notebooks: the text with a colour per author; None if it is not known, so that ``repr`` is shown."""
        from start_agent.render import trace_html

        try:
            return trace_html(self)
        except ValueError:
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        return Trace, (self.spans, self.outcome, self.answer, self.meta, self.answer_begins, self.schema)

    def to_json(self, decode: Decode | None = None) -> dict[str, Any]:
        """The trace as a JSON object. With ``decode``, each span also gets its ``text``, from which ``texts`` is read.

        Log-probabilities are written only if the trace has them.
        """
        spans: list[dict[str, Any]] = []
        for span in self.spans:
            row: dict[str, Any] = {"kind": span.kind.value, "token_ids": list(span.token_ids)}
            if span.cause:
                row["cause"] = span.cause
            if span.logprobs is not None:
                row |= logprobs_to_json(span.logprobs)
            if decode is not None:
                row["text"] = decode(span.token_ids)
            spans.append(row)
        outcome = None if self.outcome is None else self.outcome.value
        return {
            "schema": self.schema,
            "outcome": outcome,
            "answer": self.answer,
            **({"answer_begins": self.answer_begins and list(self.answer_begins)} if self.schema > 1 else {}),
            "spans": spans,
            "meta": self.meta,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trace:
        """Read what ``to_json`` wrote.

        Raises:
            TraceFormatError: an unknown schema version, or a field that is missing or of the wrong type.
        """
        schema = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
        if type(schema) is not int or not 1 <= schema <= SCHEMA_VERSION:
            raise TraceFormatError(f"not a trace of a schema up to {SCHEMA_VERSION} (found {schema!r})")
        try:
            spans = [
                Span(
                    SpanKind(row["kind"]),
                    _checked_ids(row["token_ids"]),
                    _checked(str, row.get("cause", "")),
                    logprobs_from_json(row),
                )
                for row in _checked(list, data["spans"])
            ]
            outcome = None if data["outcome"] is None else TraceOutcome(data["outcome"])
            answer = None if data["answer"] is None else _checked(str, data["answer"])
            place = None if schema == 1 or data["answer_begins"] is None else _checked_ids(data["answer_begins"])
            if place is not None and len(place) != 2:
                raise ValueError("answer_begins must be a token and a number of bytes")
            meta = dict(_checked(dict, data["meta"]))
            texts = tuple(_checked(str, row["text"]) for row in data["spans"] if "text" in row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TraceFormatError(f"a trace with a missing or invalid field: {error}") from error
        known = texts if len(texts) == len(spans) else None
        return cls(spans, outcome, answer, meta, place and (place[0], place[1]), schema, texts=known)


def _checked(kind: type[Field], raw: object) -> Field:
    if not isinstance(raw, kind):
        raise TypeError(f"expected a {kind.__name__}, found {raw!r:.40}")
    return raw


def _checked_ids(raw: object) -> tuple[int, ...]:
    if not isinstance(raw, list) or not all(type(token_id) is int and token_id >= 0 for token_id in raw):
        raise ValueError(f"expected a list of whole numbers, found {raw!r:.40}")
    return tuple(raw)
