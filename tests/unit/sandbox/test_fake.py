from __future__ import annotations

import asyncio

import pytest

from sandbox import FakeSandbox, Image, Limits, Outcome, Result, SandboxClosed, SandboxError, TooManyFiles


async def test_answers_from_a_mapping_and_from_a_callable() -> None:
    broken = Result(Outcome.ERROR, error="NameError: x")
    async with FakeSandbox({"1+1": "2", "x": broken}) as box, box.session() as session:
        assert (await session.execute("1+1")).text == "2"
        assert await session.execute("x") is broken
        assert "no answer" in (await session.execute("unknown")).text
    assert box.codes == ["1+1", "x", "unknown"]
    assert (box.stats.sessions, box.stats.cells, box.open_sessions) == (1, 3, 0)
    async with FakeSandbox(str.upper) as box, box.session() as session:
        assert (await session.execute("abc")).text == "ABC"


async def test_faults_on_demand() -> None:
    async with FakeSandbox({"a": SandboxError("always"), "b": "1"}) as box, box.session() as session:
        with pytest.raises(SandboxError, match="always"):
            await session.execute("a")
        box.fail_next(SandboxError("once"))
        with pytest.raises(SandboxError, match="once"):
            await session.execute("b")
        assert (await session.execute("b")).text == "1"
    assert box.stats.faults == 2


async def test_a_script_may_hang_and_be_cancelled() -> None:
    async def hang(code: str) -> str:
        await asyncio.Event().wait()
        return code

    async with FakeSandbox(hang, size=1) as box:

        async def use() -> None:
            async with box.session() as session:
                await session.execute("x")

        task = asyncio.create_task(use())
        while not box.codes:  # noqa: ASYNC110 - a turn of the loop, not a time
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert box.open_sessions == 0


async def test_closing_turns_waiters_away() -> None:
    refused = 0

    async def use() -> None:
        nonlocal refused
        try:
            async with box.session():
                pass
        except SandboxClosed:
            refused += 1

    async with FakeSandbox(size=1) as box:
        manager = box.session()
        await manager.__aenter__()
        waiters = [asyncio.create_task(use()) for _ in range(3)]
        while box.stats.waiting < 3:  # noqa: ASYNC110 - a turn of the loop, not a time
            await asyncio.sleep(0)
    await asyncio.gather(*waiters)
    assert refused == 3
    await manager.__aexit__(None, None, None)


async def test_cells_are_limited() -> None:
    async with FakeSandbox({"a": "1"}, limits=Limits(cells=1)) as box, box.session() as session:
        await session.execute("a")
        assert (await session.execute("a")).outcome is Outcome.CELLS


async def test_files_are_limited() -> None:
    async with FakeSandbox(limits=Limits(files=2)) as box, box.session() as session:
        for name in ("a", "b", "a"):
            await session.write_file(name, b"")
        with pytest.raises(TooManyFiles) as raised:
            await session.write_file("c", b"")
        assert raised.value.limit == 2
        await session.remove_file("a")
        await session.write_file("c", b"")


async def test_images_are_returned_on_request() -> None:
    figure = Result(Outcome.OK, images=(Image("image/png", b"png"),))
    async with FakeSandbox({"plot": figure}) as box, box.session() as session:
        assert (await session.execute("plot")).images == ()
        assert (await session.execute("plot", images=True)).images == figure.images
