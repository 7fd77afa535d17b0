"""Attacks on file operations: files that change, grow, hide or are special, and kernels that lie."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
from collections.abc import Awaitable, Callable

import pytest

from sandbox import (
    FileError,
    FileNotFound,
    FileRefused,
    FilesLost,
    FileTooLarge,
    NotAFile,
    Outcome,
    Result,
    Sandbox,
    Session,
    TooManyFiles,
)
from sandbox.session import KernelSession
from tests.faults.test_hostile_wire import WIRE
from tests.support.small import LIMITS
from tests.support.waiting import eventually

Attack = Callable[..., Awaitable[Result]]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("attack")]

TIERS = (1, 3)

# Replaces the kernel's file operations by the function `answer`.
ANSWER = f"""{WIRE}
import time
inside = type(get_ipython()).__module__.rpartition('.')[0]
def end(serial, kind=0, number=0): return frame(b'=', struct.pack('<IBQ', serial, kind, number))
def entry(name, size=1): return frame(b'n', struct.pack('<Q', size) + name)
def answer(serial): pass
def serve(self, request):
    while True:
        answer(request.serial)
        time.sleep(60)
sys.modules[inside + '.files'].Files.serve = serve
x = 1
"""


# Calls `answer` when the host has sent a request and reads, before the kernel reads it.
WHEN_ASKED = """
import select
get_ipython().prepare = lambda: select.select([requests], [], []) and answer(0)
def answer(serial)"""


def say(data: str) -> str:
    """Code that answers each request with these bytes."""
    return f"{ANSWER}\ndef answer(serial): os.write(replies, {data})"


async def lost(session: Session, use: Awaitable[object]) -> str:
    """Why the kernel was lost; the session continues on a fresh one."""
    with pytest.raises(FilesLost) as raised:
        await use
    assert (await session.execute("'x' in globals()")).text == "False"
    assert await session.list_files() == ()
    return raised.value.reason


@pytest.mark.parametrize(
    "data",
    [
        "b'GET / HTTP/1.1' * 9",
        "frame(b'o', b'x')",
        "result(serial)",
        "frame(b'm', struct.pack('<BI', 0, 5))",
        "frame(b'r', b'')",
        "frame(b'=', b'short')",
        "end(serial + 1)",
        "end(serial, 200)",
        "end(serial, 0, 1)",
        "end(serial, 5, 0)",
        "end(serial, 5, 1 << 40)",
        "frame(b'd', b'12') + end(serial, 0, 1)",
        "entry(b'a') + end(serial, 0, 1)",
    ],
)
async def test_false_answers_to_a_read_end_the_kernel(box: Sandbox, data: str) -> None:
    async with box.session() as session:
        await session.execute(say(data))
        assert await lost(session, session.read_file("a")) == "garbage"


@pytest.mark.parametrize(
    "data",
    [
        "entry(b'a') * 2",
        "entry(b'../a')",
        "entry(b'.a')",
        "entry(b'')",
        "entry(b'a\\n')",
        "entry(b'\\xff')",
        "entry(b'a' * 4000)",
        "frame(b'n', b'short')",
        "entry(b'a') + end(serial, 0, 2)",
        "b''.join(entry(b'%d' % n) for n in range(200))",
        "frame(b'd', b'x') + end(serial, 0, 1)",
    ],
)
async def test_false_listings_end_the_kernel(box: Sandbox, data: str) -> None:
    async with box.session() as session:
        await session.execute(say(data))
        assert await lost(session, session.list_files()) == "garbage"


@pytest.mark.parametrize("data", ["frame(b'd', b'x')", "frame(b'd', b'')", "frame(b'd', b'x' * 4000)", "b'd'"])
async def test_an_endless_file_is_not_read(box: Sandbox, data: str) -> None:
    async with box.session() as session:
        await session.execute(f"{ANSWER}\ndata = {data}\ndef answer(serial):\n    while True: os.write(replies, data)")
        assert await lost(session, session.read_file("a")) in ("garbage", "flood")


async def test_a_kernel_that_does_not_answer(box: Sandbox) -> None:
    """Nor read the request."""
    stalled = f"{ANSWER}\nsys.modules[inside + '.server'].read_request = lambda descriptor: time.sleep(60)"
    async with box.session() as session, box.session() as sibling:
        await session.execute(ANSWER)
        assert await lost(session, session.read_file("a", timeout=0.3)) == "timeout"
        await session.execute(stalled)
        assert await lost(session, session.write_file("a", bytes(LIMITS.file_bytes), timeout=0.3)) == "timeout"
        assert (await sibling.execute("6 * 7")).text == "42"


async def test_a_kernel_that_dies(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute(f"{ANSWER}\ndef answer(serial): os.write(replies, b'd\\xff'); os._exit(1)")
        assert await lost(session, session.read_file("a")) == "died"
        await session.execute(f"{ANSWER}{WHEN_ASKED}: os._exit(0)")
        assert await lost(session, session.read_file("a")) == "died"


async def test_files_of_a_kernel_that_died_before_its_first_cell(box: Sandbox) -> None:
    """They are lost, which is not the same as missing."""
    async with box.session() as session:
        await session.write_file("a", b"1")
        assert isinstance(session, KernelSession)
        kernel = session._kernel
        assert kernel is not None and kernel._child is not None
        signal.pidfd_send_signal(kernel._child.pidfd, signal.SIGKILL)
        await eventually(lambda: kernel.dead)
        assert await lost(session, session.read_file("a")) == "died"


async def test_a_cancelled_file_operation(box: Sandbox) -> None:
    """The kernel is killed, and the session continues on a fresh one."""
    async with box.session() as session:
        await session.execute(ANSWER)
        reading = asyncio.create_task(session.read_file("a"))
        for _ in range(10):  # turns of the loop, until it waits for the kernel
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (await session.execute("'x' in globals()")).text == "False"


async def test_a_kernel_that_writes_between_cells(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute(f"{ANSWER}{WHEN_ASKED}: os.write(replies, b'???')")
        assert await lost(session, session.read_file("a")) == "garbage"


async def test_a_file_that_is_swapped_for_a_link(box: Sandbox) -> None:
    """A thread keeps replacing it by a link and a FIFO: neither is followed or waited for."""
    swap = """
import os, threading
open('secret', 'w').write('secret'); open('file', 'w').write('mine')
def swap():
    while True:
        for make in (lambda: os.symlink('secret', 'next'), lambda: os.mkfifo('next'), lambda: os.link('file', 'next')):
            try:
                make()
                os.rename('next', 'swapped')
            except OSError: pass
threading.Thread(target=swap, daemon=True).start()
"""
    async with box.session() as session:
        await session.execute(swap)
        seen = set()
        for _ in range(300):
            with contextlib.suppress(NotAFile, FileNotFound):
                seen.add(await session.read_file("swapped"))
        assert seen <= {b"mine"}
        assert (await session.execute("6 * 7")).text == "42"


async def test_a_growing_file_is_read_up_to_its_first_size(box: Sandbox) -> None:
    grow = """
import threading, time
file = open('log', 'ab', buffering=0)
file.write(b'x' * 100_000)
def grow():
    for _ in range(100_000): file.write(b'y')
threading.Thread(target=grow, daemon=True).start()
"""
    async with box.session() as session:
        await session.execute(grow)
        data = await session.read_file("log")
        assert data.startswith(b"x" * 100_000) and len(data) <= 200_000


async def test_a_huge_sparse_file(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute(f"open('sparse', 'wb').truncate({LIMITS.disk_bytes});")
        with pytest.raises(FileTooLarge) as raised:
            await session.read_file("sparse")
        assert (raised.value.size, raised.value.limit) == (LIMITS.disk_bytes, LIMITS.file_bytes)
        assert await session.list_files() == (("sparse", LIMITS.disk_bytes),)


async def test_more_files_than_can_be_listed(box: Sandbox) -> None:
    many = (
        "n = 0\ntry:\n    while n < 20_000:\n        open(f'{n}', 'w').close(); n += 1\nexcept OSError: pass\nn > 1_000"
    )
    async with box.session() as session:
        await session.write_file("0", b"")
        assert (await session.execute(many)).text == "True"
        for use in (session.list_files(), session.write_file("another", b"")):
            with pytest.raises(TooManyFiles):
                await use
        assert await session.read_file("0") == b""


async def test_deep_and_many_folders(box: Sandbox) -> None:
    """Folders that are too deep are left out; too many are an error."""
    deep = "import os\nfor n in range(300):\n    os.mkdir('d'); os.chdir('d'); open('f', 'w').close()"
    wide = f"import os\nos.chdir(os.path.expanduser('~'))\nfor n in range({9 * LIMITS.files}): os.mkdir(str(n))"
    async with box.session() as session:
        await session.execute(deep)
        assert [file.name for file in await session.list_files()] == ["d/" * depth + "f" for depth in range(7, 0, -1)]
        assert (await session.execute(wide)).outcome is Outcome.OK
        with pytest.raises(TooManyFiles):
            await session.list_files()


async def test_invalid_names_are_not_listed(box: Sandbox) -> None:
    names = "b'\\xff', b'\\x1b[A', b'.hidden', '\u202e'.encode(), b'x\\ny', b'a\\\\b'"
    odd = f"for name in ({names}): open(name, 'w').close()"
    async with box.session() as session:
        await session.execute(odd)
        assert await session.list_files() == ()


async def test_exhausted_resources(box: Sandbox) -> None:
    """Disk, descriptors, umask, file size: an old file is kept, and nothing else is left."""
    fill = (
        "f = open('fill', 'wb', buffering=0)\ntry:\n    while True: f.write(bytes(1 << 16))\nexcept OSError: f.close()"
    )
    hold = "held = []\ntry:\n    while True: held.append(open('/dev/null'))\nexcept OSError: pass"
    async with box.session() as session:
        await session.write_file("a/b/c/d/e/f/g/h", b"old")
        assert (await session.execute(hold)).outcome is Outcome.OK
        assert await session.read_file("a/b/c/d/e/f/g/h") == b"old"
        await session.execute("held.clear()")
        await session.execute("import os\nos.umask(0o777)")
        await session.write_file("u/v", b"open")
        assert (await session.execute("open('u/v').read()")).text == "'open'"
        if box.tier == 1:  # in tier 3 what a session may have on the disk is not bounded in sum
            await session.execute(fill)
            with pytest.raises(FileRefused) as raised:
                await session.write_file("a/b/c/d/e/f/g/h", bytes(LIMITS.file_bytes))
            assert raised.value.errno == errno.ENOSPC
        await session.execute("import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))")
        with pytest.raises(FileRefused) as raised:
            await session.write_file("a/b/c/d/e/f/g/h", b"new")
        assert raised.value.errno == errno.EFBIG
        assert await session.read_file("a/b/c/d/e/f/g/h") == b"old"
        left = "import os\n[name for _, _, names in os.walk('a') for name in names]"
        assert (await session.execute(left)).text == "['h']"


async def test_replaced_builtins_and_functions(box: Sandbox) -> None:
    """The kernel has its own."""
    replace = """
import builtins, errno, io, os, pathlib, stat, struct
x = 5
def refuse(*args, **kwargs): raise RuntimeError('replaced')
for module in (os, io, stat, struct, pathlib):
    for name in dir(module):
        if callable(getattr(module, name)) and not name.startswith('_') and not isinstance(getattr(module, name), type):
            setattr(module, name, refuse)
for name in ('open', 'len', 'min', 'sum', 'bytes', 'memoryview', 'OSError', 'FileNotFoundError'):
    setattr(builtins, name, refuse)
"""
    async with box.session() as session:
        await session.write_file("a", b"1")
        assert (await session.execute(replace)).outcome is Outcome.OK
        await session.write_file("folder/b", b"2")
        assert await session.list_files() == (("a", 1), ("folder/b", 1))
        assert (await session.read_file("a"), await session.read_file("folder/b")) == (b"1", b"2")
        await session.remove_file("a")
        with pytest.raises(FileNotFound):
            await session.read_file("a")
        assert (await session.execute("assert x == 5")).outcome is Outcome.OK


async def test_a_folder_without_permissions(box: Sandbox) -> None:
    async with box.session() as session:
        await session.write_file("inner/a", b"1")
        await session.execute("import os\nos.chmod('inner', 0)\nx = 5")
        try:
            assert await session.read_file("inner/a") == b"1"  # as an ordinary user in tier 3, modes cannot be changed
        except FileError as error:
            assert isinstance(error, FileRefused) and error.errno == errno.EACCES
            assert await session.list_files() == ()
        assert (await session.execute("x")).text == "5"
