"""On every vocabulary, every marker is found once, however it is tokenized, and trimmed by the trim rule.

Around each marker the lattice of all the vocabulary's pieces is walked: each way to spell the marker and the bytes
beside it, tokens that hold a part of the marker and its neighbours among them. Expectations come from the offsets
of the marker's bytes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pytest

from start_agent.tokens.markers import Block, MarkerKind, Match, Matcher, State
from start_agent.tokens.stopping import Stop, StopChecker, StopConditions, StopKind
from tests.support.lattice import Lattice
from tests.support.vocabularies import Vocabulary

MOST_PATHS = {  # of each lattice; enough for all the paths of the short markers in the real vocabularies
    MarkerKind.CONNECTIVE: 100,
    MarkerKind.CODE_OPEN: 100,
    MarkerKind.CODE_CLOSE: 1300,
    MarkerKind.THINK_END: 1300,
}
NEIGHBOURS = 4  # bytes on either side of a marker that its tokens may reach into
BEGUN = "Let me compute 6 * 7.\n```python\nprint(6 * 7)"


@dataclass(frozen=True)
class Case:
    """A marker in a text; ``begin`` and ``end`` are the offsets of its bytes."""

    kind: MarkerKind
    before: str
    spelled: str
    after: str
    word: str = ""

    @property
    def text(self) -> bytes:
        return (self.before + self.spelled + self.after).encode()

    @property
    def begin(self) -> int:
        return len(self.before.encode())

    @property
    def end(self) -> int:
        return self.begin + len(self.spelled.encode())

    def __str__(self) -> str:
        return repr(self.before[-6:] + self.spelled + self.after[:6])


CONNECTIVES = [
    Case(MarkerKind.CONNECTIVE, before, word, after, word)
    for word in ("Wait", "Alternatively")
    for before, after in [
        ("", ", maybe"),
        ("That is 42. ", ", but no"),
        ("That is 42.\n\n", " no"),
        ("It is é—", "—né"),
        ("**", "** is"),
        ("So: ", ".\n\nThe next"),
        ("Hm.\n", "\n</think>"),
        ('"', '!" he said'),
    ]
]
OPENINGS = [
    Case(MarkerKind.CODE_OPEN, before, f"```{language}{end}", after, language.lower())
    for language, end in [("python", "\n"), ("py", "\n"), ("python3", "\n"), ("Python", "\r\n"), ("python", "  \n")]
    for before, after in [
        ("", "x = 1"),
        ("Let me see.\n\n", "\nimport"),
        ("using Python: ", "    x"),
        ("\n  ", "# Wait, "),
    ]
]
CLOSINGS = [
    Case(MarkerKind.CODE_CLOSE, BEGUN + before, f"\n{indent}```", after)
    for before, indent, after in [
        ("", "", "\n"),
        ("", "", "\n\nWait, "),
        ("", "", ""),
        ("\n", "   ", "\r\n\r\n"),
        ("  # Wait, </think>", "", "output\n42"),
        ("\r", " ", " \n\n"),
        (" + '`'", "", "\n```output\n"),
    ]
]
THINK_ENDS = [
    Case(MarkerKind.THINK_END, before, "</think>", after)
    for before, after in [
        ("It is 42.\n", "\n\nThe answer"),
        ("It is 42.", "\n"),
        ("It is 42. <", ">"),
        ("It is 42 </", ""),
        ("", " Wait, "),
        ("(so)\n\n", "\n\n**Answer**"),
    ]
]


@pytest.fixture(scope="session")
def matcher(vocabulary: Vocabulary) -> Matcher:
    return Matcher(vocabulary.tokenizer)


def spellings(vocabulary: Vocabulary, case: Case) -> Iterator[tuple[int, ...]]:
    """Token sequences for the text: all that the vocabulary has around the marker, the usual one further away."""
    text = case.text
    first, last = max(case.begin - NEIGHBOURS, 0), min(case.end + NEIGHBOURS, len(text))
    head, tail = (_usual(vocabulary, part) for part in (text[:first], text[last:]))
    lattice = Lattice(vocabulary, text, first, last)
    yield _usual(vocabulary, text)
    for path in lattice.paths(MOST_PATHS[case.kind]):
        yield (*head, *path, *tail)


def _usual(vocabulary: Vocabulary, text: bytes) -> tuple[int, ...]:
    """What the encoder makes of the bytes; a cut character goes byte by byte."""
    try:
        return tuple(vocabulary.tokenizer.encode(text.decode()))
    except UnicodeDecodeError:
        return tuple(vocabulary.spellings[text[i : i + 1]][0] for i in range(len(text)))


def ends_of(vocabulary: Vocabulary, token_ids: Sequence[int]) -> list[int]:
    """Where each token's bytes end."""
    return list(accumulate(len(vocabulary.tokenizer.pieces[token_id]) for token_id in token_ids))


def stop_of(matcher: Matcher, token_ids: Sequence[int], conditions: StopConditions) -> Stop | None:
    """The checker's stop; committed tokens must be kept, and their number must not shrink."""
    checker, committed = StopChecker(matcher, State(), conditions), 0
    for token_id in token_ids:
        stop = checker.push(token_id)
        if stop is not None:
            assert committed <= stop.num_kept
            return stop
        assert committed <= checker.committed
        committed = checker.committed
    return None


def found(matcher: Matcher, token_ids: Sequence[int], kind: MarkerKind) -> tuple[State, list[Match]]:
    state, matches = State(), list[Match]()
    for token_id in token_ids:
        state, new = matcher.step(state, token_id)
        matches += [match for match in new if match.kind is kind]
    return state, matches


def never(**changes: bool | int) -> StopConditions:
    return StopConditions(frozenset(), **{"code": False, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CONNECTIVES, ids=str)
def test_a_connective_is_found_once_and_ends_with_the_token_that_completes_it(
    vocabulary: Vocabulary, matcher: Matcher, case: Case
) -> None:
    for token_ids in spellings(vocabulary, case):
        matches = found(matcher, token_ids, MarkerKind.CONNECTIVE)[1]
        assert matches == [Match(MarkerKind.CONNECTIVE, case.begin, case.end, case.word)]
        num_kept = 1 + next(i for i, end in enumerate(ends_of(vocabulary, token_ids)) if end >= case.end)
        assert stop_of(matcher, token_ids, never(connective=0)) == Stop(StopKind.CONNECTIVE, num_kept)


@pytest.mark.parametrize("case", OPENINGS, ids=str)
def test_an_opening_fence_is_found_once_and_what_follows_is_code(
    vocabulary: Vocabulary, matcher: Matcher, case: Case
) -> None:
    for token_ids in spellings(vocabulary, case):
        state, matches = found(matcher, token_ids, MarkerKind.CODE_OPEN)
        assert matches == [Match(MarkerKind.CODE_OPEN, case.begin, case.end, case.word)]
        assert state.block is Block.CODE
        assert stop_of(matcher, token_ids, never(code=True, connective=0)) is None


@pytest.mark.parametrize("case", CLOSINGS, ids=str)
def test_a_closing_fence_is_found_once_and_its_token_is_kept_whole(
    vocabulary: Vocabulary, matcher: Matcher, case: Case
) -> None:
    for token_ids in spellings(vocabulary, case):
        matches = found(matcher, token_ids, MarkerKind.CODE_CLOSE)[1]
        assert matches == [Match(MarkerKind.CODE_CLOSE, case.begin, case.end, "")]
        num_kept = 1 + next(i for i, end in enumerate(ends_of(vocabulary, token_ids)) if end >= case.end)
        conditions = never(code=True, connective=0, replace=True)
        assert stop_of(matcher, token_ids, conditions) == Stop(StopKind.CODE_CLOSE, num_kept)


@pytest.mark.parametrize("case", THINK_ENDS, ids=str)
def test_an_end_of_thinking_is_found_once_and_dropped_with_every_token_that_holds_a_part(
    vocabulary: Vocabulary, matcher: Matcher, case: Case
) -> None:
    for token_ids in spellings(vocabulary, case):
        state, matches = found(matcher, token_ids, MarkerKind.THINK_END)
        assert matches == [Match(MarkerKind.THINK_END, case.begin, case.end, "")]
        assert state.answering
        num_kept = sum(end <= case.begin for end in ends_of(vocabulary, token_ids))
        assert stop_of(matcher, token_ids, never(replace=True)) == Stop(StopKind.THINK_END, num_kept)
        assert stop_of(matcher, token_ids, never(connective=0, code=True)) is None  # kept, and nothing stops after it


@pytest.mark.parametrize("text", ["It is 42.", "Wait", "x </thi", "x\n```python\n1\n```", "é"])
def test_an_end_of_sequence_is_kept_or_dropped_alone(vocabulary: Vocabulary, matcher: Matcher, text: str) -> None:
    lattice = Lattice(vocabulary, text.encode(), 0, len(text.encode()))
    for path in lattice.paths(most=100):
        for replace in (False, True):
            conditions = StopConditions(vocabulary.tokenizer.eos_ids, code=False, connective=0, replace=replace)
            stop = stop_of(matcher, (*path, vocabulary.eos, *path), conditions)
            assert stop == Stop(StopKind.EOS, len(path) + (not replace))


def test_the_cuts_of_a_real_vocabulary_are_awkward(vocabulary: Vocabulary) -> None:
    """The suite is worth its time: markers share tokens with their neighbours, and there are many ways to cut them."""
    shared = set()
    for case in (CLOSINGS[1], THINK_ENDS[0], CONNECTIVES[1]):
        paths = set(spellings(vocabulary, case))
        if any(not {case.begin, case.end} <= {0, *ends_of(vocabulary, path)} for path in paths):
            shared.add(case.kind)
        assert len(paths) >= (1 if vocabulary.name == "bytes" else 5)
    expected = {
        "bytes": set(),
        "pocket": {MarkerKind.CODE_CLOSE, MarkerKind.THINK_END},
        "sentencepiece": {MarkerKind.CODE_CLOSE, MarkerKind.THINK_END, MarkerKind.CONNECTIVE},
    }
    assert shared >= expected.get(vocabulary.name, expected["sentencepiece"])
    single = len(vocabulary.spellings.get(b"</think>", ()))
    assert single == (vocabulary.name in ("qwq", "unigram"))
