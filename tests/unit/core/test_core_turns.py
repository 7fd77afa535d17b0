"""Turns that are read from an engine's stream: when their tokens are passed on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.engines.base import Sampling, Tokens, TurnRequest, stream_pause
from start_agent.engines.scripted import byte_tokenizer
from start_agent.engines.turns import TurnReader
from start_agent.tokens.markers import Markers, Matcher, State
from start_agent.tokens.stopping import StopChecker, StopConditions

MATCHER = Matcher(byte_tokenizer(), Markers(("Wait",), ("</think>",)))


def runs_of(number: int, streams: Callable[[], int]) -> list[int]:
    """How many tokens each run has that a turn of so many passes on."""
    new_checker = lambda: StopChecker(MATCHER, State(), StopConditions(frozenset()))  # noqa: E731 - a field
    reader = TurnReader(TurnRequest("trace", [1], Sampling(), 0, number, new_checker), streams)
    runs = list[Tokens]()
    for token_id in range(number):
        reader.read([5 + token_id])
        if (new := reader.new_tokens()) is not None:
            runs.append(new)
    assert reader.over and reader.new_tokens() is None
    turn = reader.turn(prompt=1, cached_tokens=0, queue_seconds=0)
    assert sum((run.token_ids for run in runs), ()) == turn.token_ids
    return [len(run.token_ids) for run in runs]


def test_the_tokens_of_a_single_stream_never_wait() -> None:
    assert runs_of(20, lambda: 1) == [1] * 20


def test_tokens_wait_for_one_another_but_for_the_first_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("start_agent.engines.turns.stream_pause", lambda streams: 0 if streams < 2 else 1e9)
    assert runs_of(20, lambda: 2) == [1, 19]
    count = iter([1, 1, 2])
    assert runs_of(20, lambda: next(count, 2)) == [1, 1, 1, 17]  # others began after the second token


@given(one=st.integers(0, 10_000), other=st.integers(0, 10_000))
def test_the_more_streams_the_longer_the_pause(one: int, other: int) -> None:
    assert stream_pause(0) == stream_pause(1) == 0
    assert 0 <= stream_pause(min(one, other)) <= stream_pause(max(one, other)) <= 0.1
