"""Stop conditions: where a turn of generation ends, and which of its tokens are kept (the trim rule).

Engines push sampled tokens into a ``StopChecker`` and stop when it says so; the controller sets the ``StopConditions``,
pushes the tokens that it got, and finds the same markers.

**Trim rule**: the token that completes a marker is kept; later tokens are never part of the trace. A connective is
certain only after its next byte is known: the token with that byte is dropped, unless it also contains the end of the
word. A marker that is replaced (the end of thinking, or the end of sequence before a hint) is dropped with every token
that contains a part of it; likewise the beginning of an end of thinking when the thinking budget is used up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import final

from start_agent.tokens.markers import Block, MarkerKind, Match, Matcher, State
from start_agent.tokens.ngrams import ngram_hashes
from start_agent.tokens.stop_strings import StopStrings

_NGRAM = 16  # tokens; such n-grams seldom occur twice in a short text without repetition


class StopKind(StrEnum):
    """Why a turn ended."""

    CONNECTIVE = "connective"
    CODE_CLOSE = "code_close"
    THINK_END = "think_end"
    THINKING_BUDGET = "thinking_budget"
    EOS = "eos"
    STOP = "stop"
    REPETITION = "repetition"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Repetition:
    """The rule for endless repetition: the last tokens are a sequence of at most ``max_period`` tokens, repeated.

    It stops a turn after ``min_repeats`` repetitions that cover ``min_tokens`` tokens. A ``StopChecker`` applies it
    only to thoughts, not to code or tables.
    """

    max_period: int = 128
    min_repeats: int = 4
    min_tokens: int = 128
    check_every: int = 16

    def found(self, token_ids: Sequence[int]) -> bool:
        """Whether the sequence ends with a repetition."""
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
        """Whether there is a repetition anywhere in the sequence: whether ``found`` is true for any prefix of it."""
        import numpy as np

        if not self._any_near(token_ids):
            return False
        ids = np.asarray(token_ids, dtype=np.int64)
        for period in range(1, min(self.max_period, len(ids) - 1) + 1):
            span = max(self.min_tokens, period * self.min_repeats)
            # The sequence repeats with this period if enough consecutive tokens equal those one period before.
            unequal = np.flatnonzero(ids[period:] != ids[:-period])
            edges = np.concatenate(([-1], unequal, [len(ids) - period]))
            if np.diff(edges).max() - 1 >= span - period:
                return True
        return False

    def _any_near(self, token_ids: Sequence[int]) -> bool:
        """Whether any n-gram occurs again within ``max_period`` tokens, as in every repetition; a fast check."""
        import numpy as np

        equal = (max(self.min_tokens, period * self.min_repeats) - period for period in range(1, self.max_period + 1))
        size = min(_NGRAM, *equal)  # in a repetition at least one n-gram occurs again one period later
        hashes = ngram_hashes(token_ids, max(size, 1))
        order = np.argsort(hashes, kind="stable")
        near = np.diff(order) <= self.max_period
        return bool((near & (np.diff(hashes[order]) == 0)).any())

    @property
    def window(self) -> int:
        """The most tokens that the rule looks at."""
        return max(self.min_tokens, self.max_period * self.min_repeats)


@dataclass(frozen=True, slots=True)
class StopConditions:
    """What ends a turn, besides its length.

    Attributes:
        eos_ids: ids that end the sequence.
        code: stop when an executed code block closes.
        connective: stop at a connective, after skipping this many; None for never.
        connective_after: the number of tokens at the beginning of the turn in which connectives do not count.
        replace: stop at the end of thinking, and drop its tokens or those of an end of sequence before it.
        repetition: stop at endless repetition.
        thinking_tokens: the most tokens while thinking; None for no limit.
        stop: stop after one of these strings in the answer, which begins after the end of thinking. Text before a
            thinking that is ``unopened`` is an answer, except for a possible beginning of the marker that opens it.
    """

    eos_ids: frozenset[int]
    code: bool = True
    connective: int | None = None
    connective_after: int = 0
    replace: bool = False
    repetition: Repetition | None = None
    thinking_tokens: int | None = None
    stop: tuple[str, ...] = ()


NEVER = StopConditions(frozenset(), code=False)
"""Only its length ends the turn; markers are still found."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of a turn: the reason, and how many of its tokens are kept."""

    kind: StopKind
    num_kept: int


def _is_thought(state: State) -> bool:
    """Whether the last text is prose, because repetition in code blocks and tables is normal."""
    return state.block is Block.PROSE and not state.line.lstrip(b" \t").startswith(b"|")


@final
class StopChecker:
    """Reads the tokens of one turn and finds its end.

    Args:
        matcher: the matcher for the vocabulary.
        state: the state of the text before the turn.
        conditions: what ends the turn.
        recent: the model's last tokens of thoughts, for detecting repetition across turns (see ``thoughts``).

    The result depends on nothing else, so an engine may create another checker from these four in another process.

    Attributes:
        matches: the markers in the tokens that are kept.
        connectives_left: the number of connectives still to skip.
        thinking_tokens: the number of tokens that began while the model was thinking.
        stop_begins: where the stop string that ended the turn begins, in bytes like ``State.position``.
    """

    def __init__(self, matcher: Matcher, state: State, conditions: StopConditions, recent: Sequence[int] = ()) -> None:
        self.matcher, self.conditions = matcher, conditions
        self.matches: list[Match] = []
        self.connectives_left = conditions.connective
        self.thinking_tokens = 0
        self.stop_begins: int | None = None
        self._stop_strings = StopStrings(conditions.stop) if conditions.stop else None
        self._limited = conditions.thinking_tokens is not None or bool(conditions.stop)
        self._drops_think_end = conditions.replace or conditions.thinking_tokens is not None
        self._states = [state]
        window = conditions.repetition.window if conditions.repetition else 0
        self.recent = tuple(recent[max(0, len(recent) - window) :])
        self._written = list(self.recent)

    @property
    def state(self) -> State:
        """The state of the text after the tokens pushed so far (after a stop: after the tokens that are kept)."""
        return self._states[-1]

    @property
    def committed(self) -> int:
        """How many of the tokens so far can be shown: they are certainly kept, and are not part of a stop string."""
        undecided = self.undecided
        return self._tokens_before(self._states[-1].position - undecided) if undecided else len(self._states) - 1

    @property
    def undecided(self) -> int:
        """How many of the last bytes may become part of a marker that is dropped, or of a stop string."""
        state = self._states[-1]
        if not state.answering:
            return self._think_end_begun(state) if self._drops_think_end else 0
        if not self._stop_strings:
            return 0
        return state.position if self._may_still_open(state) else self._stop_strings.begun

    @property
    def thoughts(self) -> list[int]:
        """The last tokens for the rule against repetition, including those of the turn."""
        return self._written

    def push(self, token_id: int) -> Stop | None:
        """Read the next token; returns a ``Stop`` if the turn is over."""
        count = len(self._states)
        before = self._states[-1]
        if token_id in self.conditions.eos_ids:
            dropped = self.conditions.replace and not before.answering
            if not dropped:
                self._states.append(before)
            return Stop(StopKind.EOS, count - dropped)
        after, matches = self.matcher.step(before, token_id)
        self._states.append(after)
        if not before.answering:
            self.thinking_tokens += 1
        stop = self._stop_at_markers(before, matches, count) if matches else None
        if stop is None and self._limited:
            stop = self._limit(before, after, token_id, matches)
        if stop is not None:
            del self._states[stop.num_kept + 1 :]
        if matches:  # a kept token may also contain markers after the one that stopped the turn
            self.matches += (match for match in matches if match.end <= self.state.position)
        if stop is None and self.conditions.repetition is not None and _is_thought(after):
            return self._repeats(self.conditions.repetition, token_id, count)
        return stop

    def _stop_at_markers(self, before: State, matches: Sequence[Match], count: int) -> Stop | None:
        thinking = not before.answering
        for match in matches:
            if thinking and (stop := self._stop_at(match, before, count)) is not None:
                return stop
            thinking = match.kind is MarkerKind.THINK_START or (thinking and match.kind is not MarkerKind.THINK_END)
        return None

    def _limit(self, before: State, after: State, token_id: int, matches: Sequence[Match]) -> Stop | None:
        """The stop for a thinking that is too long, or for a stop string in the answer."""
        if after.answering:
            strings = self._stop_strings
            return self._stop_string(strings, before, after, token_id, matches) if strings else None
        if self._stop_strings:
            self._stop_strings.clear()
        limit = self.conditions.thinking_tokens
        if limit is None or self.thinking_tokens < limit:
            return None
        return Stop(StopKind.THINKING_BUDGET, self._tokens_before(after.position - self._think_end_begun(after)))

    def _stop_string(
        self, strings: StopStrings, before: State, after: State, token_id: int, matches: Sequence[Match]
    ) -> Stop | None:
        if self._may_still_open(after):
            return None
        text = self.matcher.bytes_of(token_id)
        if self._may_still_open(before):
            text = before.tail + text
        if ended := [match.end for match in matches if match.kind is MarkerKind.THINK_END]:
            strings.clear()
            text = text[len(text) - (after.position - ended[-1]) :]
        found = strings.read(text)
        if found is None:
            return None
        self.stop_begins = after.position - found
        return Stop(StopKind.STOP, len(self._states) - 1)

    def _may_still_open(self, state: State) -> bool:
        """Whether the complete text so far is the beginning of the marker that opens the thinking."""
        return state.unopened and state.position == len(state.tail) and self.matcher.start.startswith(state.tail)

    def _think_end_begun(self, state: State) -> int:
        """How many of the last bytes may be the beginning of an end of thinking."""
        begun = self.matcher.think_end_begun
        if not state.tail.endswith(begun):  # a fast check, true for nearly all tokens
            return 0
        return next(len(part) for part in begun if state.tail.endswith(part))

    def _stop_at(self, match: Match, before: State, count: int) -> Stop | None:
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

    def _repeats(self, rule: Repetition, token_id: int, count: int) -> Stop | None:
        self._written.append(token_id)
        if len(self._written) % rule.check_every == 0 and rule.found(self._written[-rule.window :]):
            return Stop(StopKind.REPETITION, count)
        return None

    def _tokens_before(self, position: int) -> int:
        """How many tokens of the turn end at or before a byte position."""
        return max(0, bisect_right(self._states, position, key=lambda state: state.position) - 1)
