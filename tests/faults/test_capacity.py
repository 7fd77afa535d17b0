"""The stated maximum number of sessions can be opened at once; a full table is a typed error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from sandbox import HostFull, Sandbox, isolation

ROOT = Path(__file__).parents[2]

tiers = pytest.mark.parametrize("tier", [1, pytest.param(2, marks=pytest.mark.nightly)])

_PROGRAM = """
import asyncio, os, resource, sys
from contextlib import AsyncExitStack
from sandbox import HostFull, Limits, Sandbox

size, soft, hard, held, tier = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
kept = [os.dup(0) for _ in range(held)]

async def main():
    async with Sandbox(size=size, prestart=0, tier=tier) as box, AsyncExitStack() as stack:
        sessions = await asyncio.gather(*(stack.enter_async_context(box.session()) for _ in range(box.size)))
        results = await asyncio.gather(*(session.execute(f"{n} + 1") for n, session in enumerate(sessions)))
        assert [result.text for result in results] == [str(n + 1) for n in range(box.size)]
        assert box.stats.faults == 0 and box.stats.kernels_live == box.size
        print(box.size, resource.getrlimit(resource.RLIMIT_NOFILE)[0])

asyncio.run(main())
"""

_FULL = """
import asyncio, os, resource, sys
from sandbox import HostFull, Sandbox

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

async def main():
    async with Sandbox(size=8, prestart=0, tier=int(sys.argv[1])) as box:
        async with box.session() as session:
            await session.execute("x = 5")
            kept = []
            try:
                while True: kept.append(os.dup(0))
            except OSError: pass
            for _ in range(12):
                try:
                    async with box.session(): raise AssertionError
                except HostFull: pass
            # Long enough for two looks at its memory, which cannot be looked at now.
            assert (await session.execute("import time\\ntime.sleep(1)\\nx")).text == "5"
            for descriptor in kept[:64]: os.close(descriptor)
            async with box.session() as other:
                assert (await other.execute("6 * 7")).text == "42"
            assert (await session.execute("x")).text == "5"
        print("went on")

asyncio.run(main())
"""


def _run(program: str, *arguments: int) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout.strip()


@tiers
@pytest.mark.parametrize(
    ("size", "soft", "hard", "held", "least"),
    [
        (100, 1024, 1024, 0, 100),
        (100, 128, 1024, 0, 100),
        (64, 200, 200, 0, 20),
        (40, 256, 256, 100, 10),
        (8, 90, 90, 0, 4),
    ],
    ids=["defaults", "low-soft-limit", "low-limits", "much-held", "very-low"],
)
def test_all_places_can_be_taken_at_once(size: int, soft: int, hard: int, held: int, least: int, tier: int) -> None:
    opened, _ = map(int, _run(_PROGRAM, size, soft, hard, held, tier).split()[-2:])
    assert least <= opened <= size


@tiers
def test_a_full_table_is_a_typed_error_and_passes(tier: int) -> None:
    assert _run(_FULL, tier) == "went on"


_CUT_OFF = """
import asyncio, os, socket, sys
from sandbox import HostFull, Sandbox, zygote

class Full:  # as Linux does it where a descriptor finds no place
    def __getattr__(self, name): return getattr(socket, name)
    def recv_fds(self, *arguments):
        data, descriptors, *more = socket.recv_fds(*arguments)
        if b'"forked"' in data and full:
            for descriptor in descriptors: os.close(descriptor)
            descriptors = []
        return data, descriptors, *more

full = False
zygote.socket = Full()

async def main():
    global full
    async with Sandbox(size=4, prestart=0, tier=int(sys.argv[1])) as box, box.session() as session:
        await session.execute("x = 5")
        full = True
        for _ in range(5):
            try:
                async with box.session(): raise AssertionError
            except HostFull: pass
        full = False
        own = box._pool._zygote
        # A kernel that is ready, and another user where this is root.
        async with box.session() as other:
            await other.execute("1")
            own._control.send(f"-{own._names}".encode())
            assert (await other.execute("while True: pass")).outcome == "died"
        assert (await session.execute("x")).text == "5"
        while len(own._running) > 1: await asyncio.sleep(0.005)
        assert own._forking == {} and box.stats.zygote_restarts == 0
    print("went on")

asyncio.run(main())
"""


@tiers
def test_a_process_whose_descriptor_is_cut_off_is_ended(tier: int) -> None:
    assert _run(_CUT_OFF, tier) == "went on"


_NOTHING_LEFT = """
import asyncio, os, resource, sys
from sandbox import Sandbox, SandboxUnavailable

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    await asyncio.to_thread(os.getpid)
    kept = []
    try:
        while True: kept.append(os.dup(0))
    except OSError: pass
    for spare in (0, 1, 2, 4, 8):
        for descriptor in kept[len(kept) - spare:]: os.close(descriptor)
        before = len(kept) - spare
        try:
            async with Sandbox(size=1, tier=int(sys.argv[1])): pass
        except SandboxUnavailable: pass
        free = []
        try:
            while True: free.append(os.dup(0))
        except OSError: pass
        assert len(free) == spare, (spare, len(free))
        kept = kept[:before] + free
    print("refused")

asyncio.run(main())
"""


@tiers
def test_opening_without_descriptors_is_refused_and_keeps_none(tier: int) -> None:
    assert _run(_NOTHING_LEFT, tier) == "refused"


# In the zygote: some of its forks fail, as where there are too many processes. Tier 2 forks once to make its root.
_NO_FORK = """
import itertools, os
fork, numbers = os.fork, itertools.count()
def fail():
    if next(numbers) in {failing}: raise BlockingIOError(11, os.strerror(11))
    return fork()
os.fork = fail
"""


@tiers
async def test_a_fork_that_fails_is_a_typed_error_and_the_next_works(
    monkeypatch: pytest.MonkeyPatch, tier: Literal[1, 2]
) -> None:
    before = 1 if tier == 1 else 2  # the one of the first cell, with which opening tries the isolation
    command = isolation.python_command

    def failing(folder: str) -> list[str]:
        *start, program = command(folder)
        return [*start, _NO_FORK.format(failing={before + 1, before + 2, before + 3}) + program]

    monkeypatch.setattr(isolation, "python_command", failing)
    async with Sandbox(size=4, prestart=0, tier=tier) as box, box.session() as session:
        await session.execute("x = 5")
        with pytest.raises(HostFull, match="Resource temporarily unavailable"):
            async with box.session():
                pass
        async with box.session() as other:  # whose first fork fails and is tried again
            assert (await other.execute("import os\nos.getpid(), 6 * 7")).text == "(1, 42)"
        assert (await session.execute("x")).text == "5"
        assert (box.stats.faults, box.stats.zygote_restarts, box.stats.kernels_live) == (3, 0, 1)
