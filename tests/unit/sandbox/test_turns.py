"""How many cells run at once, over all sessions."""

from __future__ import annotations

import asyncio

import pytest

from sandbox import Outcome, Sandbox


async def test_waiting_for_a_turn_costs_a_cell_nothing_of_its_time() -> None:
    async with Sandbox(size=2, cells=1) as box, box.session() as first, box.session() as second:
        endless = asyncio.create_task(first.execute("while True: pass", timeout=1.5))
        await asyncio.sleep(0)  # a turn of the loop: the endless one has the only place
        result = await second.execute("1 + 1", timeout=1.0)
        assert endless.done() and (await endless).outcome is Outcome.TIMEOUT
        assert (result.outcome, result.text) == (Outcome.OK, "2")
        assert result.duration_s < 1.0


async def test_sessions_without_a_running_cell_block_no_other() -> None:
    async with Sandbox(size=3, cells=1) as box, box.session() as first, box.session() as second, box.session() as third:
        for session in (first, second, third):
            assert (await session.execute("x = 1")).outcome is Outcome.OK
        assert [(await session.execute("x")).text for session in (third, second, first)] == ["1"] * 3


async def test_a_cancelled_wait_gives_its_turn_up() -> None:
    async with Sandbox(size=3, cells=1) as box, box.session() as first, box.session() as second, box.session() as third:
        endless = asyncio.create_task(first.execute("while True: pass", timeout=1.0))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(second.execute("1"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await third.execute("3")).text == "3"
        await endless


async def test_a_sandbox_that_is_opened_again_has_no_more_places_than_before() -> None:
    box = Sandbox(size=1)
    for _ in range(2):
        async with box, box.session():
            waiting = asyncio.create_task(box.session().__aenter__())
            await asyncio.sleep(0)
            assert box.stats.waiting == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


def test_no_turns_at_all() -> None:
    with pytest.raises(ValueError, match="cells must be at least 1"):
        Sandbox(cells=0)
