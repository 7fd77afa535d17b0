"""Finds markers in a stream of tokens: connectives, code fences and the end of thinking.

A marker is a sequence of bytes; tokens may split it anywhere, and one token may contain several. ``Matcher.step`` moves
an immutable ``State`` over one token, so states can be stored, forked and restored. ``stopping.py`` decides what ends a
turn of generation, and which of its tokens are kept.

The rules:

* A connective is found at the end of its word, after the next byte is known (``Wait`` is not ``Waiting``). The token
  with that byte is discarded unless it also contains the end of the word. Word characters are ASCII letters, digits and
  the underscore; case matters. In a line that may still open a block, no connective is found.
* A code block opens at the end of its fence's line (see ``fences``). If its language is executed, it closes immediately
  with its closing fence, whatever follows on the line; otherwise with the end of that line. Inside a block that is not
  executed, a fence with an executed language opens its own block: the earlier one was never closed.
* If code is between tags (``Markers.code_open``), they open and close it anywhere, but are not nested; then fenced
  blocks are not executed, and inside the tags they are not recognized.
* The end of thinking closes any block, and no markers are found after it. If it ends with an added token, inside a
block
  only that token counts and not text that spells it (``print('</think>')``). If it is plain text for the vocabulary,
  inside a block it must be at the beginning of its line, after white space at most, or follow a fence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from start_agent.tokens.fences import LONGEST_LINE, Fence, Opening, is_one_of, may_open, opening
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind

CONNECTIVES = ("Wait", "Alternatively")
"""The connectives after which START inserts hints (arXiv 2503.04625)."""

LANGUAGES = ("python", "py", "python3")
"""The languages of executed blocks, in any letter case."""


class MarkerKind(StrEnum):
    """The kind of a marker."""

    CONNECTIVE = "connective"
    CODE_OPEN = "code_open"
    CODE_CLOSE = "code_close"
    THINK_START = "think_start"
    THINK_END = "think_end"


class Match(NamedTuple):
    """A found marker. ``begin`` and ``end`` count bytes since the first state; ``word`` is the connective or language.

    An opening fence extends from its backticks to the end of its line; a closing one begins with the line break before
    it.
    """

    kind: MarkerKind
    begin: int
    end: int
    word: str


class Block(StrEnum):
    """The kind of text at a position."""

    PROSE = "prose"
    CODE = "code"
    OTHER = "other"  # a block that is not executed


class State(NamedTuple):
    """The state of the matcher after ``position`` bytes; at most a few hundred bytes large.

    Attributes:
        block: the kind of text; ``fence`` is the fence that opened the block, None for a tag.
        answering: whether the thinking has ended, after which there are no markers.
        line: the end of the current line, for fences; the complete line if ``begins``.
        tail: the last bytes, for incomplete markers; what begins in its first ``spent`` bytes is already decided, and
            if it is longer, a marker may begin after them.
        position: the number of bytes read.
        unopened: whether the thinking has not started yet; until then the text is read like an answer.
    """

    block: Block = Block.PROSE
    answering: bool = False
    fence: Fence | None = None
    line: bytes = b""
    begins: bool = True
    tail: bytes = b""
    spent: int = 0
    position: int = 0
    unopened: bool = False


@dataclass(frozen=True, slots=True)
class Markers:
    """The markers of a model.

    Attributes:
        connectives: words after which a hint may be inserted.
        think_ends: the texts that end the thinking. One may be several tokens long, like a change of channels; a hint
            replaces all of it.
        languages: the languages of executed blocks, in lower case.
        think_start: the text that opens the thinking, for a state that is ``unopened``.
        code_open, code_close: the tags around executed code; empty without tags.
    """

    connectives: tuple[str, ...] = CONNECTIVES
    think_ends: tuple[str, ...] = ("</think>",)
    languages: tuple[str, ...] = LANGUAGES
    think_start: str = ""
    code_open: str = ""
    code_close: str = ""


class Matcher:
    """Finds markers in a stream of tokens of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, markers: Markers | None = None) -> None:
        self.markers = markers or Markers()
        self.pieces: Sequence[bytes] = tokenizer.pieces
        self.start = self.markers.think_start.encode()
        self._languages = frozenset(language.lower() for language in self.markers.languages)
        ends = [end.encode() for end in self.markers.think_ends if end]
        # The end that is completed first is found; of those completed together, the one that begins first.
        self._ends = frozenset(end for end in ends if not any(other in end[:-1] for other in ends))
        begun = {end[:size] for end in self._ends for size in range(1, len(end))}
        self.think_end_begun = tuple(sorted(begun, key=len, reverse=True))
        added = {token_id: spelled.encode() for token_id, spelled in tokenizer.added.items() if spelled}
        self._added_ends = frozenset(end for end in self._ends if end.endswith(tuple(added.values())))
        self._closing_ids = frozenset(
            token_id for token_id, spelled in added.items() if any(end.endswith(spelled) for end in self._ends)
        )
        words = _reachable([word.encode() for word in self.markers.connectives if word])
        self._open, self._close = self.markers.code_open.encode(), self.markers.code_close.encode()
        tags = [tag for tag in (self._open, self._close) if tag]
        self.code_open_begun, self.code_close_begun = _beginnings(self._open), _beginnings(self._close)
        # Each alternative begins with a literal byte, which the regex engine finds quickly.
        end_patterns = [re.escape(end) for end in sorted(self._ends, key=len, reverse=True)]
        opens, closes = ([re.escape(tag)] * bool(tag) for tag in (self._open, self._close))
        self._prose = _any_of([*end_patterns, *opens, *map(_bounded, words)])
        self._inside, self._outside = _any_of([*end_patterns, *closes]), _any_of([*end_patterns, *opens])
        # A marker in a line is decided at most this many bytes after its beginning: a connective by the next byte.
        self._reach = max([0, *map(len, (*self._ends, *tags)), *(len(word) + 1 for word in words)])
        self._longest = LONGEST_LINE + self._reach
        all_markers = sorted({*self._ends, *tags, *words})
        self._incomplete = _any_of([_beginning(marker) + rb"\Z" for marker in all_markers])
        firsts = b"".join({marker[:1]: None for marker in all_markers})
        self._special, self._fences = re.compile(b"[\n" + re.escape(firsts) + b"]"), re.compile(b"[`~]")

    @cached_property
    def _plain(self) -> bytes:
        """For each id: 0 if the token has a line break or the first byte of a marker, 1 if of a fence, otherwise 2."""
        return bytes(
            0 if self._special.search(piece) else 1 if self._fences.search(piece) else 2 for piece in self.pieces
        )

    def step(self, state: State, token_id: int) -> tuple[State, tuple[Match, ...]]:
        """Read one token; returns the state after it, and the markers that it completed, in order."""
        if token_id >= len(self.pieces):  # padding of the embedding has no bytes
            return state, ()
        text = self.pieces[token_id]
        block, answering, fence, line, begins, tail, spent, position, unopened = state
        if answering and not unopened:
            return State(block, True, fence, line, begins, tail, spent, position + len(text)), ()
        plain = self._plain[token_id]
        if plain and spent == len(tail) and not answering and (plain > 1 or block is not Block.CODE):
            # A fast path for most tokens, which neither begin nor complete a marker or a line; equivalent to ``read``.
            line += text
            if len(line) > self._longest:
                line, begins = line[-self._longest :], False
            tail = (tail + text)[-self._reach - 1 :]
            return State(block, False, fence, line, begins, tail, len(tail), position + len(text)), ()
        return self.read(state, text, closing=token_id in self._closing_ids)

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of a token; empty for an id beyond the vocabulary (padding of the embedding)."""
        return self.pieces[token_id] if token_id < len(self.pieces) else b""

    def read(self, state: State, text: bytes, *, closing: bool = False) -> tuple[State, tuple[Match, ...]]:
        """Read bytes, as ``step`` does for a token. The result does not depend on how a text is split.

        ``closing``: whether the bytes are an added token that completes an end of thinking.
        """
        position = state.position + len(text)
        if state.answering:
            if state.unopened:
                return self._until_start(state, text, closing)
            return state._replace(position=position), ()
        block, fence, line, begins, spent = state.block, state.fence, state.line, state.begins, state.spent
        data = state.tail + text
        origin = position - len(data)  # of data's offsets
        matches: list[Match] = []
        at = len(state.tail)
        while at < len(data):
            at, piece = (data.find(b"\n", at) + 1 or len(data)), at
            line += data[piece:at]
            start = at - len(line)  # where the line begins
            if block is Block.CODE and fence and begins and (closed := fence.closed_by(line)):
                matches.append(Match(MarkerKind.CODE_CLOSE, origin + start - 1, origin + start + closed, ""))
                block, fence, spent = Block.PROSE, None, start + closed
                line, begins, start = line[closed:], False, spent
            while found := (
                self._prose if block is Block.PROSE else self._inside if block is Block.CODE else self._outside
            ).search(data, spent, at):
                before = line[: max(found.start() - start, 0)]
                begun = begins and len(before) <= LONGEST_LINE
                before, spent = before[-LONGEST_LINE:], found.end()
                kind, word = MarkerKind.CONNECTIVE, found.group()
                if word == self._open and block is not Block.CODE:
                    block, fence = Block.CODE, None
                    matches.append(Match(MarkerKind.CODE_OPEN, origin + found.start(), origin + spent, ""))
                    continue
                if word == self._close and block is Block.CODE:
                    block = Block.PROSE
                    line, begins, start = data[spent:at], False, spent
                    matches.append(Match(MarkerKind.CODE_CLOSE, origin + found.start(), origin + spent, ""))
                    continue
                if word in self._ends:
                    token = closing and spent == len(data)
                    if block is not Block.PROSE and not self._ends_block(word, before, begun, token):
                        spent = found.start() + 1
                        continue
                    kind, word = MarkerKind.THINK_END, b""
                elif may_open(before, begins=begun):
                    continue
                matches.append(Match(kind, origin + found.start(), origin + found.end(), word.decode()))
                if kind is MarkerKind.THINK_END:
                    return State(answering=True, position=position), tuple(matches)
            begins = begins and len(line) <= self._longest
            line = line[-self._longest :]
            if line.endswith(b"\n"):
                inside = block is not Block.PROSE
                block, fence, opened = self._line_ended(block, fence, line, begins)
                if inside and block is Block.PROSE:
                    spent = max(spent, at - 1)  # the block contains no connective, but its last byte may precede one
                if opened is not None:
                    begin = origin + at - len(line) + opened.begin
                    matches.append(Match(MarkerKind.CODE_OPEN, begin, origin + at, opened.language))
                line, begins = b"", True
        cut = max(0, len(data) - self._reach - 1)  # one byte more, for the character before a connective
        # Decided parts must not be searched again without that context.
        spent = max(spent, len(data) - self._reach)
        incomplete = self._incomplete.search(data, spent)
        spent = (len(data) if incomplete is None else incomplete.start()) - cut
        return State(block, False, fence, line, begins, data[cut:], spent, position), tuple(matches)

    def _until_start(self, state: State, text: bytes, closing: bool) -> tuple[State, tuple[Match, ...]]:
        """Skip an answer until the thinking opens, and continue from there."""
        data, position = state.tail + text, state.position + len(text)
        begin = data.find(self.start)
        if begin < 0:
            tail = data[max(0, len(data) - len(self.start) + 1) :]
            return state._replace(tail=tail, position=position), ()
        end = begin + len(self.start)
        opened = position - len(data) + end
        after, found = self.read(State(position=opened), data[end:], closing=closing)
        return after, (Match(MarkerKind.THINK_START, opened - len(self.start), opened, ""), *found)

    def _ends_block(self, end: bytes, before: bytes, begins: bool, token: bool) -> bool:
        """Whether an end of thinking counts inside a block; ``before`` is its line, ``token`` whether it is a token."""
        if end in self._added_ends:
            return token
        before = before.rstrip(b" \t")
        return b"\n" in end or (begins and not before) or before.endswith((b"```", b"~~~"))

    def _line_ended(
        self, block: Block, fence: Fence | None, line: bytes, begins: bool
    ) -> tuple[Block, Fence | None, Opening | None]:
        """The kind of text and the fence after a line, and the opening of an executed block, if any."""
        if block is Block.CODE:
            return block, fence, None
        opened = opening(line, begins=begins)
        if opened is not None and (fence is None or opened.fence.run.startswith(fence.run)):
            if is_one_of(opened.language, self._languages):
                return Block.CODE, opened.fence, opened
            if fence is None and not opened.after_prose:
                return Block.OTHER, opened.fence, None
        if fence is not None and begins and (closed := fence.closed_by(line)):
            rest = line[closed:].lstrip(fence.run[:1])
            if rest[:1].isspace():  # text may follow a closing fence, but not directly, like a language
                return Block.PROSE, None, None
        return block, fence, None

    def inserted(self, state: State, text: bytes, kind: SpanKind) -> tuple[State, tuple[Match, ...]]:
        """Read inserted text; no marker crosses its boundaries.

        A hint may close a block and end inside another; its fences are among the matches. A notice may open a thinking
        that is ``unopened``, or end one. After other text (a tool's output) prose continues, whatever fences it has.
        """
        position = state.position + len(text)
        if kind is SpanKind.NOTICE and not state.answering:
            for end in self._ends:
                if text.endswith(end):
                    match = Match(MarkerKind.THINK_END, position - len(end), position, "")
                    return State(answering=True, position=position), (match,)
        before = State(state.block, False, state.fence, position=state.position)
        after, found = self.read(before, text) if kind is SpanKind.HINT else (State(), ())
        kept = tuple(match for match in found if match.kind in (MarkerKind.CODE_OPEN, MarkerKind.CODE_CLOSE))
        begins = text.endswith(b"\n") if text else state.begins and not state.line  # whether a fence may follow
        tail = text[-1:] or state.tail[-1:]
        if kind is SpanKind.NOTICE and state.unopened and self.start in text:
            end_of_start = state.position + text.index(self.start) + len(self.start)
            kept = (Match(MarkerKind.THINK_START, end_of_start - len(self.start), end_of_start, ""),)
        elif state.answering:
            return state._replace(position=position), kept
        return State(after.block, False, after.fence, b"", begins, tail, len(tail), position), kept


def _any_of(patterns: Sequence[bytes]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(patterns) or rb"(?!)")


def _beginning(marker: bytes) -> bytes:
    """A pattern for a marker and all its beginnings, the longest first."""
    return b"(?:".join(re.escape(marker[at : at + 1]) for at in range(len(marker))) + b")?" * (len(marker) - 1)


def _beginnings(marker: bytes) -> tuple[bytes, ...]:
    """The incomplete beginnings of a marker, longest first."""
    return tuple(marker[:size] for size in range(len(marker) - 1, 0, -1))


def _reachable(words: list[bytes]) -> list[bytes]:
    """The connectives that do not contain another: in a stream "Wait" is found before "Wait, but"."""
    return [word for word in words if not any(re.search(_bounded(other), word) for other in words if other != word)]


def _bounded(word: bytes) -> bytes:
    """A pattern for a connective with word boundaries.

    A backtick before it is excluded, too: then it is a name in code.
    """
    pattern = re.escape(word)
    if re.match(rb"[A-Za-z0-9_]", word):
        pattern += rb"(?<![A-Za-z0-9_`]%s)" % pattern  # a lookbehind over the word: see ``Matcher.__init__``
    if re.search(rb"[A-Za-z0-9_]\Z", word):
        pattern += rb"(?=[^A-Za-z0-9_])"
    return pattern


def answer_begins(known: int | None, matches: Iterable[Match]) -> int | None:
    """Where the answer begins in a text: after the first end of thinking since the last beginning of thinking.

    Args:
        known: where it began before these matches; None while thinking.
        matches: the later matches, in order.
    """
    for match in matches:
        if match.kind is MarkerKind.THINK_START:
            known = None
        elif match.kind is MarkerKind.THINK_END and known is None:
            known = match.end
    return known
