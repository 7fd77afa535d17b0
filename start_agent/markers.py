"""Markers on the token stream: connectives, code fences, the end of thinking.

A marker is a run of bytes; tokens cut it anywhere, and one token may hold several. ``Matcher.step`` moves an
immutable ``State`` over one token, so that a state can be kept, forked and gone back to. ``Watch`` decides, for
one turn of generation, which token is the last one: engines push what they sample and stop when told; the
controller pushes what it got and reads the same answers.

The rules:

* A connective is found where its word ends. The byte after it must be seen first (``Wait`` is not ``Waiting``),
  and the token that brings that byte is discarded unless it also holds the end of the word. Word characters are
  ASCII letters, digits and the underscore; letter case is as listed.
* A code block opens at the end of a line of three backticks and at most one word, the language (a few blanks may
  follow); in a language that is run, the fence may stand at the end of a line of prose too, as models often write
  it. It closes at three backticks that begin a line (after three spaces at the most). Inside a block nothing else
  is a marker, and no connective is found in the word that follows three backticks.
* **Trim**: the token that completes a marker is kept whole; what came after it was never in the trace. A marker
  that is replaced (the end of thinking, the end of sequence before a hint) goes with every token that holds a
  part of it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from start_agent.tokenizer import Tokenizer

CONNECTIVES = ("Wait", "Alternatively")
"""The connectives after which START inserts hints (arXiv 2503.04625)."""

LANGUAGES = ("python", "py", "python3")
"""Language tags, in any letter case, of blocks that are run."""

LONGEST_LANGUAGE = 32
"""Bytes of a fence's language; a longer one opens nothing."""

MOST_BLANKS = 8
"""Blanks between a fence's language and the end of its line; after more it opens nothing."""


class MarkerKind(StrEnum):
    """What was found."""

    CONNECTIVE = "connective"
    CODE_OPEN = "code_open"
    CODE_CLOSE = "code_close"
    THINK_END = "think_end"


class StopKind(StrEnum):
    """Why a turn ended."""

    CONNECTIVE = "connective"
    CODE_CLOSE = "code_close"
    THINK_END = "think_end"
    EOS = "eos"
    REPETITION = "repetition"
    LENGTH = "length"


class Match(NamedTuple):
    """A marker. ``begin`` and ``end`` count bytes since the first state; ``word`` is the connective or language.

    An opening fence runs from its backticks to the end of its line; a closing one from the line break before it.
    """

    kind: MarkerKind
    begin: int
    end: int
    word: str


class Block(StrEnum):
    """Where in the text a state stands."""

    PROSE = "prose"
    CODE = "code"
    OTHER = "other"  # a block that is not run


class State(NamedTuple):
    """All that the matcher remembers: ``position`` bytes were read, the last of them are ``tail``.

    The first ``spent`` bytes of the tail are context only: what begins there is decided already.
    """

    block: Block = Block.PROSE
    answering: bool = False
    tail: bytes = b"\n"
    position: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True)
class Markers:
    """What counts as a marker for a model."""

    connectives: tuple[str, ...] = CONNECTIVES
    think_end: str = "</think>"
    languages: tuple[str, ...] = LANGUAGES


class Matcher:
    """Finds markers in a stream of tokens of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, markers: Markers | None = None) -> None:
        self.markers = markers or Markers()
        self.pieces: Sequence[bytes] = tokenizer.pieces
        self.think_end = self.markers.think_end.encode()
        self.think_end_begun = tuple(self.think_end[:size] for size in range(len(self.think_end) - 1, 0, -1))
        self._languages = frozenset(language.lower().encode() for language in self.markers.languages)
        words = _reachable([word.encode() for word in self.markers.connectives if word])
        fence_word = rb"```(?P<language>[\w+#.-]{0,%d})" % LONGEST_LANGUAGE
        # Each alternative begins with a literal byte, which the regex engine can look for quickly.
        alternatives = [
            fence_word + rb"[ \t]{0,%d}\r?\n" % MOST_BLANKS,
            re.escape(self.think_end),
            *map(_bounded, words),
        ]
        self._prose = re.compile(b"|".join(alternatives))
        self._closing = re.compile(rb"\n {0,3}```")
        self._line_begins = re.compile(rb"\n {0,3}\Z")
        self._in_fence_line = re.compile(fence_word + rb"\Z")
        fence = len("\n   ```") + LONGEST_LANGUAGE
        # A marker is decided at most this many bytes after it began (a connective by the byte that follows it) ...
        self._reach = max(len(self.think_end), fence + MOST_BLANKS + len("\r\n"), *(len(word) + 1 for word in words), 0)
        self._keep = self._reach + fence  # ... by what stood before it: at most a fence's line

    def step(self, state: State, token_id: int) -> tuple[State, tuple[Match, ...]]:
        """Read one token: the state after it, and the markers that it completed, in order."""
        # An id beyond the vocabulary is padding of the embedding: it has no bytes.
        return self.read(state, self.pieces[token_id] if token_id < len(self.pieces) else b"")

    def read(self, state: State, text: bytes) -> tuple[State, tuple[Match, ...]]:
        """Read a run of bytes, as ``step`` does a token's."""
        data = state.tail + text
        origin = state.position - len(state.tail)
        block, answering, spent = state.block, state.answering, state.spent
        matches: list[Match] = []
        start = spent
        while found := (self._prose if block is Block.PROSE else self._closing).search(data, start):
            start = found.end()
            kind, word = None, b""
            if block is not Block.PROSE:
                kind = MarkerKind.CODE_CLOSE if block is Block.CODE else None
                block = Block.PROSE
            elif found["language"] is not None:
                start -= 1  # the newline may be the first byte of the closing fence
                word = found["language"].lower()
                if word in self._languages:
                    kind, block = MarkerKind.CODE_OPEN, Block.CODE
                elif self._line_begins.search(data, 0, found.start()):
                    block = Block.OTHER
            elif found.group() == self.think_end:
                kind, answering = MarkerKind.THINK_END, True
            elif self._in_fence_line.search(data, 0, found.start()):
                continue  # the end of the line is still to come
            else:
                kind, word = MarkerKind.CONNECTIVE, found.group()
            spent = start
            if kind is not None:
                matches.append(Match(kind, origin + found.start(), origin + found.end(), word.decode()))
        cut = max(0, len(data) - self._keep)
        # What is decided must not be asked again once that context is out of sight.
        spent = max(spent, len(data) - self._reach)
        return State(block, answering, data[cut:], state.position + len(text), spent - cut), tuple(matches)

    def inserted(self, state: State, text: bytes, *, may_open: bool) -> tuple[State, tuple[Match, ...]]:
        """Pass over text that was put in, not generated: no marker spans the seam.

        With ``may_open`` (a hint) the text may end inside a code block, and its fences are among the matches;
        otherwise (a tool's output) prose goes on after it, whatever fences it spells.
        """
        after, found = self.read(State(position=state.position), text) if may_open else (State(), ())
        fences = tuple(match for match in found if match.kind in (MarkerKind.CODE_OPEN, MarkerKind.CODE_CLOSE))
        tail = text[-1:] or state.tail[-1:]
        spent = 0 if tail == b"\n" else len(tail)  # a line break is where a fence may begin, on either side
        return State(after.block, state.answering, tail, state.position + len(text), spent), fences


def _reachable(words: list[bytes]) -> list[bytes]:
    """The connectives without those that hold another: in a stream "Wait" is found before "Wait, but" could be."""
    return [word for word in words if not any(re.search(_bounded(other), word) for other in words if other != word)]


def _bounded(word: bytes) -> bytes:
    """A pattern for a connective: where its edge is a word character, its neighbour is none.

    A backtick before it is refused too: it is a name in code.
    """
    pattern = re.escape(word)
    if re.match(rb"[A-Za-z0-9_]", word):
        pattern += rb"(?<![A-Za-z0-9_`]%s)" % pattern  # looks back over the word: see ``Matcher.__init__``
    if re.search(rb"[A-Za-z0-9_]\Z", word):
        pattern += rb"(?=[^A-Za-z0-9_])"
    return pattern


@dataclass(frozen=True, slots=True)
class Repetition:
    """Endless repetition: the last tokens are one run of at most ``max_period`` tokens, over and over.

    It stops a turn once the run was said ``min_repeats`` times and covers ``min_tokens`` tokens.
    """

    max_period: int = 128
    min_repeats: int = 4
    min_tokens: int = 128
    check_every: int = 16

    def found(self, token_ids: Sequence[int]) -> bool:
        """Whether the sequence ends so."""
        size = len(token_ids)
        for period in range(1, self.max_period + 1):
            span = max(self.min_tokens, period * self.min_repeats)
            if span > size:
                break
            if (
                token_ids[-1] == token_ids[-1 - period]
                and token_ids[size - span + period :] == token_ids[size - span : size - period]
            ):
                return True
        return False

    @property
    def window(self) -> int:
        """How many tokens back it looks, at the most."""
        return max(self.min_tokens, self.max_period * self.min_repeats)


@dataclass(frozen=True, slots=True)
class Armed:
    """What ends a turn, besides its length.

    Attributes:
        eos_ids: ids that end the sequence.
        code: stop where a code block that is run closes.
        connective: stop at a connective, after passing over this many; None never stops at one.
        connective_after: tokens of the turn in which connectives do not count at all.
        replace: stop at the end of thinking, and drop its tokens, or those of an end of sequence before it.
        repetition: stop at endless repetition.
    """

    eos_ids: frozenset[int]
    code: bool = True
    connective: int | None = None
    connective_after: int = 0
    replace: bool = False
    repetition: Repetition | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a turn ended, and how many of its tokens are kept."""

    kind: StopKind
    keep: int


class Watch:
    """Reads the tokens of one turn and says where it ends.

    Args:
        matcher: the vocabulary's matcher.
        state: where the text stands before the turn.
        armed: what ends the turn.
        recent: the tokens that the model wrote before, for finding repetition across turns.
    """

    def __init__(self, matcher: Matcher, state: State, armed: Armed, recent: Sequence[int] = ()) -> None:
        self.armed = armed
        self.matches: list[Match] = []
        self.connectives_left = armed.connective
        self._matcher = matcher
        self._states = [state]
        window = armed.repetition.window if armed.repetition else 0
        self._written = list(recent[max(0, len(recent) - window) :])

    @property
    def state(self) -> State:
        """Where the text stands after the tokens pushed so far (after a stop: after those that are kept)."""
        return self._states[-1]

    @property
    def settled(self) -> int:
        """How many of the tokens pushed so far are certain to be kept: those that a listener may hear of."""
        state, begun = self.state, self._matcher.think_end_begun
        if self.armed.replace and self._thinking(state) and state.tail.endswith(begun):
            longest = next(part for part in begun if state.tail.endswith(part))
            return self._tokens_before(state.position - len(longest))
        return len(self._states) - 1

    def push(self, token_id: int) -> Stop | None:
        """Read the next token; a ``Stop`` says that the turn is over and how much of it is kept."""
        count = len(self._states)
        before = self._states[-1]
        if token_id in self.armed.eos_ids:
            dropped = self.armed.replace and self._thinking(before)
            if not dropped:
                self._states.append(before)
            return Stop(StopKind.EOS, count - dropped)
        after, matches = self._matcher.step(before, token_id)
        self._states.append(after)
        stop, thinking = None, not before.answering
        for match in matches:
            stop = self._judge(match, before, count) if thinking else None
            if stop is not None:
                del self._states[stop.keep + 1 :]
                break
            thinking = thinking and match.kind is not MarkerKind.THINK_END
        # A token that is kept is kept whole: with the markers behind the one that stopped the turn.
        self.matches += (match for match in matches if match.end <= self.state.position)
        return stop or self._repeats(token_id, count)

    def _judge(self, match: Match, before: State, count: int) -> Stop | None:
        if match.kind is MarkerKind.CODE_CLOSE and self.armed.code:
            return Stop(StopKind.CODE_CLOSE, count)
        if match.kind is MarkerKind.THINK_END and self.armed.replace:
            return Stop(StopKind.THINK_END, self._tokens_before(match.begin))
        if match.kind is MarkerKind.CONNECTIVE and self.connectives_left is not None:
            keep = count if match.end > before.position else count - 1
            if keep > self.armed.connective_after:
                self.connectives_left -= 1
                if self.connectives_left < 0:
                    return Stop(StopKind.CONNECTIVE, keep)
        return None

    def _repeats(self, token_id: int, count: int) -> Stop | None:
        rule = self.armed.repetition
        if rule is not None:
            self._written.append(token_id)
            if len(self._written) % rule.check_every == 0 and rule.found(self._written[-rule.window :]):
                return Stop(StopKind.REPETITION, count)
        return None

    def _tokens_before(self, position: int) -> int:
        """How many tokens of the turn end at or before a byte position."""
        return max(0, bisect_right(self._states, position, key=lambda state: state.position) - 1)

    def _thinking(self, state: State) -> bool:
        return state.block is Block.PROSE and not state.answering
