"""Admission of traces to an engine, and the estimate of their lengths."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.engines.admission import Admission, Growth
from start_agent.errors import EngineError


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_given_in_order() -> None:
    admission, order = Admission(2), list[str]()

    async def enter(name: str) -> None:
        await admission.enter(name, 10)
        order.append(name)

    tasks = [asyncio.create_task(enter(name)) for name in "abcd"]
    await settle()
    assert order == ["a", "b"]
    admission.leave("b")
    admission.leave("unknown")
    await settle()
    assert order == ["a", "b", "c"]
    admission.leave("a")
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c", "d"]


async def test_a_trace_that_is_open_never_waits() -> None:
    admission = Admission(1)
    assert not await admission.enter("a", 10)
    assert await admission.enter("a", 1000)


async def test_room_counts_and_a_single_trace_is_always_admitted() -> None:
    admission = Admission(10, capacity=100)
    await admission.enter("large", 1000)
    small = asyncio.create_task(admission.enter("small", 60))
    other = asyncio.create_task(admission.enter("other", 60))
    await settle()
    assert not small.done()
    admission.leave("large")
    await settle()
    assert small.done()
    assert not other.done()
    await admission.enter("small", 40)  # it needs less than it might have
    await other
    assert len(admission) == 2


async def test_who_gives_up_takes_no_place() -> None:
    admission = Admission(1)
    await admission.enter("a", 1)
    waiting = [asyncio.create_task(admission.enter(name, 1)) for name in "bc"]
    await settle()
    waiting[0].cancel()
    admission.leave("a")  # at the same moment
    await settle()
    assert waiting[1].done()
    assert "b" not in admission
    assert len(admission) == 1


async def test_admitted_and_cancelled_at_the_same_moment_leaves() -> None:
    admission = Admission(1)
    await admission.enter("a", 1)
    waiting = [asyncio.create_task(admission.enter(name, 1)) for name in "bc"]
    await settle()
    admission.leave("a")
    waiting[0].cancel()
    await settle()
    assert waiting[1].done()
    assert "b" not in admission


async def test_those_that_wait_can_be_refused() -> None:
    admission = Admission(1)
    await admission.enter("a", 1)
    waiting = asyncio.create_task(admission.enter("b", 1))
    await settle()
    admission.fail_waiting(EngineError("gone"))
    with pytest.raises(EngineError, match="gone"):
        await waiting


growths = st.lists(st.integers(0, 20_000), max_size=60)


@given(growths, st.integers(1, 8), st.integers(1, 40), st.integers(0, 20_000))
def test_moments_are_those_of_the_latest_growths_the_prior_in_the_mean(
    seen: list[int], prior: int, window: int, most: int
) -> None:
    growth = Growth(window, prior)
    for tokens in seen:
        growth.add(tokens)
    mean, variance = growth.moments(most)
    assert mean == pytest.approx(min(statistics.fmean([most] * prior + seen[-window:]), most))
    assert variance == pytest.approx(statistics.pvariance(seen[-window:]) if seen else 0, abs=1e-3)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(1, 64))
def test_before_anything_has_ended_the_worst_case_is_expected(sizes: list[int], block: int) -> None:
    admission = Admission(100, 1000, block)
    assert admission.expected([(1, 1, size) for size in sizes]) == sum(-(-size // block) * block for size in sizes)


@given(growths, st.lists(st.tuples(*[st.integers(0, 5_000)] * 3), min_size=1, max_size=20), st.integers(1, 64))
def test_no_less_is_expected_than_is_held_and_no_more_than_the_worst_case(
    seen: list[int], parts: list[tuple[int, int, int]], block: int
) -> None:
    admission = Admission(100, 1000, block)
    for tokens in seen:
        admission.growth.add(tokens)
    traces = [(first, first + more, first + more + rest) for first, more, rest in parts]
    expected = admission.expected(traces)
    assert sum(now for _, now, _ in traces) <= expected <= sum(-(-most // block) * block for _, _, most in traces)


def test_as_traces_end_more_are_admitted() -> None:
    admission = Admission(1000, capacity=4_000)
    room = []
    for _ in range(200):
        traces = [(100, 100, 1_000)]
        while admission.expected([*traces, traces[0]]) <= 4_000:
            traces.append(traces[0])
        room.append(len(traces))
        admission.growth.add(100)
    assert room[0] == 4
    assert room == sorted(room)
    assert 17 <= room[-1] <= 20  # of 20 that would fit if each grew by 100


@given(
    st.lists(st.tuples(st.integers(1, 60), st.lists(st.integers(1, 40), min_size=1, max_size=4)), max_size=25),
    st.integers(1, 6),
    st.integers(1, 300),
    st.randoms(use_true_random=False),
)
def test_all_are_admitted_in_order_and_finish(
    plans: list[tuple[int, list[int]]], places: int, capacity: int, chance: Any
) -> None:
    """Whatever the estimates, and whatever the order in which turns end."""

    async def run() -> None:
        admission, order, ended = Admission(places, capacity), list[int](), list[int]()
        gates: dict[int, asyncio.Future[None]] = {}

        async def trace(number: int, prompt: int, turns: list[int]) -> None:
            held = prompt
            for turn, tokens in enumerate(turns):
                assert await admission.enter(str(number), prompt + 200, held) is (turn > 0)
                if not turn:
                    order.append(number)
                assert len(admission) <= places
                gates[number] = gate = asyncio.get_running_loop().create_future()
                await gate
                held += tokens
                admission.grown(str(number), held)
            admission.leave(str(number))
            ended.append(number)

        tasks = [asyncio.create_task(trace(number, *plan)) for number, plan in enumerate(plans)]
        while True:
            await settle()
            if len(ended) == len(plans):
                break
            waiting = [gate for gate in gates.values() if not gate.done()]
            assert waiting, "nothing is under way, and some have not ended"
            chance.choice(waiting).set_result(None)
        await asyncio.gather(*tasks)
        assert order == sorted(order) == sorted(ended)
        assert not len(admission)

    asyncio.run(run())


async def test_ranks_are_in_the_order_of_letting_in_and_last() -> None:
    admission = Admission(3)
    for name in "abc":
        await admission.enter(name, 10, 1)
    admission.leave("a")
    await admission.enter("d", 10, 1)
    await admission.enter("b", 10, 5)
    assert [admission.rank(name) for name in "bcd"] == [1, 2, 3]
    assert admission.rank("unknown") > 3


async def test_only_traces_with_a_finished_turn_are_learned_from() -> None:
    admission = Admission(3, 1_000)
    await admission.enter("given up", 500, 100)
    admission.leave("given up")
    assert admission.growth.moments(400) == (400, 0)
    await admission.enter("done", 500, 100)
    admission.grown("done", 150)
    await admission.enter("done", 500, 180)
    admission.grown("done", 200)
    admission.leave("done")
    admission.grown("done", 900)  # too late
    assert admission.growth.moments(400)[0] == pytest.approx((2 * 400 + 100) / 3)
