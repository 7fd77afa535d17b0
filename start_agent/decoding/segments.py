"""A streamed trace cut into segments: thoughts, code, outputs and the answer, without the markers.

A client that renders thoughts and code separately (the server, a page) must know where a fence or the end of thinking
is before it shows the characters around it. ``Segmenter`` reads the token ids of the events of ``Solver.stream`` with
the controller's matcher, holds back what may still become part of a marker, and returns the rest immediately.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from start_agent.logprobs import TokenLogprob
from start_agent.tokens.fences import fence_begun
from start_agent.tokens.markers import MarkerKind, Match, Matcher, State
from start_agent.tokens.stopping import StopChecker, StopConditions
from start_agent.trace import SpanKind


class SegmentKind(StrEnum):
    """The kind of a segment."""

    THOUGHT = "thought"
    CODE_OPEN = "code_open"
    """The opening fence of a block that is run, with the rest of its line."""
    CODE = "code"
    """The inside of such a block as the model wrote it, without the line break before the closing fence.

    What runs is ``Dialect.code_in`` of it, dedented by the indentation of its first line, so that a block in a list
    runs. It is known once the block is closed, as ``CellStarted.code``.
    """
    CODE_CLOSE = "code_close"
    """Its closing fence. A block without one is not run: something else came first, or the trace ended."""
    OUTPUT = "output"
    """Inserted after the code: its output, with the fences around it, or a notice."""
    MARKER = "marker"
    """The start or end of thinking, the end of the sequence, or a stop string: not shown to readers."""
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a trace. The texts of all segments, concatenated, are the text of the trace after its prompt.

    Attributes:
        kind: the kind.
        author: MODEL, or the kind of the inserted span.
        text: the text; a character belongs to the segment that has its last byte.
        token_ids: the ids whose last byte is in the segment. Each id after the prompt is in exactly one segment.
        logprobs: one entry per id, if the caller has set them.
        cause: the inserted span's cause, if the caller has set it.
    """

    kind: SegmentKind
    author: SpanKind
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    cause: str = ""


_MAY_CLOSE = re.compile(rb"[ \t]*(`*|~*)\Z")


class Segmenter:
    """Cuts one trace into segments.

    Args:
        matcher: the solver's matcher for the trace's prompt.
        state: the parser's state after the prompt (``Prompt.state``).
        eos_ids: ids that end the sequence.
        runs: whether code is run; if not, code blocks are part of the thoughts.
        stop: the settings' stop strings.
        opens: the marker with which the model opens its thinking (``Prompt.think_opens``).
    """

    def __init__(
        self,
        matcher: Matcher,
        state: State,
        eos_ids: frozenset[int],
        *,
        runs: bool = True,
        stop: tuple[str, ...] = (),
        opens: str = "",
    ) -> None:
        self._matcher, self._eos_ids, self._runs = matcher, eos_ids, runs
        self._opens = b"" if state.answering else opens.encode()  # empty once it is found, or cannot come any more
        self._conditions = StopConditions(frozenset(), code=False, stop=stop)
        self._checker = StopChecker(matcher, state, self._conditions)  # for the span that the model is writing
        self._kind = SegmentKind.ANSWER if state.answering else SegmentKind.THOUGHT
        self._held = bytearray()
        self._from = state.position  # position of the first held byte
        self._ends: list[tuple[int, int]] = []  # (end position, id) of each held token
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    @property
    def kind(self) -> SegmentKind:
        """The kind of the text at its current end."""
        return self._kind

    def written(self, token_ids: Iterable[int]) -> list[Segment]:
        """The model wrote these ids. Returns the segments that are certain."""
        segments: list[Segment] = []
        for token_id in token_ids:
            if token_id in self._eos_ids:
                segments += self.flush()
                spelled = self._matcher.pieces[token_id].decode("utf-8", errors="replace")
                segments.append(Segment(SegmentKind.MARKER, SpanKind.MODEL, spelled, (token_id,)))
                continue
            matches = self._checker.matches
            known = len(matches)
            self._checker.push(token_id)
            self._held += self._matcher.bytes_of(token_id)
            self._ends.append((self._from + len(self._held), token_id))
            if self._opens:
                segments += self._opening()
            if len(matches) > known:
                segments += self._cut(matches[known:], SpanKind.MODEL)
            if self._checker.stop_begins is not None:  # the end of the answer: the rest is not shown
                segments += self._take(self._checker.stop_begins - self._from, self._kind, SpanKind.MODEL)
                self._kind = SegmentKind.MARKER
        segments += self._take(len(self._held) - self._undecided(), self._kind, SpanKind.MODEL)
        return _joined(segments)

    def inserted(self, kind: SpanKind, token_ids: Sequence[int]) -> list[Segment]:
        """A span that the model did not write was appended. Returns its segments, after what was held back."""
        segments = self.flush()
        self._opens = b""
        text = b"".join(map(self._matcher.bytes_of, token_ids))
        state, matches = self._matcher.inserted(self._checker.state, text, kind)
        self._checker = StopChecker(self._matcher, state, self._conditions)
        for token_id in token_ids:
            self._held += self._matcher.bytes_of(token_id)
            self._ends.append((self._from + len(self._held), token_id))
        if kind is not SpanKind.HINT:
            # A notice may open or end the thinking; the text before that marker is neither thought nor code.
            size = matches[0].begin - self._from if matches else len(self._held)
            segments += self._take(size, SegmentKind.OUTPUT, kind)
        segments += self._cut(matches, kind)
        segments += self._take(len(self._held), self._kind, kind)
        return _joined([*segments, *self._rest(kind)])

    def flush(self) -> list[Segment]:
        """The segments held back. Call it at the end, or where no marker can be completed any more."""
        return [*self._take(len(self._held), self._kind, SpanKind.MODEL), *self._rest(SpanKind.MODEL)]

    def _opening(self) -> Iterator[Segment]:
        """The marker that opens the thinking, with or without its line break, once it is complete."""
        held, marker = bytes(self._held), self._opens.rstrip()
        if not marker or (len(held) < len(self._opens) and self._opens.startswith(held)):
            return
        found = next((part for part in (self._opens, marker) if held.startswith(part)), b"")
        self._opens = b""
        if found:
            yield from self._take(len(found), SegmentKind.MARKER, SpanKind.MODEL)

    def _cut(self, matches: Iterable[Match], author: SpanKind) -> Iterator[Segment]:
        """The segments up to and including the last of these markers."""
        for match in matches:
            match match.kind:
                case MarkerKind.CODE_OPEN if self._runs:
                    here, after = SegmentKind.CODE_OPEN, SegmentKind.CODE
                case MarkerKind.CODE_CLOSE if self._runs:
                    here, after = SegmentKind.CODE_CLOSE, SegmentKind.THOUGHT
                case MarkerKind.THINK_END:
                    here, after = SegmentKind.MARKER, SegmentKind.ANSWER
                case MarkerKind.THINK_START:
                    here, after = SegmentKind.MARKER, SegmentKind.THOUGHT
                case _:
                    continue
            yield from self._take(match.begin - self._from, self._kind, author)
            yield from self._take(match.end - self._from, here, author, always=True)
            self._kind = after

    def _take(self, size: int, kind: SegmentKind, author: SpanKind, *, always: bool = False) -> Iterator[Segment]:
        """The first held bytes as a segment; with ``always`` even if it is empty."""
        size = max(0, size)
        data = bytes(self._held[:size])
        del self._held[:size]
        self._from += size
        count = next((i for i, (end, _) in enumerate(self._ends) if end > self._from), len(self._ends))
        ids = tuple(token_id for _, token_id in self._ends[:count])
        del self._ends[:count]
        text = self._decoder.decode(data)
        if text or ids or always:
            yield Segment(kind, author, text, ids)

    def _rest(self, author: SpanKind) -> Iterator[Segment]:
        """The bytes of an incomplete character."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        if text:
            yield Segment(self._kind, author, text)

    def _undecided(self) -> int:
        """How many of the last bytes may belong to an incomplete marker."""
        held, state = bytes(self._held), self._checker.state
        if self._kind is SegmentKind.MARKER:
            return 0
        if self._opens:
            return len(held)
        if self._kind is SegmentKind.ANSWER:
            start = self._matcher.start if state.unopened else b""
            begun = _begun(held, (start[:size] for size in range(len(start) - 1, 0, -1)))
            return max(begun, self._checker.undecided)
        found = _begun(held, self._matcher.think_end_begun)
        if self._runs:
            code = self._kind is SegmentKind.CODE
            tags = self._matcher.code_close_begun if code else self._matcher.code_open_begun
            found = max(found, _begun(held, tags))
        if self._kind is not SegmentKind.CODE:
            return max(found, fence_begun(state.line, begins=state.begins)) if self._runs else found
        line = held[held.rfind(b"\n") + 1 :]
        if _MAY_CLOSE.match(line):
            found = max(found, len(line) + held.endswith(b"\n", 0, len(held) - len(line)))
        return found


def _begun(data: bytes, beginnings: Iterable[bytes]) -> int:
    """The length of the longest of these that the data ends with; ``beginnings`` are sorted longest first."""
    return next((len(part) for part in beginnings if data.endswith(part)), 0)


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Merge neighbours of one kind and author, except fences."""
    found: list[Segment] = []
    apart = (SegmentKind.CODE_OPEN, SegmentKind.CODE_CLOSE)
    for one in segments:
        last = found[-1] if found else None
        if last is not None and last.kind is one.kind and last.author is one.author and one.kind not in apart:
            found[-1] = Segment(one.kind, one.author, last.text + one.text, last.token_ids + one.token_ids)
        else:
            found.append(one)
    return found
