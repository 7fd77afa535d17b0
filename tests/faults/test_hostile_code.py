"""Hostile code. Each attack runs beside another session, which must not notice (see conftest)."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandbox import Outcome, Result, Sandbox, isolation
from sandbox.session import KernelSession
from tests.support.waiting import eventually

Attack = Callable[..., Awaitable[Result]]

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_endless_loop(attack: Attack) -> None:
    result = await attack("while True: pass", 0.3)
    assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, False)


async def test_long_sleep(attack: Attack) -> None:
    assert (await attack("import time; time.sleep(100)", 0.3)).outcome is Outcome.TIMEOUT


async def test_a_computation_that_cannot_be_interrupted(attack: Attack) -> None:
    assert (await attack("x = 10 ** 10 ** 9", 0.3)).outcome is Outcome.TIMEOUT
    result = await attack("x = sum(range(10 ** 13))", 0.3)
    assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, True)


async def test_interrupts_swallowed(attack: Attack) -> None:
    code = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\nwhile True: pass"
    result = await attack(code, 0.3)
    assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, True)


async def test_immediate_exit(attack: Attack) -> None:
    result = await attack("print('last words')\nimport os\nos._exit(3)")
    assert (result.outcome, result.state_lost) == (Outcome.DIED, True)
    assert "exit status 3" in result.text and result.text.endswith("All variables are lost.")


async def test_segmentation_fault(attack: Attack) -> None:
    result = await attack("import ctypes; ctypes.string_at(0)")
    assert result.outcome is Outcome.DIED and "SIGSEGV" in result.text


async def test_killing_all_that_can_be_killed(attack: Attack) -> None:
    code = (
        "import os\nfor pid in (-1, 1, os.getppid(), os.getpid()):\n    try: os.kill(pid, 9)\n    except OSError: pass"
    )
    # The kernel is its namespace's first process, which Linux does not let others inside kill; there are no others.
    assert (await attack(code)).outcome is Outcome.OK


@pytest.mark.parametrize(
    "code",
    [
        "x = 'a' * (1 << 40)",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        "def f():\n    x = [0]\n    while True: x += x\nf()",
    ],
)
async def test_memory_bomb(attack: Attack, code: str) -> None:
    result = await attack(code)
    assert result.outcome is Outcome.MEMORY
    assert "MemoryError" in result.text


async def test_memory_that_is_freed_again_costs_no_state(box: Sandbox) -> None:
    async with box.session() as session:
        result = await session.execute("x = 1\ny = bytearray(1 << 40)")
        assert (result.outcome, result.state_lost) == (Outcome.MEMORY, False)
        assert (await session.execute("x")).text == "1"


async def test_output_flood(attack: Attack) -> None:
    result = await attack("while True: print('x' * 1000)")
    assert result.outcome is Outcome.OUTPUT and len(result.text) < 9_000


async def test_output_flood_past_python(attack: Attack) -> None:
    result = await attack("import os\nwhile True: os.write(1, b'x' * 65536)")
    assert result.outcome is Outcome.ERROR and "File too large" in result.text and len(result.text) < 9_000


async def test_replaced_stdout_is_put_back(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute("import sys\nsys.stdout = sys.stderr = sys.stdin = None")
        assert (await session.execute("print(1)")).text == "1"


async def test_closing_every_descriptor(attack: Attack) -> None:
    result = await attack("import os; os.closerange(0, 256)\nwhile True: pass", 0.5)
    assert result.outcome in (Outcome.DIED, Outcome.TIMEOUT) and result.state_lost


async def test_hostile_repr_and_exception(attack: Attack) -> None:
    code = "class E(Exception):\n    def __str__(self): raise SystemError\n    __repr__ = __str__\nraise E"
    assert (await attack(code)).outcome is Outcome.ERROR
    code = "class R:\n    def __repr__(self): return repr(self)\nR()"
    assert (await attack(code)).outcome is Outcome.ERROR


async def test_fork_bomb(attack: Attack) -> None:
    code = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError: pass"
    assert (await attack(code, 1.0)).outcome in (Outcome.TIMEOUT, Outcome.DIED)


async def test_processes_are_counted(attack: Attack) -> None:
    code = "import os, time\nfor n in range(100):\n    if os.fork() == 0: time.sleep(100)"
    result = await attack(code)
    assert result.outcome is Outcome.ERROR and "BlockingIOError" in result.text


async def test_threads_are_counted(attack: Attack) -> None:
    code = "import threading, time\nfor n in range(200): threading.Thread(target=time.sleep, args=(9,)).start()"
    result = await attack(code)
    assert result.outcome is Outcome.ERROR and "can't start new thread" in result.text


async def test_daemon_left_behind(attack: Attack) -> None:
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)"
    assert (await attack(code)).outcome is Outcome.OK


@pytest.mark.parametrize("folder", ["/sandbox", "/tmp", "/dev/shm"])
async def test_disk_is_bounded(attack: Attack, folder: str) -> None:
    code = f"for n in range(99):\n    with open('{folder}/' + str(n), 'wb') as f: f.write(bytes(8 << 20))"
    result = await attack(code)
    assert result.outcome is Outcome.ERROR and "No space left" in result.text


@pytest.mark.parametrize("path", ["/", "/usr", "/etc", "/run", "/dev", "/proc", isolation.INSIDE])
async def test_the_system_is_read_only(attack: Attack, path: str) -> None:
    result = await attack(f"open('{path}/probe', 'w')")
    assert result.outcome is Outcome.ERROR and "Error" in result.text


async def test_no_file_of_the_host(attack: Attack) -> None:
    with tempfile.NamedTemporaryFile() as secret:
        result = await attack(f"open({secret.name!r}).read()")
    assert "FileNotFoundError" in result.text
    home, here = Path.home(), Path(__file__)
    result = await attack(f"import os\nos.path.exists({str(here)!r}), set(os.listdir({str(home)!r}))")
    # Of the home there may be the way to the interpreter, and nothing else.
    assert "FileNotFoundError" in result.text or result.text in ("(False, {'.pyenv'})", "(False, {'.local'})")
    for path in ("/etc/shadow", "/etc/hostname", "/etc/machine-id", "/sys", "/var", "/proc/1/root/etc"):
        assert (await attack(f"open({path!r}).read()")).outcome is Outcome.ERROR


async def test_no_secret_of_the_environment(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_TEST_SECRET", "hunter2")
    code = """
import os, glob
seen = repr(os.environ)
for path in glob.glob('/proc/*/environ'):
    try: seen += open(path).read()
    except OSError: pass
'SECRET' in seen, 'hunter2' in seen
"""
    assert (await attack(code)).text == "(False, False)"


async def test_no_network(attack: Attack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = await attack(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)")
        assert "ConnectionRefusedError" in result.text
    for address in ("169.254.169.254", "1.1.1.1"):
        result = await attack(f"import socket\nsocket.create_connection(('{address}', 80), 1)")
        assert "Network is unreachable" in result.text


async def test_no_abstract_socket_of_the_host(attack: Attack) -> None:
    name = f"\0sandbox-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        result = await attack(f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})")
    assert "ConnectionRefusedError" in result.text


async def test_no_rights(attack: Attack) -> None:
    code = """
import os
status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines())
print(os.getuid() == 0, status['CapEff'], status['CapPrm'], status['CapAmb'], status['NoNewPrivs'])
try: os.setuid(0)
except OSError: print('refused')
"""
    zeros = "0" * 16
    assert (await attack(code)).text == f"False {zeros} {zeros} {zeros} 1\nrefused"


async def test_siblings_and_the_host_are_out_of_sight(attack: Attack) -> None:
    code = "import os\n[int(p) for p in os.listdir('/proc') if p.isdigit()], os.getpid(), os.getppid()"
    assert (await attack(code)).text == "([1], 1, 0)"


async def test_death_of_an_idle_kernel_is_reported(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute("1")
        assert isinstance(session, KernelSession)
        kernel = session._kernel
        assert kernel is not None and kernel._child is not None
        signal.pidfd_send_signal(kernel._child.pidfd, signal.SIGKILL)
        await eventually(lambda: kernel.dead)
        result = await session.execute("1")
        assert (result.outcome, result.state_lost) == (Outcome.DIED, True)
        assert (await session.execute("1")).text == "1"
