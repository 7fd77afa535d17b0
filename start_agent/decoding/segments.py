"""What a trace says, piece by piece while it grows: thoughts, code, outputs and the answer, without the markers.

A listener that shows thoughts and code apart (a server, a page) needs to know where a fence or the end of thinking lies
before it shows the characters around it. ``Segmenter`` reads the ids of the events of ``Solver.stream`` with the
matcher that the controller uses, holds back what may still become part of a marker, and gives out the rest at once.
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
    """What a piece of a trace is."""

    THOUGHT = "thought"
    CODE_OPEN = "code_open"
    """The fence of a block that is run, with its line."""
    CODE = "code"
    """Inside such a block, without the line break before the closing fence: as the model writes it.

    What runs is ``Dialect.code_in`` of it: the indentation of the first line of code is taken from every line, so that
    a block in a list runs. That is known at its end, and is ``CellStarted.code``.
    """
    CODE_CLOSE = "code_close"
    """Its closing fence. A block without one is not run: something else came first, or the trace ended."""
    OUTPUT = "output"
    """What was inserted after the code: its output, with the fences around it, or a notice."""
    MARKER = "marker"
    """The start or end of thinking or of the sequence, or a stop string: nothing that a reader is shown."""
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a trace, in order: the texts of all segments are the text of the trace behind its prompt.

    Attributes:
        kind: what it is.
        author: MODEL, or the kind of the span that was inserted.
        text: of it; a character is in the segment in which its last byte came.
        token_ids: those whose last byte is in it. All ids of the trace behind the prompt are in one segment each.
        logprobs: one for each id, where a listener that was given some has put them here.
        cause: that of the span that was inserted, where the listener has put it here.
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
        matcher: the solver's, for the trace's prompt.
        state: where the text stands behind the prompt (``Prompt.state``).
        eos_ids: ids that end the sequence.
        runs: whether code is run; where not, its blocks are part of the thoughts.
        stop: the settings' stop strings.
        opens: what the model writes first to open its thinking (``Prompt.think_opens``); it is a marker.
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
        self._opens = b"" if state.answering else opens.encode()  # until it is certain whether it is there
        self._conditions = StopConditions(frozenset(), code=False, stop=stop)
        self._checker = StopChecker(matcher, state, self._conditions)  # of the span that the model is writing
        self._kind = SegmentKind.ANSWER if state.answering else SegmentKind.THOUGHT
        self._held = bytearray()
        self._from = state.position  # of the first byte held
        self._ends: list[tuple[int, int]] = []  # of the tokens held: where each ends, and its id
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    @property
    def kind(self) -> SegmentKind:
        """What the text is at its present end."""
        return self._kind

    def written(self, token_ids: Iterable[int]) -> list[Segment]:
        """The model wrote these ids; returns what can be shown now."""
        segments: list[Segment] = []
        for token_id in token_ids:
            if token_id in self._eos_ids:
                segments += self.flush()
                spelled = self._matcher.pieces[token_id].decode("utf-8", errors="replace")
                segments.append(Segment(SegmentKind.MARKER, SpanKind.MODEL, spelled, (token_id,)))
                continue
            known = len(self._checker.matches)
            self._checker.push(token_id)
            self._held += self._matcher.bytes_of(token_id)
            self._ends.append((self._from + len(self._held), token_id))
            segments += self._opening()
            segments += self._cut(self._checker.matches[known:], SpanKind.MODEL)
            if self._checker.stop_begins is not None:  # the end of the answer: what follows is for nobody
                segments += self._take(self._checker.stop_begins - self._from, self._kind, SpanKind.MODEL)
                self._kind = SegmentKind.MARKER
            segments += self._take(len(self._held) - self._undecided(), self._kind, SpanKind.MODEL)
        return _joined(segments)

    def inserted(self, kind: SpanKind, token_ids: Sequence[int]) -> list[Segment]:
        """A span that the model did not write joins the trace."""
        segments = self.flush()
        self._opens = b""
        text = b"".join(map(self._matcher.bytes_of, token_ids))
        state, matches = self._matcher.inserted(self._checker.state, text, kind)
        self._checker = StopChecker(self._matcher, state, self._conditions)
        for token_id in token_ids:
            self._held += self._matcher.bytes_of(token_id)
            self._ends.append((self._from + len(self._held), token_id))
        if kind is not SpanKind.HINT:
            # A notice may open or end the thinking; what is before that is no thought and no code.
            size = matches[0].begin - self._from if matches else len(self._held)
            segments += self._take(size, SegmentKind.OUTPUT, kind)
        segments += self._cut(matches, kind)
        segments += self._take(len(self._held), self._kind, kind)
        return _joined([*segments, *self._rest(kind)])

    def flush(self) -> list[Segment]:
        """What was held back, once nothing more comes, or nothing that could complete a marker."""
        return [*self._take(len(self._held), self._kind, SpanKind.MODEL), *self._rest(SpanKind.MODEL)]

    def _opening(self) -> Iterator[Segment]:
        """The marker that opens the thinking, once it is certain that it is there, whether its line ends or not."""
        held, marker = bytes(self._held), self._opens.rstrip()
        if not marker or (len(held) < len(self._opens) and self._opens.startswith(held)):
            return
        found = next((part for part in (self._opens, marker) if held.startswith(part)), b"")
        self._opens = b""
        if found:
            yield from self._take(len(found), SegmentKind.MARKER, SpanKind.MODEL)

    def _cut(self, matches: Iterable[Match], author: SpanKind) -> Iterator[Segment]:
        """The segments up to the last of these markers."""
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
        """The first bytes of what is held, as a segment; ``always``: also where that is nothing."""
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
        """Bytes of a character that was never completed."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        if text:
            yield Segment(self._kind, author, text)

    def _undecided(self) -> int:
        """How many of the last bytes may be part of a marker that is not complete."""
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
    """The length of the longest of these with which the data ends; they come longest first."""
    return next((len(part) for part in beginnings if data.endswith(part)), 0)


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """The same with neighbours of one kind made one; those that open or close a block stay."""
    found: list[Segment] = []
    apart = (SegmentKind.CODE_OPEN, SegmentKind.CODE_CLOSE)
    for one in segments:
        last = found[-1] if found else None
        if last is not None and last.kind is one.kind and last.author is one.author and one.kind not in apart:
            found[-1] = Segment(one.kind, one.author, last.text + one.text, last.token_ids + one.token_ids)
        else:
            found.append(one)
    return found
