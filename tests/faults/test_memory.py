"""Memory that no limit of a single process counts, with and without cgroups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from sandbox import Outcome, Result, Sandbox, cgroups
from tests.support.processes import sandboxed
from tests.support.small import LIMITS

Attack = Callable[..., Awaitable[Result]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = ()  # how memory is looked at is the same in all; `box` is another here

_MB = 1 << 20
_SMALL = replace(LIMITS, memory_bytes=256 * _MB, memory_in_sum_bytes=400 * _MB)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[False, True], ids=["alone", "cgroups"])
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """A sandbox with the limits of the attacks; once as where there are no cgroups."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.param:
            patch.setattr(cgroups.Groups, "make", lambda self, limits: None)
        async with Sandbox(_SMALL, size=3, prestart=1) as box:
            yield box
    assert sandboxed() == {}


_FORKS = "import os, time\nfor n in range(10):\n    if os.fork() == 0:\n        x = bytearray(93 << 20)\n        "


@pytest.mark.parametrize(
    "code",
    [
        f"{_FORKS}time.sleep(60)\ntime.sleep(60)",
        f"import ctypes\nctypes.CDLL(None).prctl(4, 0)\n{_FORKS}ctypes.CDLL(None).prctl(4, 0)\n"
        "        time.sleep(60)\ntime.sleep(60)",
        # Each lives for some milliseconds, and there are always twelve.
        "import os\nlive = 0\nwhile True:\n    if live < 12:\n        if os.fork() == 0:\n"
        "            x = b'x' * (93 << 20)\n            os._exit(0)\n        live += 1\n"
        "    else:\n        os.wait()\n        live -= 1",
        "import subprocess, sys\np = [subprocess.Popen([sys.executable, '-c', 'x = bytearray(93 << 20); input()'],"
        " stdin=-1) for _ in range(10)]\np[0].wait()",
        "import multiprocessing as m, time\ndef hold(n):\n    x = bytearray(93 << 20)\n    time.sleep(60)\n"
        "with m.get_context('fork').Pool(10) as p: p.map(hold, range(10))",
    ],
    ids=["children", "unreadable", "short-lived", "programs", "pool"],
)
async def test_memory_in_sum(attack: Attack, code: str) -> None:
    result = await attack(code, 8)
    assert result.outcome in (Outcome.MEMORY, Outcome.ERROR)
    assert result.state_lost or result.outcome is Outcome.ERROR


@pytest.mark.parametrize(
    "code",
    [
        "x = bytearray(150 << 20)\nimport os, time\nfor n in range(8):\n    if os.fork() == 0:\n"
        "        time.sleep(0.6)\n        os._exit(0)\nfor n in range(8): os.wait()",
        "import subprocess\nfor n in range(60): subprocess.run(['true'])",
        "import multiprocessing as m\nwith m.get_context('fork').Pool(4) as p: print(sum(p.map(abs, range(1000))))",
    ],
    ids=["shared", "many-short", "pool"],
)
async def test_what_is_shared_or_small_is_no_overrun(attack: Attack, code: str) -> None:
    assert (await attack(code, 10)).outcome is Outcome.OK


@pytest.mark.parametrize(
    "code",
    [
        "import socket\nkept = [socket.socket() for n in range(90)]\nimport os, time\nfor n in range(4):\n"
        "    if os.fork() == 0:\n        kept += [socket.socket() for n in range(140)]\n"
        "        time.sleep(60)\ntime.sleep(60)",
        "import socket, os, time\nfor n in range(10):\n    if os.fork() == 0:\n"
        "        kept = [socket.socketpair() for n in range(100)]\n        time.sleep(60)\ntime.sleep(60)",
        "import socket, os, time\nfor n in range(10):\n    if os.fork() == 0:\n"
        "        kept = [socket.socket(type=socket.SOCK_DGRAM) for n in range(200)]\n"
        "        time.sleep(60)\ntime.sleep(60)",
    ],
    ids=["tcp", "pairs", "udp"],
)
async def test_sockets_are_counted(attack: Attack, code: str) -> None:
    result = await attack(code, 8)
    assert (result.outcome, result.state_lost) == (Outcome.MEMORY, True)


async def test_buffers_of_connections_are_small(attack: Attack) -> None:
    code = """
import socket
kept, sent, server = [], 0, socket.create_server(('127.0.0.1', 0), backlog=128)
for n in range(40):
    c = socket.socket(); c.setsockopt(1, 7, 1 << 30); c.connect(server.getsockname()); c.setblocking(False)
    kept.append((c, server.accept()))
    try:
        while True: sent += c.send(bytes(1 << 20))
    except BlockingIOError: pass
print(sent // 40 < 1 << 19)
"""
    assert (await attack(code)).text == "True"


async def test_processes_of_many_mappings_delay_no_result(box: Sandbox) -> None:
    """What Linux has to take apart, it takes apart after the result is there."""
    code = """
import mmap, os, time
def fill():
    kept = []
    try:
        while True: kept.append((mmap.mmap(-1, 4096, flags=2, prot=1), mmap.mmap(-1, 4096, flags=2, prot=3)))
    except (OSError, MemoryError): pass
    time.sleep(60)
for n in range(8):
    if os.fork() == 0: fill()
time.sleep(60)
"""
    async with box.session() as session:
        result = await session.execute(code, timeout=2)
        assert result.outcome in (Outcome.TIMEOUT, Outcome.MEMORY)
        assert result.duration_s < 2 + box.limits.grace_seconds + 1
        assert (await session.execute("6 * 7")).text == "42"
