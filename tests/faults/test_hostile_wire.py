"""Code that takes over the kernel's wire and sends arbitrary data."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sandbox import Outcome, Result, Sandbox
from sandbox.session import result_of
from start_agent.grading.code import LIMITS as GRADING
from tests.support.small import LIMITS

Attack = Callable[..., Awaitable[Result]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = (1, 2, 3)

# The wire's two ends, and its module.
WIRE = """
import fcntl, os, stat, struct, sys
pipes = []
for number in range(3, 256):
    try:
        if stat.S_ISFIFO(os.fstat(number).st_mode): pipes.append(number)
    except OSError: pass
requests, replies = sorted(pipes, key=lambda number: fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE)
def frame(kind, data): return kind + struct.pack('<H', len(data)) + data
def result(serial, ending=0, flags=0): return frame(b'.', struct.pack('<IBBiQ', serial, ending, flags, 0, 0))
"""


@pytest.mark.parametrize(
    "data",
    [
        "b'GET / HTTP/1.1' * 9",
        "frame(b'?', b'')",
        "b'o\\xff\\xff' + bytes(1 << 16)",
        "frame(b'o', b'\\xff')",
        "frame(b'x', b'\\xed\\xa0\\x80')",
        "frame(b'g', b'short')",
        "frame(b'g', bytes(16)) * 2",
        "frame(b'.', b'short')",
        "result(1, 200)",
        "result(99)",
        "frame(b'r', b'')",
        "frame(b'f', b'no')",
        "bytes(100)",
    ],
    ids=[
        *(
            "no-frame",
            "a-strange-kind",
            "too-long",
            "no-text",
            "a-surrogate",
            "a-short-gap",
            "two-gaps",
            "a-short-result",
            "a-strange-ending",
        ),
        *("a-result-of-another-cell", "ready-again", "failed", "zeros"),
    ],
)
async def test_nonsense_ends_the_kernel(attack: Attack, data: str) -> None:
    result = await attack(f"{WIRE}\nos.write(replies, {data})\nwhile True: pass")
    assert (result.outcome, result.state_lost) == (Outcome.DIED, True)


@pytest.mark.parametrize(
    "data",
    ["frame(b'o', b'x')", "frame(b'v', b'')", "frame(b'o', b'\\xc3\\xa9' * 2000)", "frame(b'l', b'\\x1b[A' * 1000)"],
    ids=["small", "empty", "large", "escapes"],
)
async def test_frames_without_end(attack: Attack, data: str) -> None:
    result = await attack(f"{WIRE}\ndata = {data}\nwhile True: os.write(replies, data)")
    assert (result.outcome, result.state_lost) == (Outcome.OUTPUT, True)
    assert len(result.text) <= LIMITS.output_chars + 200


async def test_a_forged_result_is_the_cells_own(attack: Attack) -> None:
    """Code may say what its cell came to: they share a process. Of what follows nothing is read."""
    result = await attack(
        f"{WIRE}\nos.write(replies, frame(b'v', b'7') + result(1, 0, 1) + bytes(9))\nwhile True: pass"
    )
    assert (result.outcome, result.text) == (Outcome.OK, "7")


async def test_half_a_frame_and_death(attack: Attack) -> None:
    result = await attack(f"{WIRE}\nos.write(replies, b'o\\xff')\nos._exit(1)")
    assert (result.outcome, result.text.splitlines()[0][:12]) == (Outcome.DIED, "ProcessDiedE")


async def test_the_wire_taken_away(attack: Attack) -> None:
    for code in ("os.close(replies)", "os.close(requests); os.close(replies)\nwhile True: pass"):
        assert (await attack(f"{WIRE}\n{code}", 0.5)).outcome in (Outcome.DIED, Outcome.TIMEOUT)


async def test_requests_of_its_own(box: Sandbox) -> None:
    """Code that writes to its own kernel, where it can open the other ends, harms that alone."""
    code = f"{WIRE}\nother = os.open(f'/proc/self/fd/{{requests}}', os.O_WRONLY)\nos.write(other, bytes(60_000))"
    async with box.session() as session:
        await session.execute(code, timeout=0.5)
        assert (await session.execute("6 * 7", timeout=0.5)).outcome in set(Outcome)
    async with box.session() as session:
        assert (await session.execute("6 * 7")).text == "42"


async def test_descriptors_cannot_be_sent(attack: Attack) -> None:
    """A host that receives a descriptor closes it, which may take any number of seconds."""
    code = f"""{WIRE}
import socket
sent = 0
for number in pipes:
    try:
        socket.send_fds(socket.socket(fileno=os.dup(number)), [b'x'], [0])
        sent += 1
    except OSError: pass
sent
"""
    assert (await attack(code)).text == "0"


async def test_a_kernel_that_talks_on_between_cells(box: Sandbox) -> None:
    """It waits until the next cell, and costs the host nothing meanwhile."""
    code = f"""{WIRE}
import threading
def talk():
    while True: os.write(replies, frame(b'o', b'x' * 100))
threading.Thread(target=talk, daemon=True).start()
"""
    async with box.session() as session, box.session() as sibling:
        await session.execute(code)
        for _ in range(20):
            assert (await sibling.execute("6 * 7")).text == "42"
        result = await session.execute("6 * 7", timeout=3)
        assert result.outcome in (Outcome.OK, Outcome.TIMEOUT, Outcome.OUTPUT)


@pytest.mark.parametrize("size", [4096, 1 << 20])
async def test_the_size_of_a_pipe_is_not_the_kernels_to_change(attack: Attack, size: int) -> None:
    result = await attack(f"{WIRE}\nfcntl.fcntl(replies, 1031, {size})")
    assert result.outcome is Outcome.ERROR and "PermissionError" in result.text


@pytest.mark.parametrize("text", ["\\x1b[A", "\\r", "\\b", "\\x1b]0;", "x\\n\\x1b[31m", "é"])
async def test_the_longest_output_of_a_grader(text: str) -> None:
    """What may be printed is read whole, whatever it is made of."""
    code = f"""{WIRE}
data = '{text}'.encode() * 100_000
data = data[:{2 * GRADING.output_chars}]
for start in range(0, len(data), 4000):
    os.write(replies, frame(b'o', data[start:start + 4000]))
os.write(replies, result(1))
while True: pass
"""
    async with Sandbox(GRADING, size=1, prestart=0) as box, box.session() as session:
        result = await session.execute(code, timeout=5)
        assert result.outcome is Outcome.OK
        assert len(result.text) <= GRADING.output_chars


@pytest.mark.parametrize("kind", ["o", "e", "v"])
async def test_a_long_reply_is_read_beside_the_event_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make a result of 16 MB took up to 80 ms, in which no other session was served."""
    threads = []

    def seen(*arguments: Any, **options: Any) -> Result:
        threads.append(threading.get_ident())
        return result_of(*arguments, **options)

    monkeypatch.setattr("sandbox.session.result_of", seen)
    code = f"""{WIRE}
for _ in range(1_000): os.write(replies, frame(b'{kind}', '\U0001f600'.encode() * 1_000))
os.write(replies, result(1, 0, 1))
while True: pass
"""
    async with Sandbox(GRADING, size=1, prestart=0) as box, box.session() as session:
        threads.clear()
        assert (await session.execute(code, timeout=5)).outcome is Outcome.OK
        assert len(threads) == 1 and threads != [threading.get_ident()]
