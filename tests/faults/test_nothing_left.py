"""Cancellation, early ends and a killed host: no process, folder or descriptor is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal, cast

import pytest

from sandbox import (
    KernelStartError,
    Limits,
    Outcome,
    Sandbox,
    SandboxClosed,
    SandboxError,
    SandboxFaulty,
    capacity,
    folders,
)
from sandbox.kernel import Kernel
from sandbox.zygote import kill
from tests.support.processes import descendants, groups, living, sandboxed
from tests.support.waiting import eventually, wait_for_exits, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for the test's sandboxes, apart from those of others on this machine."""
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setenv("TMPDIR", name)
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        yield Path(name)
        assert sandboxed() == {}
        assert list(Path(name).iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) <= descriptors  # noqa: PTH208


@pytest.fixture(params=[pytest.param(1, id="tier1"), pytest.param(2, id="tier2", marks=pytest.mark.nightly)])
def tier(request: pytest.FixtureRequest) -> Literal[1, 2]:
    return cast("Literal[1, 2]", request.param)


async def test_a_cancelled_cell(tier: Literal[1, 2]) -> None:
    async with Sandbox(size=1, prestart=0, tier=tier) as box, box.session() as session:
        before = sandboxed()
        cell = asyncio.create_task(session.execute("while True: pass", timeout=60))
        for _ in range(10):  # turns of the loop; far enough to have sent it
            await asyncio.sleep(0)
        cell.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cell
        assert box.stats.kernels_live == 0 and len(sandboxed()) == len(before) - 1


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


_HOST = """
import asyncio, sys
from sandbox import Sandbox
async def main():
    async with Sandbox(size=2, prestart=0, tier=int(sys.argv[1])) as box, box.session() as session:
        print(box._folder, flush=True)
        await session.execute("import os, time\\nif os.fork() == 0: time.sleep(100)\\nwhile True: pass", timeout=100)
asyncio.run(main())
"""


def _run_host(tier: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _HOST, str(tier)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_host_killed_outright_takes_its_kernels_along(tier: int, folder: Path) -> None:
    with _run_host(tier) as host:
        assert host.stdout
        left = Path(host.stdout.readline().strip())
        # The cell's own child is the last to come.
        assert wait_until(lambda: len(descendants(host.pid)) >= {1: 6, 2: 5}[tier], host.pid)
        seen = descendants(host.pid)
        host.send_signal(signal.SIGKILL)
        host.wait()
    wait_for_exits(lambda: living(seen))  # Linux ends them at its own pace
    assert not left.exists()  # the host could not tidy up; its guardian did


# Forks a host for each line that it reads, so that only the first has to load everything; inherits its orphans.
_HOSTS = """
import asyncio, ctypes, os, signal, sys, tempfile
from sandbox import Sandbox, kernel, pool, selftest, session
tempfile.gettempdir()  # which tries the folder out with a file, once
async def main(tier):
    async with Sandbox(size=2, tier=tier) as box, box.session() as session:
        await session.execute("while True: pass", timeout=100)
ctypes.CDLL(None).prctl(36, 1)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    host = os.fork()
    if not host:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asyncio.run(main(int(line)))
    print(host, flush=True)
"""


@pytest.mark.parametrize("stage", range(6))
@pytest.mark.parametrize("kills", [2, pytest.param(4, marks=pytest.mark.nightly)])
def test_a_host_killed_while_all_is_starting(tier: int, stage: int, kills: int, folder: Path) -> None:
    """Bubblewrap's child waits for its parent before it asks to die with it: it must not wait forever."""
    source = random.Random(f"{tier} {stage} {kills}")
    made: set[str] = set()
    arguments = [sys.executable, "-c", _HOSTS]
    with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hosts:
        assert hosts.stdin and hosts.stdout
        for _ in range(kills):
            print(tier, file=hosts.stdin, flush=True)
            host = int(hosts.stdout.readline())
            # Itself, its guardian, bubblewrap's two or the zygote's parent, the zygote, a kernel.
            long = min(stage, {1: 5, 2: 4}[tier])
            assert wait_until(partial(_is_longer, host, long), host, look_ms=1)
            time.sleep(source.uniform(0, 0.001))  # waits for nothing: within that stage, not always at its beginning
            os.kill(host, signal.SIGKILL)
            wait_for_exits(lambda: descendants(hosts.pid))
            made |= {path.name for path in folder.iterdir()}
        hosts.stdin.close()
    folders.make().remove()  # a host killed before it had a guardian leaves its folder to the next to come
    for path in folder.glob(".kernels-*"):  # or to a later one, in the moment before it has a name
        path.rmdir()
    assert groups(made) == []


def _is_longer(host: int, than: int) -> bool:
    return len(_line(host)) > than


def _line(process: int) -> list[int]:
    """A process, the first of its children, the first of that one's, and so on."""
    line = [process]
    while True:
        try:
            children = Path(f"/proc/{line[-1]}/task/{line[-1]}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return line
        if not children:
            return line
        line.append(int(children[0]))


def test_a_host_that_is_interrupted_tidies_up(tier: int) -> None:
    with _run_host(tier) as host:
        assert host.stdout
        left = Path(host.stdout.readline().strip())
        seen = descendants(host.pid)
        host.send_signal(signal.SIGINT)
        host.wait()
    assert living(seen) == {} and not left.exists()


@pytest.mark.parametrize("which", ["guardian", "zygote"])
async def test_death_of_the_zygote(tier: Literal[1, 2], which: str) -> None:
    async with Sandbox(size=2, prestart=1, tier=tier) as box:
        async with box.session() as session:
            await session.execute("x = 1")
            zygote = box._pool._zygote  # type: ignore[union-attr]
            assert zygote is not None and zygote._guardian is not None
            *_, last = _line(zygote._guardian.pid)[: {"guardian": 1, "zygote": 4 if tier == 1 else 3}[which]]
            os.kill(last, signal.SIGKILL)
            await eventually(lambda: zygote.dead)
            result = await session.execute("x")
            assert (result.outcome, result.state_lost) == (Outcome.DIED, True)
            assert (await session.execute("6 * 7")).text == "42"
        assert box.stats.zygote_restarts == 1
        async with box.session() as session:
            assert (await session.execute("6 * 7")).text == "42"


async def test_too_many_faults_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(size=1, prestart=0) as box:
        monkeypatch.setattr(Kernel, "_launch", _fail)
        refused: list[type[SandboxError]] = []
        for _ in range(12):
            with pytest.raises(SandboxError) as caught:
                async with box.session():
                    pass
            refused.append(caught.type)
        assert set(refused[:3]) == {KernelStartError} and set(refused[3:]) == {SandboxFaulty}
        assert "no luck" in str(caught.value)
        assert box.stats.faults == 8


async def test_a_fault_is_retried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    launch, calls = Kernel._launch, 0

    async def launch_at_second(kernel: Kernel) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KernelStartError("no luck")
        await launch(kernel)

    async with Sandbox(size=1, prestart=0) as box:
        monkeypatch.setattr(Kernel, "_launch", launch_at_second)
        async with box.session() as session:
            assert (await session.execute("1")).text == "1"
        assert (box.stats.faults, calls) == (1, 2)


async def _fail(kernel: Kernel) -> None:
    raise KernelStartError("no luck")


async def test_a_kernel_that_dies_unused_costs_nothing(tier: Literal[1, 2]) -> None:
    async with Sandbox(size=1, prestart=1, tier=tier) as box, box.session() as session:
        kernel = session._kernel  # type: ignore[attr-defined]
        kill(kernel._child.pidfd)
        await eventually(lambda: kernel.dead)
        assert (await session.execute("6 * 7")).text == "42"


async def test_limits_reach_the_kernel() -> None:
    async with Sandbox(Limits(cells=1), size=1, prestart=0) as box, box.session() as session:
        await session.execute("1")
        result = await session.execute("1")
        assert result.outcome == "cells" and "after 1 cells" in result.text


async def test_the_places_are_bounded_by_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "most_kernels", lambda: 2)
    async with Sandbox(size=100, prestart=0) as box:
        assert box.size == 2
        async with box.session(), box.session():
            waiter = asyncio.create_task(_use(box))
            while box.stats.waiting < 1:  # noqa: ASYNC110 - a turn of the loop, not a time
                await asyncio.sleep(0)
        await waiter


async def _use(box: Sandbox) -> None:
    async with box.session():
        pass
