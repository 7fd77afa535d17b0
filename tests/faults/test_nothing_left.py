"""Cancellation, early ends and a dying host: no process, folder or descriptor stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox import Limits, Sandbox, SandboxClosed

Processes = Callable[[Path], list[str]]

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(sandbox_processes: Processes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for the test's sandboxes, apart from those of others on this machine."""
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setenv("TMPDIR", name)
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        yield Path(name)
        assert sandbox_processes(Path(name)) == []
        assert list(Path(name).iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 8  # noqa: PTH208 - the loop's own, once


async def test_a_cancelled_cell(sandbox_processes: Processes, folder: Path) -> None:
    async with Sandbox(size=1, prestart=0) as box, box.session() as session:
        cell = asyncio.create_task(session.execute("while True: pass", timeout=60))
        for _ in range(10):  # turns of the loop; far enough to have sent it
            await asyncio.sleep(0)
        cell.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cell
        assert box.stats.kernels_live == 0 and sandbox_processes(folder) == []


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100])
async def test_a_cancelled_start(turns: int) -> None:
    async with Sandbox(size=2, prestart=0) as box:

        async def use() -> None:
            async with box.session():
                raise AssertionError("not cancelled")

        async with box.session():  # takes the first kernel, so that the next has to be started
            task = asyncio.create_task(use())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with box.session() as session:
            assert (await session.execute("1")).text == "1"


async def test_the_end_of_the_box_ends_all() -> None:
    waited: list[BaseException] = []

    async def wait(box: Sandbox) -> None:
        try:
            async with box.session():
                pass
        except SandboxClosed as error:
            waited.append(error)

    async with Sandbox(size=1) as box:
        manager = box.session()
        session = await manager.__aenter__()
        waiters = [asyncio.create_task(wait(box)) for _ in range(2)]
        cell = asyncio.create_task(session.execute("while True: pass", timeout=60))
        while box.stats.waiting < 2:  # noqa: ASYNC110 - a turn of the loop, not a time
            await asyncio.sleep(0)
    await asyncio.gather(*waiters)
    assert len(waited) == 2
    with pytest.raises(SandboxClosed):
        await cell
    with pytest.raises(SandboxClosed):
        await session.execute("1")
    await manager.__aexit__(None, None, None)


async def test_a_failing_block_ends_all() -> None:
    with pytest.raises(RuntimeError, match="mine"):
        async with Sandbox(size=2) as box, box.session():
            raise RuntimeError("mine")


def test_a_host_killed_outright_takes_its_kernels_along(sandbox_processes: Processes, folder: Path) -> None:
    program = """
import asyncio
from sandbox import Sandbox
async def main():
    async with Sandbox(size=1, prestart=0) as box, box.session() as session:
        print(box._folder, flush=True)
        await session.execute("while True: pass", timeout=100)
asyncio.run(main())
"""
    host = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert host.stdout
    with host, host.stdout:
        left = Path(host.stdout.readline().strip())
        seen = sandbox_processes(folder)
        host.send_signal(signal.SIGKILL)
        host.wait()
    assert seen
    while sandbox_processes(folder):  # the kernel ends them at its own pace; the test's time limit is the bound
        pass
    # A killed host cannot tidy its folder; there is nothing in it but empty folders and the canary.
    assert [path.name for path in left.rglob("*") if not path.is_dir()] == ["canary"]
    shutil.rmtree(left)


async def test_limits_reach_the_kernel() -> None:
    async with Sandbox(Limits(cells=1), size=1, prestart=0) as box, box.session() as session:
        await session.execute("1")
        result = await session.execute("1")
        assert result.outcome == "cells" and "after 1 cells" in result.text
