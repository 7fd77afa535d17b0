"""Who is let into an engine, and when."""

from __future__ import annotations

import asyncio

import pytest

from start_agent.engines.admission import Admission
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


async def test_room_counts_and_one_alone_is_always_let_in() -> None:
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


async def test_who_is_let_in_and_gives_up_at_the_same_moment_leaves() -> None:
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
    admission.refuse(EngineError("gone"))
    with pytest.raises(EngineError, match="gone"):
        await waiting
