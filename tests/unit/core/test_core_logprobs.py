"""Log-probabilities: their bounds, their JSON form, and where they are cut."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.engines.base import Sampling, Tokens, TurnRequest
from start_agent.engines.scripted import byte_tokenizer, scripted_logprob
from start_agent.engines.turns import TurnReader
from start_agent.errors import EngineError
from start_agent.logprobs import LOWEST, TokenLogprob, likeliest, logprobs_from_json, logprobs_to_json, token_logprob
from start_agent.tokens.markers import Markers, Matcher, State
from start_agent.tokens.stopping import StopChecker, StopConditions

TOKENIZER = byte_tokenizer()
SIZE = len(TOKENIZER.pieces)
MATCHER = Matcher(TOKENIZER, Markers(("Wait",), ("</think>",)))
VALUES = st.floats(allow_nan=True, allow_infinity=True)


@given(value=VALUES, top=st.lists(st.tuples(st.integers(0, 9), VALUES), max_size=4))
def test_whatever_an_engine_computes_can_be_stored(value: float, top: list[tuple[int, float]]) -> None:
    found = token_logprob(value, top)
    assert [token_id for token_id, _ in found.top] == [token_id for token_id, _ in top]
    values, all_kept = [value, *(one for _, one in top)], [found.logprob, *(one for _, one in found.top)]
    for given_value, kept in zip(values, all_kept, strict=True):
        assert LOWEST <= kept <= 0.0
        assert math.copysign(1, kept) == (1 if kept == 0 else -1)
        if LOWEST <= given_value <= 0:
            assert abs(kept - given_value) <= 1e-6
    stored = json.loads(json.dumps(logprobs_to_json([found]), allow_nan=False))
    assert logprobs_from_json(stored) == (found,)


@given(st.dictionaries(st.integers(0, 99), st.floats(-20, 0), max_size=9), st.integers(0, 9))
def test_the_likeliest_come_first(candidates: dict[int, float], number: int) -> None:
    found = likeliest(candidates, number)
    assert found == [(token_id, candidates[token_id]) for token_id, _ in found]
    assert [value for _, value in found] == sorted(candidates.values(), reverse=True)[:number]


@pytest.mark.parametrize(
    "data",
    [
        {"logprobs": None},
        {"logprobs": 1},
        {"logprobs": "-1"},
        {"logprobs": [True]},
        {"logprobs": [None]},
        {"logprobs": [0.5]},
        {"logprobs": [-1e9]},
        {"logprobs": [float("nan")]},
        {"logprobs": [-1], "top_logprobs": []},
        {"logprobs": [-1], "top_logprobs": None},
        {"logprobs": [-1], "top_logprobs": [[[1]]]},
        {"logprobs": [-1], "top_logprobs": [[["1", -1]]]},
        {"logprobs": [-1], "top_logprobs": [[[1, "x"]]]},
    ],
    ids=repr,
)
def test_what_is_no_stored_form_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        logprobs_from_json(data)


def _made_up(token_ids: Sequence[int]) -> list[TokenLogprob]:
    return [scripted_logprob(token_id, 2, SIZE) for token_id in token_ids]


@given(
    words=st.lists(st.sampled_from(["Wait", " a", "</thi", "</think>", "\n", "<|im_end|>", "x, "]), max_size=12),
    cuts=st.lists(st.integers(1, 6), min_size=40, max_size=40),
    replace=st.booleans(),
    connective=st.none() | st.integers(0, 2),
)
def test_the_runs_and_the_turn_have_those_of_their_tokens(
    words: list[str], cuts: list[int], replace: bool, connective: int | None
) -> None:
    """However the ids come, whatever is held back, looked ahead or dropped."""
    ids = [*TOKENIZER.encode_template("".join(words)), *sorted(TOKENIZER.eos_ids)]
    conditions = StopConditions(TOKENIZER.eos_ids, connective=connective, replace=replace)
    new_checker = lambda: StopChecker(MATCHER, State(), conditions)  # noqa: E731 - a field of a request
    reader = TurnReader(TurnRequest("trace", [1], Sampling(), 0, 60, new_checker, 2))
    runs, given_ids = list[Tokens](), list(ids)
    for cut in cuts:
        piece, given_ids = given_ids[:cut], given_ids[cut:]
        if reader.read(piece, _made_up(piece)):
            break
        if news := reader.new_tokens():
            runs.append(news)
    if news := reader.new_tokens():
        runs.append(news)
    if not reader.over:
        return
    turn = reader.turn(prompt=1, cached_tokens=0, queue_seconds=0)
    assert turn.logprobs == tuple(_made_up(turn.token_ids))
    assert tuple(token_id for run in runs for token_id in run.token_ids) == turn.token_ids
    for run in runs:
        assert run.logprobs == tuple(_made_up(run.token_ids))


@pytest.mark.parametrize("logprobs", [None, [], [token_logprob(-1)] * 3])
def test_there_is_one_for_each_token(logprobs: list[TokenLogprob] | None) -> None:
    new_checker = lambda: StopChecker(MATCHER, State(), StopConditions(frozenset()))  # noqa: E731 - as above
    asked = TurnReader(TurnRequest("trace", [1], Sampling(), 0, 9, new_checker, 0))
    with pytest.raises(EngineError):
        asked.read([1, 2], logprobs)
    plain = TurnReader(TurnRequest("trace", [1], Sampling(), 0, 2, new_checker))
    assert plain.read([1, 2], logprobs)
    assert plain.turn(prompt=1, cached_tokens=0, queue_seconds=0).logprobs is None
