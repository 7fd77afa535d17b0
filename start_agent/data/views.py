"""A read-only view of a trace as text: its cells, the beginning of its answer, and the token at each byte."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from start_agent.decoding.actions import THINKING_BUDGET
from start_agent.decoding.replay import prompt_of
from start_agent.tokens.dialects import dialect_of
from start_agent.tokens.markers import CONNECTIVES, LANGUAGES, MarkerKind, Markers, Match, Matcher, answer_begins
from start_agent.tokens.stop_strings import before_stop
from start_agent.tokens.stopping import StopKind
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace


class TokenPosition(NamedTuple):
    """The position of a token: index of the span, and index in the span."""

    span: int
    token: int


@dataclass(frozen=True, slots=True)
class Cell:
    """A code block that was run, or would have been if the limit of calls had not been reached.

    Attributes:
        code: the code.
        fence: byte offset of its opening fence in the view's text.
        begin: byte offset of its code.
        end: byte offset of its closing fence.
        output: index of the span with its result: a tool output, or a notice.
        hint: index of the hint span that opened it; None if the model did.
    """

    code: str
    fence: int
    begin: int
    end: int
    output: int
    hint: int | None


class TraceView:
    """A parsed trace. ``text`` is everything after the prompt, as bytes; positions are offsets in it.

    Args:
        trace: a complete trace; its ``meta`` has the settings of its markers.
        tokenizer: tokenizer of the model.
    """

    def __init__(self, trace: Trace, tokenizer: Tokenizer) -> None:
        self.trace, self.tokenizer = trace, tokenizer
        self.cells: list[Cell] = []
        self.dialect = dialect_of(trace.meta)
        self._prompt = prompt_of(trace)
        # Derived by the present rules if the trace does not store where its answer begins.
        self.answer_begins: int | None = 0 if self._prompt.state.answering else None
        self.begins: list[int] = []  # offset of each span; prompts are empty here
        self.text = self._read()
        if trace.schema > 1:
            self.answer_begins = self._stored()

    def _stored(self) -> int | None:
        """The stored beginning of the answer, as an offset."""
        if self.trace.answer_begins is None:
            return None
        token, byte = self.trace.answer_begins
        return self._edges[token - self.trace.count(SpanKind.PROMPT)] + byte

    def _read(self) -> bytes:
        prompt, settings = self._prompt, self.trace.meta.get("settings", {})
        words, languages = settings.get("connectives", CONNECTIVES), settings.get("languages", LANGUAGES)
        tags = self.dialect.code_open, self.dialect.code_close
        run = () if self.dialect.tagged else self.dialect.languages or tuple(languages)
        markers = Markers(tuple(words), prompt.think_ends, run, prompt.think_start, *tags)
        matcher, state = Matcher(self.tokenizer, markers), prompt.state
        text = bytearray()
        opened: tuple[Match, int | None] | None = None
        closed = 0
        for at, span in enumerate(self.trace.spans):
            self.begins.append(len(text))
            if span.kind is SpanKind.PROMPT:
                continue
            if span.kind is SpanKind.NOTICE and span.cause == THINKING_BUDGET:
                opened = None  # what it closed was never complete
            if span.kind in (SpanKind.TOOL_OUTPUT, SpanKind.NOTICE) and opened is not None:
                fence, hint = opened
                end = max(closed, fence.end)
                code = self.dialect.code_in(bytes(text[fence.end : end]))
                self.cells.append(Cell(code, fence.begin, fence.end, end, at, hint))
                opened = None
            piece = self.tokenizer.bytes_of(span.token_ids)
            matches: list[Match] = []
            if span.kind is SpanKind.MODEL:
                for token_id in span.token_ids:
                    state, found = matcher.step(state, token_id)
                    matches += found
            else:
                state, found = matcher.inserted(state, piece, span.kind)
                matches += found
            for match in matches:
                if match.kind is MarkerKind.CODE_OPEN:
                    opened = (match, at if span.kind is SpanKind.HINT else None)
                elif match.kind is MarkerKind.CODE_CLOSE:
                    closed = match.begin
            self.answer_begins = answer_begins(self.answer_begins, matches)
            text += piece
        return bytes(text)

    @cached_property
    def _edges(self) -> list[int]:
        """The offsets of all tokens after the prompt, and the end of the last one."""
        ids = (i for span in self.trace.spans if span.kind is not SpanKind.PROMPT for i in span.token_ids)
        return list(accumulate((len(self.tokenizer.bytes_of((token_id,))) for token_id in ids), initial=0))

    def token_at(self, place: int) -> tuple[TokenPosition, bool]:
        """The token that contains the byte at offset ``place``, and whether it begins there."""
        index = bisect_right(self._edges, place) - 1  # skips tokens without bytes at the same offset
        clean = self._edges[index] == place
        for at, span in enumerate(self.trace.spans):
            if span.kind is SpanKind.PROMPT:
                continue
            if index < len(span.token_ids):
                return TokenPosition(at, index), clean
            index -= len(span.token_ids)
        raise IndexError(f"the text has no byte {place}")

    @property
    def thinking_ends(self) -> int | None:
        """The end of the thinking's text, before its end marker; None if it never ended."""
        if self.answer_begins is None:
            return None
        before = self.text[: self.answer_begins]
        ends = [end.encode() for end in self._prompt.think_ends]
        return len(before) - max((len(end) for end in ends if before.endswith(end)), default=0)

    def string(self, begin: int = 0, end: int | None = None) -> str:
        """The text between two offsets, decoded."""
        return self.text[begin:end].decode("utf-8", errors="replace")

    def model_text(self, begin: int = 0, end: int | None = None) -> str:
        """The model's part of the text between two offsets, without hints, outputs and notices."""
        stop = len(self.text) if end is None else end
        found = bytearray()
        for number, span in enumerate(self.trace.spans):
            if span.kind is SpanKind.MODEL:
                first = max(begin, self.begins[number])
                found += self.text[first : max(first, min(stop, self.ends(number)))]
        return found.decode("utf-8", errors="replace")

    def ends(self, span: int) -> int:
        """The end offset of a span."""
        return self.begins[span + 1] if span + 1 < len(self.begins) else len(self.text)

    @property
    def end_of_text(self) -> int:
        """The end offset of the text without the end of sequence, or without the stop string and what follows it."""
        last = self.trace.spans[-1] if self.trace.spans else None
        if last is None or last.kind is not SpanKind.MODEL or not last.token_ids:
            return len(self.text)
        if last.cause == StopKind.STOP and self.answer_begins is not None:
            strings = self.trace.meta.get("settings", {}).get("stop", ())
            return self.answer_begins + len(before_stop(self.text[self.answer_begins :], strings))
        ended = last.token_ids[-1] in self.tokenizer.eos_ids
        return len(self.text) - (len(self.tokenizer.bytes_of(last.token_ids[-1:])) if ended else 0)
