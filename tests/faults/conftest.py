"""One box for all attacks of a module, and proof after each that nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox import Limits, Result, Sandbox

Attack = Callable[..., Awaitable[Result]]


def _processes(of: Path) -> list[str]:
    """Command lines of living bubblewraps with sockets below the folder (a zombie waits for init, not for us)."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z" and f"{of}/" in line:
                found.append(line)
    return found


@pytest.fixture
def sandbox_processes() -> Callable[[Path], list[str]]:
    return _processes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box() -> AsyncIterator[Sandbox]:
    limits = Limits(seconds=5, memory_bytes=512 << 20, processes=48, disk_bytes=16 << 20)
    async with Sandbox(limits, size=3, prestart=1) as box:
        yield box


@pytest_asyncio.fixture(loop_scope="module")
async def attack(box: Sandbox) -> AsyncIterator[Attack]:
    """Run one cell beside a sibling, which must keep its state and answer."""
    async with box.session() as sibling:
        await sibling.execute("secret = 'sibling'")

        async def attack(code: str, timeout: float = 5.0) -> Result:
            async with box.session() as session:
                return await session.execute(code, timeout=timeout)

        yield attack
        assert (await sibling.execute("secret")).text == "'sibling'"
    # What is left are the one kernel kept ready and nothing else: no process, no folder, no socket.
    while box.stats.kernels_live > 1:  # noqa: ASYNC110 - a turn of the loop, not a time
        await asyncio.sleep(0)
    assert box._folder is not None
    assert len(list(box._folder.iterdir())) - 1 <= box.stats.kernels_live
