"""Leaks and sharing by forking from one zygote, and system calls that the filter refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sandbox import Outcome, Result, Sandbox

Attack = Callable[..., Awaitable[Result]]

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_no_descriptor_of_the_zygotes_is_inherited(attack: Attack) -> None:
    code = """
import os
for name in sorted(os.listdir('/proc/self/fd'), key=int):
    try: print(name, os.readlink(f'/proc/self/fd/{name}').split(':')[0].split('/')[1:2] or 'pipe')
    except FileNotFoundError: pass
"""
    lines = (await attack(code)).text.splitlines()
    # Standard input; the two outputs, which are one file, and its own handle; the two pipes.
    assert [line.split()[0] for line in lines] == ["0", "1", "2", *[line.split()[0] for line in lines[3:]]]
    assert sum("pipe" in line for line in lines) == 2
    assert {line.split(maxsplit=1)[1] for line in lines} <= {"['dev']", "['tmp']", "pipe"}


async def test_forks_do_not_share_their_luck(box: Sandbox) -> None:
    code = """
import random, numpy, uuid, tempfile, sympy
random.random(), numpy.random.rand(), sympy.core.random.random(), uuid.uuid4(), tempfile.mktemp()
"""
    texts = []
    for _ in range(2):
        async with box.session() as session:
            texts.append((await session.execute(code)).text)
    assert not {*texts[0].strip("()").split(", ")} & {*texts[1].strip("()").split(", ")}


async def test_siblings_share_no_place_to_write(box: Sandbox) -> None:
    # Terminals, message queues, shared memory and names of hosts are namespaces of their own, or refused.
    async with box.session() as one, box.session() as other:
        await one.execute("import pty, socket\nends = pty.openpty()\nopen('/dev/shm/a', 'w').close()")
        assert (await one.execute("import os\nos.listdir('/dev/pts')")).text == "['0', 'ptmx']"
        assert (
            await other.execute("import os\nos.listdir('/dev/pts'), os.listdir('/dev/shm')")
        ).text == "(['ptmx'], [])"
        code = "import os\n[path for path in ('/', '/run', '/dev', '/etc', '/proc') if os.access(path, os.W_OK)]"
        assert (await one.execute(code)).text == "[]"


@pytest.mark.parametrize(
    "call",
    [
        "libc.ptrace(0, 0, 0, 0)",
        "libc.unshare(0x10000000)",
        "libc.setns(0, 0)",
        "libc.mount(b'x', b'/tmp', b'tmpfs', 0, None)",
        "libc.umount2(b'/tmp', 2)",
        "libc.chroot(b'/tmp')",
        "libc.memfd_create(b'x', 0)",
        "libc.shmget(0, 1 << 20, 0o1600)",
        "libc.syscall(425, 8, 0)",  # io_uring_setup
        "libc.syscall(435, 0, 0)",  # clone3
        "libc.syscall(0x40000000 + 39)",  # getpid by the x32 calls
        "libc.clone(0, 0, 0x10000011, 0)",
        "libc.syscall(56, 0x10000011, 0, 0, 0, 0)",  # clone into a user namespace
        "libc.perf_event_open() if hasattr(libc, 'perf_event_open') else -1",
        "libc.process_vm_readv(1, 0, 0, 0, 0, 0)",
        "libc.personality(0xffffffff)",
        "libc.ioctl(0, 0x5412, b'x')",
    ],
)
async def test_system_calls_are_refused(attack: Attack, call: str) -> None:
    result = await attack(f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint({call}, ctypes.get_errno())")
    value, error = result.text.split()
    assert int(value) == -1 and int(error) in (1, 22, 38, 12), result.text


@pytest.mark.parametrize("family", ["AF_VSOCK", "AF_NETLINK", "AF_PACKET", "AF_ALG"])
async def test_families_of_sockets_are_refused(attack: Attack, family: str) -> None:
    result = await attack(f"import socket\nsocket.socket(socket.{family}, socket.SOCK_RAW)")
    assert "Address family not supported" in result.text


async def test_inodes_are_bounded(attack: Attack) -> None:
    result = await attack("for n in range(10_000): open(f'/tmp/{n}', 'w').close()")
    assert result.outcome is Outcome.ERROR and "No space left" in result.text


async def test_a_full_disk_is_no_end(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute("for n in range(99):\n    with open(f'/tmp/{n}', 'wb') as f: f.write(bytes(8 << 20))")
        assert (await session.execute("6 * 7")).text == "42"
        await session.execute(
            "import os\nfor n in range(9):\n    if os.path.exists(f'/tmp/{n}'): os.remove(f'/tmp/{n}')"
        )
        assert (await session.execute("print(input())", stdin="x")).text == "x"


@pytest.mark.parametrize("code", ["import mmap\nmmap.mmap(-1, 1 << 20)", "import os\nos.memfd_create('x')"])
async def test_memory_that_no_limit_counts_is_refused(attack: Attack, code: str) -> None:
    assert (await attack(code)).outcome is Outcome.ERROR


async def test_memory_in_sum_is_bounded(attack: Attack) -> None:
    code = "import os, time\nfor n in range(8):\n    if os.fork() == 0:\n"
    code += "        x = bytearray(os.urandom(1 << 20) * 200)\n"
    result = await attack(code + "        time.sleep(99)\ntime.sleep(99)", 30)
    assert (result.outcome, result.state_lost) == (Outcome.MEMORY, True)
    assert "used more than 700 MB together. All variables are lost." in result.text


async def test_child_processes_work_and_end(box: Sandbox) -> None:
    async with box.session() as session:
        cells = {
            "import subprocess\nsubprocess.run(['echo', 'a'], capture_output=True, text=True).stdout": "'a\\n'",
            "!echo b": "b",
            "import multiprocessing as m\nwith m.Pool(2) as p: print(p.map(abs, [-1, -2]))": "[1, 2]",
            "import os\nif os.fork() == 0: print('child')\nelse: os.wait(); print('parent')": "child\nparent",
            "import asyncio\nasyncio.run(asyncio.sleep(0, 3))": "3",
        }
        for code, text in cells.items():
            assert (await session.execute(code)).text == text


@pytest.mark.parametrize(
    "code",
    [
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'CellOutput': o.finish = None",
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Server': o.send = o._execute = None",
        "import builtins\nbuiltins.print = builtins.input = builtins.len = None",
        "import sys\nsys.modules.clear()",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'publish' in o: o.clear()",
        "get_ipython().run_cell = None",
    ],
)
async def test_a_patched_kernel_harms_itself_alone(attack: Attack, code: str) -> None:
    assert (await attack(code, 0.5)).outcome in set(Outcome) - {Outcome.CELLS}


async def test_many_hostile_sessions_at_once(box: Sandbox) -> None:
    codes = ["import os; os._exit(1)", "while True: pass", "x = []\nwhile True: x.append(bytearray(1 << 20))"] * 4

    async def one(code: str) -> Outcome:
        async with box.session() as session:
            return (await session.execute(code, timeout=0.5)).outcome

    outcomes = await asyncio.gather(*map(one, codes))
    assert set(outcomes) <= {Outcome.DIED, Outcome.TIMEOUT, Outcome.MEMORY}
    assert box.stats.faults == 0
