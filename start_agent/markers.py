"""Markers on the token stream: connectives, code fences, the end of thinking.

A marker is a run of bytes; tokens cut it anywhere, and one token may hold several. ``Matcher.step`` moves an
immutable ``State`` over one token, so that a state can be kept, forked and gone back to. What ends a turn of
generation, and which of its tokens are kept, is decided in ``watch.py``.

The rules:

* A connective is found where its word ends. The byte after it must be seen first (``Wait`` is not ``Waiting``),
  and the token that brings that byte is discarded unless it also holds the end of the word. Word characters are
  ASCII letters, digits and the underscore; letter case is as listed.
* A code block opens at the end of a line of three backticks and at most one word, the language (a few blanks may
  follow); in a language that is run, the fence may stand at the end of a line of prose too, as models often write
  it. It closes at three backticks that begin a line (after three spaces at the most). Inside a block nothing else
  is a marker, and no connective is found in the word that follows three backticks.
"""

from __future__ import annotations

import re
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
    """What counts as a marker for a model.

    Attributes:
        connectives: words after which a hint may come.
        think_ends: the spellings of the end of thinking. One may be several tokens long, as the step from one channel
            to another is; a hint replaces all of it.
        languages: tags of the code blocks that are run, in lower case.
    """

    connectives: tuple[str, ...] = CONNECTIVES
    think_ends: tuple[str, ...] = ("</think>",)
    languages: tuple[str, ...] = LANGUAGES


class Matcher:
    """Finds markers in a stream of tokens of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, markers: Markers | None = None) -> None:
        self.markers = markers or Markers()
        self.pieces: Sequence[bytes] = tokenizer.pieces
        ends = [end.encode() for end in self.markers.think_ends if end]
        # What completes earlier is found first; of those that end together, the one that begins first.
        self._ends = [end for end in ends if not any(other in end[:-1] for other in ends)]
        begun = {end[:size] for end in self._ends for size in range(1, len(end))}
        self.think_end_begun = tuple(sorted(begun, key=len, reverse=True))
        self._languages = frozenset(language.lower().encode() for language in self.markers.languages)
        words = _reachable([word.encode() for word in self.markers.connectives if word])
        fence_word = rb"```(?P<language>[\w+#.-]{0,%d})" % LONGEST_LANGUAGE
        # Each alternative begins with a literal byte, which the regex engine can look for quickly.
        alternatives = [
            fence_word + rb"[ \t]{0,%d}\r?\n" % MOST_BLANKS,
            *map(re.escape, self._ends),
            *map(_bounded, words),
        ]
        self._prose = re.compile(b"|".join(alternatives))
        self._closing = re.compile(rb"\n {0,3}```")
        self._line_begins = re.compile(rb"\n {0,3}\Z")
        self._in_fence_line = re.compile(fence_word + rb"\Z")
        fence = len("\n   ```") + LONGEST_LANGUAGE
        # A marker is decided at most this many bytes after it began (a connective by the byte that follows it) ...
        self._reach = max(fence + MOST_BLANKS + len("\r\n"), *map(len, self._ends), *(len(word) + 1 for word in words))
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
            elif found.group() in self._ends:
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
