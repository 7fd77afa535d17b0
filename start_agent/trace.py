"""The trace: the exact token ids that a model saw and wrote, each span marked with who wrote it.

A trace is a list of spans. Concatenated, the spans are, id for id, what the engine was given and what it gave.
Masks, text and counts are computed from the spans when asked for; none is stored beside them. A new field of ``Trace``
or ``Span`` goes into ``to_json`` and ``from_json``, one of ``Trace`` into ``__reduce__`` as well, and into the table of
docs/reference/traces.md.
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
"""Ids → their text, in one piece."""

SCHEMA_VERSION = 2
"""Version of the JSON form; readers refuse what they do not know. The first one has no ``answer_begins``."""

IGNORE_INDEX = -100
"""The label that the cross-entropy of torch (and so every trainer built on it) leaves out of the loss."""


class SpanKind(StrEnum):
    """Who wrote a span."""

    PROMPT = "prompt"
    MODEL = "model"
    HINT = "hint"
    TOOL_OUTPUT = "tool_output"
    NOTICE = "notice"


class TraceOutcome(StrEnum):
    """How a trace ended. All of these are data: what the infrastructure does wrong raises instead."""

    ANSWERED = "answered"
    NO_ANSWER = "no_answer"
    TOKEN_LIMIT = "token_limit"
    TURN_LIMIT = "turn_limit"
    CONTEXT_LIMIT = "context_limit"
    REPETITION = "repetition"
    UNPROMPTABLE = "unpromptable"
    """It could not begin: the question is empty, or longer than the model's context. Such a trace has no spans."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of tokens by one author.

    ``cause`` says what no token can: for a model span why it ended (a ``StopKind``), for a hint its id, for a tool
    output the outcome of the cell, for a notice its name. ``logprobs``, one for each token, are of a model span alone,
    and only where the engine was asked for them: what the model did not sample has none.

    Raises:
        ValueError: log-probabilities of another kind of span, or of another number than there are tokens.
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
    """Spans in the order in which they came to be, and how it ended.

    ``outcome`` is None while the trace grows. ``answer`` is the content of the last closed box after thinking,
    or, in the domain of code, the program.
    ``answer_begins`` says where the thinking ended: a token, counted from the beginning of the trace, and the bytes of
    this token that still belong to the end of thinking (0, but where one token holds both). None where it never ended:
    a model that ended its text all the same has answered in its thoughts.
    ``schema`` is the version that the trace was stored in; ``answer_begins`` is unknown in the first.
    ``meta`` holds what is needed to make the trace again: model, engine, seed, settings, sandbox isolation.
    ``decode`` turns ids into text, where whoever made the trace has left it here; ``texts`` are the stored texts of
    the spans, of a trace that was read. Neither is part of what the trace is: they are not compared and not pickled.
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
        """Add a span, once and for good. Empty spans are legal: a turn may end before its first kept token."""
        if self.outcome is not None:
            raise ValueError(f"the trace has ended ({self.outcome}): nothing can be appended")
        self.spans.append(span)

    @property
    def token_ids(self) -> list[int]:
        """All ids, prompt included: what the engine saw and wrote."""
        return [token_id for span in self.spans for token_id in span.token_ids]

    def kinds(self) -> list[SpanKind]:
        """The author of each token; as long as ``token_ids``."""
        return [span.kind for span in self.spans for _ in span.token_ids]

    def labels(self, trained: Iterable[SpanKind] = (SpanKind.MODEL,)) -> list[int]:
        """The ids where the loss looks (spans of the ``trained`` kinds), ``IGNORE_INDEX`` elsewhere."""
        wanted = frozenset(trained)
        return [token_id if span.kind in wanted else IGNORE_INDEX for span in self.spans for token_id in span.token_ids]

    def logprobs(self) -> list[float | None]:
        """The log-probability of each token, as long as ``token_ids``; None of those that have none: what the model did
        not write, and all of a trace whose engine was not asked for them."""
        return [
            one
            for span in self.spans
            for one in (
                [None] * len(span.token_ids) if span.logprobs is None else [found.logprob for found in span.logprobs]
            )
        ]

    def without_logprobs(self) -> Trace:
        """The same trace without log-probabilities; itself where it has none."""
        if all(span.logprobs is None for span in self.spans):
            return self
        return replace(self, spans=[replace(span, logprobs=None) for span in self.spans])

    def count(self, *kinds: SpanKind) -> int:
        """Tokens in spans of the given kinds; of all kinds when none is named."""
        return sum(len(span.token_ids) for span in self.spans if not kinds or span.kind in kinds)

    def of_kind(self, *kinds: SpanKind) -> Iterator[Span]:
        """The spans of the given kinds, in order."""
        return (span for span in self.spans if span.kind in kinds)

    @property
    def tool_calls(self) -> int:
        """Cells that ran: spans of kind tool_output."""
        return sum(1 for _ in self.of_kind(SpanKind.TOOL_OUTPUT))

    @property
    def unhinted_tool_calls(self) -> int:
        """Cells that ran and whose code was not begun by a hint: the model called Python by itself."""
        unhinted, hinted = 0, False
        for span in self.spans:
            if span.kind is SpanKind.HINT:
                hinted = True
            elif span.kind is SpanKind.TOOL_OUTPUT:
                unhinted += not hinted
                hinted = False
        return unhinted

    def text(self, *kinds: SpanKind, decode: Decode | None = None) -> str:
        """The text of the spans of the given kinds (of all when none is named), decoded in one piece.

        Without ``decode``, that of the trace is used, or the texts that were stored with it.

        Raises:
            ValueError: the trace has none of them: it was read from JSON without texts.
        """
        decode = decode or self.decode
        if decode is not None:
            return decode(
                token_id for span in self.spans if not kinds or span.kind in kinds for token_id in span.token_ids
            )
        if self.texts is None and self.spans:
            raise ValueError("the trace has ids alone: give decode, as in trace.text(decode=tokenizer.decode)")
        named = zip(self.spans, self.texts or (), strict=True)
        return "".join(text for span, text in named if not kinds or span.kind in kinds)

    def __str__(self) -> str:
        """What came after the prompt; where the text is not known, how much of it there is."""
        try:
            return self.text(*(kind for kind in SpanKind if kind is not SpanKind.PROMPT))
        except ValueError:
            return f"<trace of {self.count()} tokens in {len(self.spans)} spans, {self.outcome or 'unfinished'}>"

    def _repr_html_(self) -> str | None:
        """In notebooks: who wrote what, by colour; None where the text is not known, so that ``repr`` is shown."""
        from start_agent.render import trace_html

        try:
            return trace_html(self)
        except ValueError:
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        return Trace, (self.spans, self.outcome, self.answer, self.meta, self.answer_begins, self.schema)

    def to_json(self, decode: Decode | None = None) -> dict[str, Any]:
        """A JSON-ready object. With ``decode``, each span also carries its ``text``, for ``texts``.

        Log-probabilities are there only where the trace has some.
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
            TraceFormatError: a schema of an unknown version, or a field that is missing or of another type.
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
            raise TraceFormatError(f"a trace with a missing or wrong field: {error}") from error
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
