"""Files and processes of the user that runs the sandbox are not changed."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from pathlib import Path

import pytest

from sandbox import isolation
from sandbox.inside import landlock
from tests.support import layouts
from tests.support.calling import CALL, Attack, value_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = (1, 2, 3)


@pytest.mark.parametrize(
    "code",
    [
        "os.chmod(PATH, 0o604)",
        "os.chmod(os.path.dirname(PATH), 0o705)",
        "os.chmod(PATH, 0o604, follow_symlinks=False)",
        "call('fchmodat2', -100, PATH.encode(), 0o604, 0)",
        "os.utime(PATH, (1, 1))",
        "os.utime(PATH)",
        "os.chown(PATH, os.getuid(), os.getgid())",
        "os.lchown(PATH, os.getuid(), os.getgid())",
        "os.setxattr(PATH, 'user.x', b'x')",
        "os.truncate(PATH, 0)",
        "os.rename(PATH, PATH + '-')",
        "os.link(PATH, 'mine')",
        "call('fchmodat', -100, PATH.encode(), 0)",
    ],
)
async def test_files_of_the_user_stay_as_they_are(attack: Attack, tmp_path: Path, code: str) -> None:
    path = tmp_path / "diary"
    path.write_text("dear diary")
    os.utime(path, (1_000_000_000, 1_000_000_000))

    def state() -> list[tuple[int, ...]]:
        found = [os.stat(place) for place in (path, tmp_path)]  # noqa: PTH116 - all of it
        return [(s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_nlink, s.st_mtime_ns, s.st_ctime_ns) for s in found]

    before = state()
    await attack(f"{CALL}PATH = {str(path)!r}\n{code}")
    assert state() == before and path.read_text() == "dear diary"
    assert os.listxattr(path) == []


@pytest.mark.parametrize("tier", TIERS)
async def test_files_of_the_user_that_it_may_read(tier: int, tmp_path: Path) -> None:
    """Those of a virtual environment of the user's own: all later sessions would meet what was done to them."""
    if tier == 3 and (landlock.abi() < landlock.LEAST_ABI or isolation.hidden_from_others() is not None):
        pytest.skip("no tier 3 already")
    python = layouts.virtual_environment(tmp_path / "venv")
    path = tmp_path / "venv" / "pyvenv.cfg"
    state = path.stat()
    cells = [
        f"handle = os.open({str(path)!r}, os.O_RDONLY)",
        "tried(os.fchmod, handle, 0o600)",
        "tried(os.utime, handle, (1, 1))",
        "tried(os.fchown, handle, os.getuid(), os.getgid())",
        "tried(fcntl.fcntl, handle, 1024, 0)",
        "tried(fcntl.ioctl, handle, 0x40086602, struct.pack('l', 0x80))",  # FS_IOC_SETFLAGS: no access times
        "tried(fcntl.ioctl, handle, 0x40806685, bytes(128))",  # FS_IOC_ENABLE_VERITY: never to be written again
        "tried(os.setxattr, handle, 'user.x', b'x')",
    ]
    name, _, _, *rest = layouts.opened(python, tier, CALL, *cells)
    assert name == isolation.NAMES[tier]  # type: ignore[index]  # of the numbers that are tiers
    assert rest[3:] == ["'EPERM'", "'ENOTSUP'", "'ENOTSUP'", "'ENOTSUP'"]
    now = path.stat()
    assert (now.st_mode, now.st_uid, now.st_mtime_ns) == (state.st_mode, state.st_uid, state.st_mtime_ns)


async def test_processes_of_the_user_stay_as_they_are(attack: Attack) -> None:
    def state() -> tuple[object, ...]:
        return (
            resource.getrlimit(resource.RLIMIT_CPU),
            resource.getrlimit(resource.RLIMIT_NOFILE),
            os.getpriority(os.PRIO_PROCESS, 0),
            os.sched_getscheduler(0),
            os.sched_getaffinity(0),
        )

    before = state()
    code = f"""
done = []
for pid in ({os.getpid()}, {os.getppid()}):
    for change in (
        lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1 << 20, 1 << 20)),
        lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE),
        lambda: os.setpriority(os.PRIO_PROCESS, pid, 5),
        lambda: os.setpriority(os.PRIO_PGRP, pid, 5),
        lambda: os.setpriority(os.PRIO_USER, 0, 5),
        lambda: os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0)),
        lambda: os.sched_setaffinity(pid, [0]),
        lambda: os.pidfd_open(pid),
        lambda: os.kill(pid, 0),
    ):
        done.append(tried(change))
    done.append(call("ioprio_set", 1, pid, 3 << 13))
    done.append(call("pidfd_send_signal", pid, 0, 0, 0) if "pidfd_send_signal" in NUMBER else "EPERM")
    done.append(call("process_vm_readv", pid, bytes(16), 1, bytes(16), 1, 0))
    done.append(call("migrate_pages", pid, 0, 0, 0))
set(done) <= {{"EPERM", "ESRCH", "EBADF"}} or done
"""
    assert await value_of(attack, code) == "True"
    assert state() == before


async def test_a_socket_of_a_pair_goes_nowhere_else(attack: Attack, tmp_path: Path) -> None:
    """Sockets with names in the file system are in no network: Landlock does not know them."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        path.chmod(0o777)
        server.setblocking(False)
        code = f"""
def send(how, kind):
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    one.setblocking(False)
    how(one)
hows = (lambda s: s.sendto(b"x", {str(path)!r}), lambda s: s.connect({str(path)!r}), lambda s: s.bind("\\0mine"))
for how in hows:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
        tried(send, how, kind)
"""
        assert await value_of(attack, code) == ""
        with pytest.raises(BlockingIOError):
            server.recv(1)


@pytest.mark.parametrize("action", [0, 1, 2])
async def test_shared_memory_of_the_user_stays_as_it_is(attack: Attack, action: int) -> None:
    """System V's memory has no name in the file system, and a number that can be guessed."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.shmget(0, 4096, 0o1666)  # IPC_PRIVATE, IPC_CREAT
    assert number >= 0
    try:
        attempts = (
            f"call('shmat', {number}, 0, 0)",
            f"call('shmctl', {number}, 0, 0)",
            f"libc.shmat({number}, None, 0)",
        )
        assert await value_of(attack, attempts[action]) in ("EPERM", "-1")
        assert libc.shmctl(number, 0, None) == 0
    finally:
        libc.shmctl(number, 0, None)  # IPC_RMID
