"""Total memory in each tier: processes that hinder counting, shared pages, buffers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sandbox import Outcome, Result, Sandbox

Attack = Callable[..., Awaitable[Result]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

_BEGIN = "import ctypes, os, socket, time\nlibc = ctypes.CDLL(None, use_errno=True)\n"

# More than 700 MB each, in processes that do something to be counted late or not at all.
_HELD = {
    "children of children that are gone": """
for n in range(8):
    if os.fork() == 0:
        for _ in range(5):
            if os.fork(): os._exit(0)
        x = bytearray(os.urandom(1 << 20) * 120); time.sleep(99)
""",
    "children in sessions of their own": """
for n in range(8):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        x = bytearray(os.urandom(1 << 20) * 120); time.sleep(99)
""",
    "children that come and go": """
for n in range(12):
    if os.fork() == 0:
        x = bytearray(os.urandom(1 << 20) * 100)
        while True:
            if os.fork(): time.sleep(0.002); os._exit(0)
""",
    "children of threads": """
import threading
def hold():
    if os.fork() == 0: x = bytearray(os.urandom(1 << 20) * 120); time.sleep(99)
    time.sleep(99)
for n in range(8): threading.Thread(target=hold, daemon=True).start()
""",
    "pages made their own after a fork": """
x = bytearray(os.urandom(1 << 20) * 200)
for n in range(5):
    if os.fork() == 0:
        time.sleep(0.6)
        for i in range(0, len(x), 4096): x[i] = 1
        time.sleep(99)
""",
}


@pytest.mark.parametrize("name", _HELD)
async def test_memory_of_all_processes_is_counted(attack: Attack, name: str) -> None:
    result = await attack(_BEGIN + _HELD[name] + "\ntime.sleep(99)", 20)
    assert (result.outcome, result.state_lost) == (Outcome.MEMORY, True)
    assert "used more than 700 MB together" in result.text


async def test_what_processes_share_is_counted_once(box: Sandbox) -> None:
    """A kernel's memory is mostly the zygote's, and a fork's its parent's: many of them are not much."""
    code = _BEGIN + "x = bytearray(os.urandom(1 << 20) * 60)\nfor n in range(20):\n"
    code += "    if os.fork() == 0: time.sleep(99)\ntime.sleep(0.8)\n'still there'"
    async with box.session() as session:
        assert (await session.execute(code)).text == "'still there'"
        result = await session.execute("import subprocess\nfor n in range(99): subprocess.run(['true'])\nlen(x) >> 20")
        assert (result.outcome, result.text) == (Outcome.OK, "60")


async def test_memory_between_cells_is_counted(box: Sandbox) -> None:
    """What a cell has left may not take what it likes until the next one."""
    async with box.session() as session:
        cell = _BEGIN + "for n in range(8):\n    if os.fork() == 0:\n        time.sleep(0.3)\n"
        await session.execute(cell + "        x = bytearray(os.urandom(1 << 20) * 120); time.sleep(99)")
        kernel = session._kernel  # type: ignore[attr-defined]
        while not box.cgroups.startswith("memory") and not kernel.dead:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        assert (await session.execute("time.sleep(99)", timeout=20)).outcome is Outcome.MEMORY
        assert (await session.execute("6 * 7")).text == "42"


# What Linux holds in buffers: `taken`, in MB, is what code got into them.
_BUFFERS = {
    "connections": """
server = socket.create_server(('127.0.0.1', 0), backlog=512)
for n in range(40):
    c = socket.socket(); c.setsockopt(1, 7, 1 << 30); c.connect(server.getsockname()); keep += [c, server.accept()[0]]
    fill(c)
""",
    "connections, both ways": """
server = socket.create_server(('::1', 0), family=socket.AF_INET6)
for n in range(40):
    c = socket.socket(socket.AF_INET6); c.connect(server.getsockname()); keep += [c, server.accept()[0]]
    for s in keep[-2:]: s.setsockopt(1, 8, 1 << 30); fill(s)
""",
    "datagrams": """
for n in range(60):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(1, 8, 1 << 30); s.bind(('127.0.0.1', 0))
    s.connect(s.getsockname()); keep.append(s); fill(s, 60_000)
taken = 0  # what comes in when the buffer is full is dropped
for s in keep:
    try:
        while True: taken += len(s.recv(60_000))
    except OSError: pass
""",
    "pairs": """
for n in range(60):
    for s in (pair := socket.socketpair()): s.setsockopt(1, 7, 1 << 30); fill(s, 30_000)
    keep.append(pair)
""",
}


@pytest.mark.parametrize("name", _BUFFERS)
async def test_buffers_are_small(attack: Attack, name: str) -> None:
    fill = """
taken, keep = 0, []
def fill(s, size=1 << 16):
    global taken
    s.setblocking(False)
    try:
        for _ in range(200): taken += s.send(bytes(size))
    except OSError: pass
"""
    result = await attack(_BEGIN + fill + _BUFFERS[name] + "taken >> 20")
    assert result.outcome is Outcome.OK and int(result.text) <= 30
