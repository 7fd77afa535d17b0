"""Where a turn of generation ends, and which of its tokens are kept: the trim rule.

Engines push what they sample into a ``StopChecker`` and stop when told; the controller says what to stop at
(``StopConditions``), pushes what it got, and reads the same markers.

**Trim**: the token that completes a marker is kept whole; what came after it was never in the trace. A connective is
certain only once the byte after it was seen: the token that brings that byte is dropped, unless it also holds the end
of the word. A marker that is replaced (the end of thinking, the end of sequence before a hint) goes with every token
that holds a part of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import final

from start_agent.tokens.markers import Block, MarkerKind, Match, Matcher, State
from start_agent.tokens.ngrams import ngram_hashes

_NGRAM = 16  # tokens: seldom said twice in a row where nothing repeats


class StopKind(StrEnum):
    """Why a turn ended."""

    CONNECTIVE = "connective"
    CODE_CLOSE = "code_close"
    THINK_END = "think_end"
    EOS = "eos"
    REPETITION = "repetition"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Repetition:
    """Endless repetition: the last tokens are one run of at most ``max_period`` tokens, over and over.

    A ``StopChecker`` shows it thoughts alone, no code and no tables.

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

    def anywhere(self, token_ids: Sequence[int]) -> bool:
        """Whether the sequence says so anywhere, not only at its end: whether ``found`` holds of a beginning of it."""
        import numpy as np

        if not self._any_near(token_ids):
            return False
        ids = np.asarray(token_ids, dtype=np.int64)
        for period in range(1, min(self.max_period, len(ids) - 1) + 1):
            span = max(self.min_tokens, period * self.min_repeats)
            # The sequence repeats with this period wherever so many tokens in a row equal those a period before.
            unequal = np.flatnonzero(ids[period:] != ids[:-period])
            edges = np.concatenate(([-1], unequal, [len(ids) - period]))
            if np.diff(edges).max() - 1 >= span - period:
                return True
        return False

    def _any_near(self, token_ids: Sequence[int]) -> bool:
        """Whether any n-gram comes again within ``max_period`` tokens, as one does in every repetition: rare, and
        fast to see."""
        import numpy as np

        equal = (max(self.min_tokens, period * self.min_repeats) - period for period in range(1, self.max_period + 1))
        size = min(_NGRAM, *equal)  # a repetition has at least one n-gram that a period later is there again
        hashes = ngram_hashes(token_ids, max(size, 1))
        order = np.argsort(hashes, kind="stable")
        near = np.diff(order) <= self.max_period
        return bool((near & (np.diff(hashes[order]) == 0)).any())

    @property
    def window(self) -> int:
        """How many tokens back it looks, at the most."""
        return max(self.min_tokens, self.max_period * self.min_repeats)


@dataclass(frozen=True, slots=True)
class StopConditions:
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


NEVER = StopConditions(frozenset(), code=False)
"""Nothing but its length ends the turn; the matcher reads every token all the same."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a turn ended, and how many of its tokens are kept."""

    kind: StopKind
    num_kept: int


def _is_thought(state: State) -> bool:
    """Whether what was just read is prose: blocks of code and lines of tables repeat themselves for good reasons."""
    return state.block is Block.PROSE and not state.line.lstrip(b" \t").startswith(b"|")


@final
class StopChecker:
    """Reads the tokens of one turn and says where it ends.

    Args:
        matcher: the vocabulary's matcher.
        state: where the text stands before the turn.
        conditions: what ends the turn.
        recent: the tokens of the model's thoughts before, for finding repetition across turns (see ``thoughts``).

    Nothing else decides: an engine may take these four, and let a checker of its own read where the tokens arise.
    """

    def __init__(self, matcher: Matcher, state: State, conditions: StopConditions, recent: Sequence[int] = ()) -> None:
        self.matcher, self.conditions = matcher, conditions
        self.matches: list[Match] = []
        self.connectives_left = conditions.connective
        self._states = [state]
        window = conditions.repetition.window if conditions.repetition else 0
        self.recent = tuple(recent[max(0, len(recent) - window) :])
        self._written = list(self.recent)

    @property
    def state(self) -> State:
        """Where the text stands after the tokens pushed so far (after a stop: after those that are kept)."""
        return self._states[-1]

    @property
    def committed(self) -> int:
        """How many of the tokens pushed so far are certain to be kept: those that a listener may hear of."""
        state, begun = self.state, self.matcher.think_end_begun
        if self.conditions.replace and self._thinking(state) and state.tail.endswith(begun):
            longest = next(part for part in begun if state.tail.endswith(part))
            return self._tokens_before(state.position - len(longest))
        return len(self._states) - 1

    @property
    def thoughts(self) -> list[int]:
        """The last tokens that the rule against repetition looks at, those of the turn included."""
        return self._written

    def push(self, token_id: int) -> Stop | None:
        """Read the next token; a ``Stop`` says that the turn is over and how much of it is kept."""
        count = len(self._states)
        before = self._states[-1]
        if token_id in self.conditions.eos_ids:
            dropped = self.conditions.replace and self._thinking(before)
            if not dropped:
                self._states.append(before)
            return Stop(StopKind.EOS, count - dropped)
        after, matches = self.matcher.step(before, token_id)
        self._states.append(after)
        stop, thinking = None, not before.answering
        for match in matches:
            stop = self._judge(match, before, count) if thinking else None
            if stop is not None:
                del self._states[stop.num_kept + 1 :]
                break
            thinking = match.kind is MarkerKind.THINK_START or (thinking and match.kind is not MarkerKind.THINK_END)
        # A token that is kept is kept whole: with the markers behind the one that stopped the turn.
        self.matches += (match for match in matches if match.end <= self.state.position)
        return stop or (self._repeats(token_id, count) if _is_thought(after) else None)

    def _judge(self, match: Match, before: State, count: int) -> Stop | None:
        if match.kind is MarkerKind.CODE_CLOSE and self.conditions.code:
            return Stop(StopKind.CODE_CLOSE, count)
        if match.kind is MarkerKind.THINK_END and self.conditions.replace:
            return Stop(StopKind.THINK_END, self._tokens_before(match.begin))
        if match.kind is MarkerKind.CONNECTIVE and self.connectives_left is not None:
            num_kept = count if match.end > before.position else count - 1
            if num_kept > self.conditions.connective_after:
                self.connectives_left -= 1
                if self.connectives_left < 0:
                    return Stop(StopKind.CONNECTIVE, num_kept)
        return None

    def _repeats(self, token_id: int, count: int) -> Stop | None:
        rule = self.conditions.repetition
        if rule is not None:
            self._written.append(token_id)
            if len(self._written) % rule.check_every == 0 and rule.found(self._written[-rule.window :]):
                return Stop(StopKind.REPETITION, count)
        return None

    def _tokens_before(self, position: int) -> int:
        """How many tokens of the turn end at or before a byte position."""
        return max(0, bisect_right(self._states, position, key=lambda state: state.position) - 1)

    def _thinking(self, state: State) -> bool:
        return not state.answering
