"""A trace as text with places: its cells, where its answer begins, which token holds which byte."""

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
    """A token: ``token`` of the span ``span``."""

    span: int
    token: int


@dataclass(frozen=True, slots=True)
class Cell:
    """A block of code that was run, or would have been had there been calls left.

    Attributes:
        code: what was run.
        fence: where its opening fence begins, in bytes of the reading's text; ``begin`` where its code does,
            ``end`` where its closing fence does.
        output: the span that answers it: a tool's output, or a notice.
        hint: the span of the hint that opened it; None where the model did.
    """

    code: str
    fence: int
    begin: int
    end: int
    output: int
    hint: int | None


class TraceView:
    """A trace, read once. ``text`` is the bytes of all that follows the prompt; places are offsets in it.

    Args:
        trace: complete; its ``meta`` says what its markers are.
        tokenizer: the model's.
    """

    def __init__(self, trace: Trace, tokenizer: Tokenizer) -> None:
        self.trace, self.tokenizer = trace, tokenizer
        self.cells: list[Cell] = []
        self.dialect = dialect_of(trace.meta)
        self._prompt = prompt_of(trace)
        # Of a trace that does not say where its answer begins: derived by the rules of today.
        self.answer_begins: int | None = 0 if self._prompt.state.answering else None
        self.begins: list[int] = []  # where each span begins; a prompt is empty here
        self.text = self._read()
        if trace.schema > 1:
            self.answer_begins = self._stored()

    def _stored(self) -> int | None:
        """The trace's own word for where its answer begins, as a place."""
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
        """Where each token after the prompt begins, and where the last one ends."""
        ids = (i for span in self.trace.spans if span.kind is not SpanKind.PROMPT for i in span.token_ids)
        return list(accumulate((len(self.tokenizer.bytes_of((token_id,))) for token_id in ids), initial=0))

    def spot(self, place: int) -> tuple[TokenPosition, bool]:
        """The token that holds the byte at ``place``, and whether it begins there."""
        index = bisect_right(self._edges, place) - 1  # of tokens without bytes the last: it is they that come before
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
        """Where the thinking's text ends, before the marker of its end; None where it never ended."""
        if self.answer_begins is None:
            return None
        before = self.text[: self.answer_begins]
        ends = [end.encode() for end in self._prompt.think_ends]
        return len(before) - max((len(end) for end in ends if before.endswith(end)), default=0)

    def string(self, begin: int = 0, end: int | None = None) -> str:
        """The text from one place to another, as a string."""
        return self.text[begin:end].decode("utf-8", errors="replace")

    def model_text(self, begin: int = 0, end: int | None = None) -> str:
        """What the model wrote of it: without hints, outputs and notices."""
        stop = len(self.text) if end is None else end
        found = bytearray()
        for number, span in enumerate(self.trace.spans):
            if span.kind is SpanKind.MODEL:
                first = max(begin, self.begins[number])
                found += self.text[first : max(first, min(stop, self.ends(number)))]
        return found.decode("utf-8", errors="replace")

    def ends(self, span: int) -> int:
        """Where a span ends."""
        return self.begins[span + 1] if span + 1 < len(self.begins) else len(self.text)

    @property
    def end_of_text(self) -> int:
        """Where the text ends: the end of sequence is left out, or the stop string and what follows it."""
        last = self.trace.spans[-1] if self.trace.spans else None
        if last is None or last.kind is not SpanKind.MODEL or not last.token_ids:
            return len(self.text)
        if last.cause == StopKind.STOP and self.answer_begins is not None:
            strings = self.trace.meta.get("settings", {}).get("stop", ())
            return self.answer_begins + len(before_stop(self.text[self.answer_begins :], strings))
        ended = last.token_ids[-1] in self.tokenizer.eos_ids
        return len(self.text) - (len(self.tokenizer.bytes_of(last.token_ids[-1:])) if ended else 0)
