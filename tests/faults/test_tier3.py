"""Tier 3, without a separate root or process namespace: what it stops and what it does not."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandbox import Outcome, Result, Sandbox
from sandbox.testing import PythonContract

Attack = Callable[..., Awaitable[Result]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = (3,)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("while True: pass", Outcome.TIMEOUT),
        ("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", Outcome.TIMEOUT),
        ("import os; os._exit(3)", Outcome.DIED),
        ("import ctypes; ctypes.string_at(0)", Outcome.DIED),
        ("import os; os.kill(os.getpid(), 9)", Outcome.DIED),
        ("import os; os.closerange(0, 256)", Outcome.DIED),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", Outcome.MEMORY),
        ("while True: print('x' * 1000)", Outcome.OUTPUT),
        (
            "import threading, time\nfor n in range(200): threading.Thread(target=time.sleep, args=(9,)).start()",
            "error",
        ),
    ],
)
async def test_outcomes(attack: Attack, code: str, outcome: Outcome) -> None:
    assert (await attack(code, 0.5 if outcome == Outcome.TIMEOUT else 5)).outcome == outcome


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os; os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.posix_spawn('/bin/true', ['true'], {})", "PermissionError"),
        ("import socket; socket.socket(socket.AF_UNIX)", "Address family not supported"),
        ("import socket; socket.socket()", "Address family not supported"),
        ("open('/etc/passwd')", "PermissionError"),
        ("open('/proc/self/environ')", "PermissionError"),
        ("open('/proc/PID/environ')", "PermissionError"),
        ("import os; os.kill(PID, 9)", "PermissionError"),
        (f"import os; os.listdir({str(Path(__file__).parent)!r})", "PermissionError"),
        ("open('/tmp/refused-PID', 'w')", "PermissionError"),
        ("open('/dev/shm/refused-PID', 'w')", "PermissionError"),
        ("open('/usr/refused-PID', 'w')", "Error"),
        ("import os; os.memfd_create('x')", "PermissionError"),
        ("open('big', 'wb').truncate(1 << 30)", "File too large"),
    ],
)
async def test_refusals(attack: Attack, code: str, error: str) -> None:
    result = await attack(code.replace("PID", str(os.getpid())))
    assert result.outcome is Outcome.ERROR and error in result.text


async def test_siblings(box: Sandbox) -> None:
    assert box.isolation == "Landlock and seccomp (tier 3)"
    async with box.session() as one, box.session() as other:
        result = await one.execute("import os\nopen('note', 'w').write('x')\nprint(os.getpid(), os.getcwd())")
        pid, folder = result.text.split()[:2]
        assert "PermissionError" in (await other.execute(f"open('{folder}/note')")).text
        assert "PermissionError" in (await other.execute(f"import os\nos.listdir('{folder}/..')")).text
        killing = await other.execute(f"import os\nos.kill({pid}, 9)")
        assert "PermissionError" in killing.text
        assert (await one.execute("open('note').read()")).text == "'x'"


async def test_ordinary_work(box: Sandbox) -> None:
    async with box.session() as session:
        cells = {
            "import numpy as np\nnp.arange(4).sum().item()": "6",
            "import sympy\nsympy.factorint(360)": "{2: 3, 3: 2, 5: 1}",
            "import tempfile\nf = tempfile.TemporaryFile()\nf.write(b'abc')": "3",
            "import asyncio\nawait asyncio.sleep(0)\n7": "7",
            "int(input()) + 1": "42",
        }
        for code, text in cells.items():
            assert (await session.execute(code, stdin="41")).text == text


async def test_a_program_uses_the_session_up(box: Sandbox) -> None:
    contract = PythonContract()
    await contract.test_a_fork_leaves_the_session_as_it_was(box)
    await contract.test_a_fork_ends_as_a_program_does(box)
