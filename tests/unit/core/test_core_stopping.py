"""The stop checker: where a turn ends, which tokens are kept, and what may be streamed before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from start_agent.tokens.markers import MarkerKind, Markers, Match, Matcher, State
from start_agent.tokens.stopping import Repetition, Stop, StopChecker, StopConditions, StopKind
from start_agent.tokens.tokenizer import Tokenizer
from tests.support import reference

EOS = 0
# One made-up vocabulary: markers whole, in parts, and with what stands around them in real vocabularies.
PIECES = [
    *(b"<eos>", b"", b"Wait", b" Wait", b" Wait,", b"Wa", b"it", b"Alternatively,", b"<", b"</", b"/think", b"think"),
    *(
        b"</think>",
        b".</think",
        b">",
        b">\n\n",
        b">\n",
        b"```",
        b"``",
        b"`",
        b"`\n",
        b"```\n",
        b"\n```",
        b"```python\n",
    ),
    *(b"python", b"\n", b"\n\n", b" ", b"x", b".", b"js", b"```\n</think>\n", b"x</think> Wait, ", b"`\nWait, x"),
]
MATCHER = Matcher(cast(Tokenizer, SimpleNamespace(pieces=PIECES, added={})))
TOKENS = st.lists(st.integers(1, len(PIECES) - 1), max_size=20)
TURNS = st.tuples(TOKENS, st.booleans(), TOKENS).map(lambda parts: [*parts[0], *([EOS] * parts[1]), *parts[2]])
ARMED = st.builds(
    StopConditions,
    eos_ids=st.just(frozenset({EOS})),
    code=st.booleans(),
    connective=st.none() | st.integers(0, 2),
    connective_after=st.integers(0, 6),
    replace=st.booleans(),
    thinking_tokens=st.none() | st.integers(0, 12),
    stop=st.lists(
        st.sampled_from(["x", "`\n", "Wait", "\n\n", " Wait, x", "k>x", "</think>", "<eos>"]), max_size=3
    ).map(tuple),
)


def ids(*pieces: str) -> list[int]:
    return [PIECES.index(piece.encode()) for piece in pieces]


def conditions(**changes: object) -> StopConditions:
    return replace(StopConditions(frozenset({EOS}), code=False), **changes)  # type: ignore[arg-type]


def run(checker: StopChecker, token_ids: Sequence[int]) -> tuple[Stop | None, list[int]]:
    """Push until the watch stops; also what was settled after each token."""
    committed: list[int] = []
    for token_id in token_ids:
        stop = checker.push(token_id)
        if stop is not None:
            return stop, committed
        committed.append(checker.committed)
    return None, committed


def expected_stop(token_ids: Sequence[int], rule: StopConditions) -> Stop | None:
    """The rules of watch.py, applied to the whole text's markers and the places where its tokens end."""
    pieces = [b"" if token_id == EOS else PIECES[token_id] for token_id in token_ids]
    ends = [0, *accumulate(map(len, pieces))]
    text = b"".join(pieces)
    passed, thinking, thoughts = 0, True, 0
    for count, token_id in enumerate(token_ids, 1):
        before = reference.read(text[: ends[count - 1]])
        if token_id == EOS:
            replaced = rule.replace and not before.answering
            return Stop(StopKind.EOS, count - 1 if replaced else count)
        thoughts += not before.answering
        for match in reference.read(text[: ends[count]]).matches[len(before.matches) :]:
            if not thinking:
                break
            if match.kind is MarkerKind.CODE_CLOSE and rule.code:
                return Stop(StopKind.CODE_CLOSE, count)
            if match.kind is MarkerKind.THINK_END:
                if rule.replace:
                    return Stop(StopKind.THINK_END, max(k for k in range(count) if ends[k] <= match.begin))
                thinking = False
            if match.kind is MarkerKind.CONNECTIVE and rule.connective is not None:
                num_kept = count if ends[count - 1] < match.end else count - 1
                passed += num_kept > rule.connective_after
                if passed > rule.connective:
                    return Stop(StopKind.CONNECTIVE, num_kept)
        so_far = reference.read(text[: ends[count]])
        if so_far.answering:
            answer = text[so_far.matches[-1].end : ends[count]]
            if any(string.encode() in answer for string in rule.stop):
                return Stop(StopKind.STOP, count)
        elif rule.thinking_tokens is not None and thoughts >= rule.thinking_tokens:
            partial = max((n for n in range(1, 8) if text[: ends[count]].endswith(b"</think>"[:n])), default=0)
            return Stop(StopKind.THINKING_BUDGET, max(k for k in range(count + 1) if ends[k] <= ends[count] - partial))
    return None


@settings(max_examples=800)
@given(token_ids=TURNS, rule=ARMED)
def test_a_turn_ends_where_the_rules_say(token_ids: list[int], rule: StopConditions) -> None:
    assert run(StopChecker(MATCHER, State(), rule), token_ids)[0] == expected_stop(token_ids, rule)


@settings(max_examples=800)
@given(token_ids=TURNS, rule=ARMED)
def test_committed_tokens_are_kept_and_only_an_incomplete_marker_is_held_back(
    token_ids: list[int], rule: StopConditions
) -> None:
    stop, committed = run(StopChecker(MATCHER, State(), rule), token_ids)
    num_kept = len(token_ids) if stop is None else stop.num_kept
    assert committed == sorted(committed)
    assert all(count <= num_kept for count in committed)
    drops = rule.replace or rule.thinking_tokens is not None
    partial = [b"</think>"[:size] for size in range(1, 8)] if drops else []
    partial += [string.encode()[:size] for string in rule.stop for size in range(1, len(string.encode()))]
    for pushed, count in enumerate(committed, 1):
        held = b"".join(PIECES[token_id] for token_id in token_ids[count:pushed])
        assert not held or held.endswith(tuple(partial))


@settings(max_examples=500)
@given(token_ids=TOKENS, stop=st.sampled_from(["x", "`\n", "Wait", "\n\n", "</think>", " Wait, x"]))
def test_nothing_is_shown_of_a_stop_string_and_what_follows_it(token_ids: list[int], stop: str) -> None:
    """What is settled before the last token ends before the stop string; where that begins is known with it."""
    checker = StopChecker(MATCHER, State(answering=True), conditions(stop=(stop,)))
    found, committed = run(checker, token_ids)
    text = b"".join(PIECES[token_id] for token_id in token_ids)
    if found is None or found.kind is not StopKind.STOP:
        assert stop.encode() not in text and checker.stop_begins is None
        return
    assert checker.stop_begins == text.index(stop.encode())
    shown = b"".join(PIECES[token_id] for token_id in token_ids[: max(committed, default=0)])
    assert len(shown) <= checker.stop_begins


STARTED = Matcher(cast(Tokenizer, SimpleNamespace(pieces=PIECES, added={})), Markers(think_start="<x>\n\n"))


@pytest.mark.parametrize(
    ("pieces", "stop", "num_kept", "begins"),
    [
        (["<", "x", ">\n\n", "x"], "x", None, None),  # it opens its thinking: that is no answer
        (["<", "x", ">\n\n", "x", "</think>", ".", "x"], "x", 7, 15),
        (["<", "x", ">", "x"], "x", 4, 1),  # it does not: what was held back counts
        (["x", "<"], "x", 1, 0),
        (["<", "x"], "x", None, None),  # not yet
        (["python", "x"], "nx", 2, 5),
    ],
)
def test_a_stop_string_before_a_thinking_that_is_not_opened(
    pieces: list[str], stop: str, num_kept: int | None, begins: int | None
) -> None:
    checker = StopChecker(STARTED, State(answering=True, unopened=True), conditions(stop=(stop,)))
    found, committed = run(checker, ids(*pieces))
    assert found == (None if num_kept is None else Stop(StopKind.STOP, num_kept))
    assert checker.stop_begins == begins
    if pieces[:2] == ["<", "x"]:
        assert committed[:2] == [0, 0]


def test_a_budget_counts_the_tokens_that_begin_while_thinking() -> None:
    rule = conditions(thinking_tokens=3)
    thinking = ids("x", ".", "x", "x")
    checker = StopChecker(MATCHER, State(), rule)
    assert run(checker, thinking)[0] == Stop(StopKind.THINKING_BUDGET, 3)
    assert checker.thinking_tokens == 3
    assert run(StopChecker(MATCHER, State(), rule), ids("x", ".", "</think>", *"xxxx"))[0] is None
    assert run(StopChecker(MATCHER, State(answering=True), rule), ids(*"xxxx"))[0] is None
    # The beginning of an end of thinking goes: all of the end takes its place.
    assert run(StopChecker(MATCHER, State(), rule), ids("x", "</", "/think"))[0] == Stop(StopKind.THINKING_BUDGET, 3)
    assert run(StopChecker(MATCHER, State(), rule), ids("x", ".", "</"))[0] == Stop(StopKind.THINKING_BUDGET, 2)
    # Where the thinking is opened late, its first token is the one behind the marker.
    late = StopChecker(STARTED, State(answering=True, unopened=True), rule)
    assert run(late, ids("<", "x", ">\n\n", "x", ".", "x"))[0] == Stop(StopKind.THINKING_BUDGET, 6)
    at_once = StopChecker(STARTED, State(answering=True, unopened=True), replace(rule, thinking_tokens=0))
    assert run(at_once, ids("<", "x", ">\n\n"))[0] == Stop(StopKind.THINKING_BUDGET, 3)


@settings(max_examples=500)
@given(token_ids=TURNS, rule=ARMED)
def test_reading_again_what_was_kept_leads_to_the_same_state(token_ids: list[int], rule: StopConditions) -> None:
    checker, again = StopChecker(MATCHER, State(), rule), StopChecker(MATCHER, State(), rule)
    stop, _ = run(checker, token_ids)
    kept = token_ids[: stop.num_kept] if stop else token_ids
    for token_id in kept:
        again.push(token_id)
    assert again.state == checker.state
    assert (
        again.matches == [match for match in checker.matches if match.end <= again.state.position][: len(again.matches)]
    )


@settings(max_examples=300)
@given(before=TOKENS, cut=st.integers(1, 7), spare=st.sampled_from(["", "x", "<", "."]), after=TOKENS)
def test_a_replaced_end_of_thinking_goes_with_every_token_that_holds_a_part(
    before: list[int], cut: int, spare: str, after: list[int]
) -> None:
    tag = [spare.encode() + b"</think>"[:cut], b"</think>"[cut:] + b"\n"]
    matcher = Matcher(cast(Tokenizer, SimpleNamespace(pieces=[*PIECES, *tag], added={})))
    # After a text without marks, where the tag is the first.
    before = [token_id for token_id in before if not set(PIECES[token_id]) & set(b"<`>h/")]
    checker = StopChecker(matcher, State(), conditions(replace=True))
    stop, committed = run(checker, [*before, len(PIECES), len(PIECES) + 1, *after])
    assert stop == Stop(StopKind.THINK_END, len(before))
    assert committed == [*range(1, len(before) + 1), len(before)]
    assert not checker.state.answering


def test_the_end_of_sequence_is_kept_unless_it_is_replaced() -> None:
    assert run(StopChecker(MATCHER, State(), conditions()), [*ids("x"), EOS])[0] == Stop(StopKind.EOS, 2)
    assert run(StopChecker(MATCHER, State(), conditions(replace=True)), [*ids("x"), EOS])[0] == Stop(StopKind.EOS, 1)
    in_code = ids("```python\n", "x")
    assert run(StopChecker(MATCHER, State(), conditions(replace=True)), [*in_code, EOS])[0] == Stop(StopKind.EOS, 2)
    # After thinking there is nothing to go on with.
    answering = State(answering=True)
    assert run(StopChecker(MATCHER, answering, conditions(replace=True)), [*ids("x"), EOS])[0] == Stop(StopKind.EOS, 2)


def test_after_thinking_nothing_but_the_end_stops() -> None:
    rule = conditions(code=True, connective=0, replace=True)
    said = ids("Wait", ".", "\n", "```python\n", "x", "\n```", "\n", "</think>")
    assert run(StopChecker(MATCHER, State(answering=True), rule), [*said, EOS])[0] == Stop(StopKind.EOS, len(said) + 1)
    # ... nor after an end of thinking that is not replaced, in the same token.
    rule = conditions(code=True, connective=0)
    assert run(StopChecker(MATCHER, State(), rule), [*ids("x</think> Wait, "), EOS])[0] == Stop(StopKind.EOS, 2)


@pytest.mark.parametrize(
    ("pieces", "num_kept"),
    [
        (["Wait", "."], 1),  # the token of the byte that follows is discarded
        (["Wa", "it", "."], 2),
        (["x", " Wait,", "x"], 2),  # ... unless it holds the end of the word
        (["Wait", "", "."], 2),  # a token without bytes decides nothing
        (["Wait", "</"], 1),
        (["Wait", "\n"], 1),
    ],
)
def test_a_connective_ends_with_the_token_that_completes_it(pieces: list[str], num_kept: int) -> None:
    checker = StopChecker(MATCHER, State(), conditions(connective=0))
    assert run(checker, ids(*pieces))[0] == Stop(StopKind.CONNECTIVE, num_kept)
    assert checker.state.position == sum(map(len, pieces[:num_kept]))


def test_connectives_are_passed_over_and_do_not_count_in_the_cooldown() -> None:
    said = ids(*[" Wait,"] * 6)
    for passed in range(6):
        checker = StopChecker(MATCHER, State(), conditions(connective=passed))
        assert run(checker, said)[0] == Stop(StopKind.CONNECTIVE, passed + 1)
    for after in range(6):
        checker = StopChecker(MATCHER, State(), conditions(connective=0, connective_after=after))
        assert run(checker, said)[0] == Stop(StopKind.CONNECTIVE, after + 1)
    checker = StopChecker(MATCHER, State(), conditions(connective=9))
    assert run(checker, said)[0] is None and checker.connectives_left == 3
    assert run(StopChecker(MATCHER, State(), conditions()), said)[0] is None


def test_markers_are_reported_in_order() -> None:
    checker = StopChecker(MATCHER, State(), conditions())
    run(checker, ids(" Wait,", "\n", "```python\n", "x", "\n```", "\n", "</think>"))
    assert checker.matches == [
        Match(MarkerKind.CONNECTIVE, 1, 5, "Wait"),
        Match(MarkerKind.CODE_OPEN, 7, 17, "python"),
        Match(MarkerKind.CODE_CLOSE, 18, 22, ""),
        Match(MarkerKind.THINK_END, 23, 31, ""),
    ]


# --- repetition ---


def repeats_naively(token_ids: Sequence[int], rule: Repetition) -> bool:
    """For each period: count, from the end, how many tokens equal the one a period later."""
    for period in range(1, rule.max_period + 1):
        covered = period
        while covered < len(token_ids) and token_ids[-covered - 1] == token_ids[-covered - 1 + period]:
            covered += 1
        if min(covered, len(token_ids)) >= max(rule.min_tokens, rule.min_repeats * period):
            return True
    return False


RULES = st.builds(
    Repetition,
    max_period=st.integers(1, 12),
    min_repeats=st.integers(2, 5),
    min_tokens=st.integers(1, 40),
    check_every=st.just(1),
)


@settings(max_examples=500)
@given(
    rule=RULES,
    head=st.lists(st.integers(0, 2), max_size=12),
    run=st.lists(st.integers(0, 2), min_size=1, max_size=14),
    times=st.integers(0, 8),
    rest=st.integers(0, 13),
)
def test_repetition_is_what_a_naive_definition_says(
    rule: Repetition, head: list[int], run: list[int], times: int, rest: int
) -> None:
    token_ids = [*head, *run * times, *run[:rest]]
    assert rule.found(token_ids) == repeats_naively(token_ids, rule)
    assert rule.found(tuple(token_ids)) == rule.found(token_ids)
    # What lies further back than the window makes no difference.
    assert rule.found(token_ids[-rule.window :]) == rule.found(token_ids)


@pytest.mark.parametrize("seed", range(5))
def test_random_text_does_not_repeat(seed: int) -> None:
    generator = random.Random(seed)
    token_ids = [generator.randrange(4) for _ in range(1500)]
    assert not any(Repetition().found(token_ids[:size]) for size in range(0, 1500, 16))


@settings(max_examples=60)
@given(period=st.integers(1, 128), said=st.integers(0, 60), recent=st.integers(0, 700))
def test_a_turn_that_repeats_itself_is_stopped_in_time(period: int, said: int, recent: int) -> None:
    rule = Repetition()
    matcher = Matcher(cast(Tokenizer, SimpleNamespace(pieces=[], added={})))
    text = [*range(1000, 1000 + said), *[1 + token % period for token in range(2 * rule.window)]]
    before, turn = text[:recent], text[recent:]
    checker = StopChecker(matcher, State(), conditions(repetition=rule), before)
    stop, _ = run(checker, turn)
    due = said + max(rule.min_tokens, period * rule.min_repeats) - recent
    assert stop is not None and stop.kind is StopKind.REPETITION
    assert max(due, 1) <= stop.num_kept < max(due, 1) + rule.check_every
    assert checker.committed == stop.num_kept
    # The controller passes all tokens, the engine's checker saw only the last ones: they agree.
    assert run(StopChecker(matcher, State(), conditions(repetition=rule), before[-rule.window :]), turn)[0] == stop
