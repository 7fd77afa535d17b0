"""Resources of the machine that Linux would let code use: unaccounted memory, shared quotas."""

from __future__ import annotations

import platform
import socket

import pytest

from sandbox import Sandbox
from tests.support.calling import Attack, value_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = (1, 2, 3)


@pytest.mark.parametrize(
    "code",
    [
        "tried(os.setxattr, 'd', 'system.posix_acl_access', acl)",
        "tried(os.setxattr, 'd', 'system.posix_acl_default', acl)",
        "tried(os.setxattr, os.open('f', 0), 'system.posix_acl_access', acl)",
        "tried(lambda: os.setxattr('f', 'user.x', bytes(60000), follow_symlinks=False))",
        "call('setxattrat', -100, b'd', 0, b'user.x', struct.pack('QII', ctypes.addressof(program), 8, 0), 16)",
        "tried(os.removexattr, 'd', 'system.posix_acl_access')",
        "tried(fcntl.ioctl, os.open('f', 0), 0x80086601, bytes(8))",
    ],
)
async def test_attributes_that_are_memory_which_nothing_counts(attack: Attack, code: str) -> None:
    assert await value_of(attack, code) == "ENOTSUP"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("call('set_mempolicy', 0, 0, 0)", "EPERM"),
        ("call('mbind', 0, 0, 0, 0, 0, 0)", "EPERM"),
        ("call('set_mempolicy_home_node', 0, 0, 0, 0)", "EPERM"),
        ("call('landlock_create_ruleset', struct.pack('QQ', 1, 3), 16, 0)", "ENOSYS"),
        ("tried(pair.setsockopt, socket.SOL_SOCKET, 26, described.raw)", "ENOPROTOOPT"),  # SO_ATTACH_FILTER
        ("tried(pair.setsockopt, socket.SOL_SOCKET, 51, described.raw)", "ENOPROTOOPT"),  # SO_ATTACH_REUSEPORT_CBPF
        ("tried(pair.setsockopt, socket.SOL_SOCKET, 50, 0)", "ENOPROTOOPT"),  # SO_ATTACH_BPF
        ("tried(pair.setsockopt, socket.SOL_SOCKET, 52, 0)", "ENOPROTOOPT"),  # SO_ATTACH_REUSEPORT_EBPF
        ("tried(pair.setsockopt, socket.SOL_SOCKET, 44, 1)", "ENOPROTOOPT"),  # SO_LOCK_FILTER
        ("tried(pair.setsockopt, socket.SOL_SOCKET, 29, 1)", "ENOPROTOOPT"),  # SO_TIMESTAMP
        ("tried(pair.setsockopt, socket.SOL_SOCKET, 32, 1 << 30)", "ENOPROTOOPT"),  # SO_SNDBUFFORCE
        ("tried(pair.setsockopt, 41, 32, bytes(32))", "ENOPROTOOPT"),  # IPV6_FLOWLABEL_MGR
        ("tried(pair.setsockopt, 41, 20, bytes(20))", "ENOPROTOOPT"),  # IPV6_ADD_MEMBERSHIP
        ("tried(pair.setsockopt, 0, 35, bytes(8))", "ENOPROTOOPT"),  # IP_ADD_MEMBERSHIP
        ("prctl(22, 2, ctypes.addressof(described))", "EINVAL"),  # PR_SET_SECCOMP
        ("call('seccomp', 1, 0, described)", "EPERM"),
        ("call('io_setup', 1, bytes(8))", "ENOSYS"),
        ("call('inotify_init1', 0)", "EPERM"),
        ("libc.inotify_init() < 0", "True"),
        ("call('fanotify_init', 0, 0)", "EPERM"),
        ("tried(fcntl.fcntl, os.open('.', 0), 1026, 1)", "EPERM"),  # F_NOTIFY
        ("tried(fcntl.fcntl, os.open('f', 0), 1024, 0)", "EPERM"),  # F_SETLEASE, F_RDLCK
        ("tried(fcntl.fcntl, os.open('/usr/bin/env', 0), 1024, 0)", "EPERM"),
        ("tried(fcntl.fcntl, os.pipe()[1], 1031, 1 << 20)", "EPERM"),  # F_SETPIPE_SZ
        ("before = pair.getsockopt(1, 7); pair.setsockopt(1, 7, 1 << 30); pair.getsockopt(1, 7) == before", "True"),
    ],
)
async def test_memory_and_quotas_of_the_machine(attack: Attack, code: str, error: str) -> None:
    assert await value_of(attack, code) == error


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("mapped(0x122)", "ENOMEM"),  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN
        ("mapped(0x20122)", "ENOMEM"),  # and MAP_STACK
        ("mapped(0x40022)", "ENOMEM"),  # MAP_HUGETLB
        ("mapped(0x21)", "ENOMEM"),  # MAP_SHARED | MAP_ANONYMOUS
        ("tried(lambda: mmap.mmap(os.open('/dev/zero', os.O_RDWR), 1 << 20)) in ('ENODEV', 'EACCES')", "True"),
        ("tried(os.open, '/proc/self/mem', os.O_RDWR) in ('EROFS', 'EACCES')", "True"),
        ("tried(os.open, '/proc/thread-self/mem', os.O_WRONLY) in ('EROFS', 'EACCES')", "True"),
        ("tried(os.open, f'/proc/{os.getpid()}/oom_score_adj', os.O_WRONLY) in ('EROFS', 'EACCES', 'ENOENT')", "True"),
        ("prctl(4, 0)", "EPERM"),  # PR_SET_DUMPABLE
        ("prctl(4, 2)", "EPERM"),
        ("prctl(35, 9, 0)", "EINVAL"),  # PR_SET_MM
        ("prctl(62, 1, 0, 0, 0)", "EINVAL"),  # PR_SCHED_CORE
        ("open('/dev/zero', 'rb').read(3) == bytes(3)", "True"),
        ("prctl(15, ctypes.addressof(ctypes.create_string_buffer(b'name')))", "0"),
    ],
)
async def test_memory_that_counts_as_none(attack: Attack, code: str, error: str) -> None:
    assert await value_of(attack, code) == error


async def test_signals_and_limits_are_bounded(attack: Attack) -> None:
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, (40, 41))
sent = sum(libc.sigqueue(os.getpid(), 40 + n % 2, None) == 0 for n in range(2000))
hard = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in ("CORE", "RTPRIO", "NICE", "STACK")]
sent, hard, tried(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)), tried(os.nice, -1)
"""
    assert await value_of(attack, code) == f"(256, [1, 0, 0, {512 << 20}], 'EPERM', 'EPERM')"


async def test_terminals_are_bounded(attack: Attack, box: Sandbox) -> None:
    code = "held = []\nwhile isinstance(one := tried(os.openpty), tuple): held.append(one)\nlen(held), one"
    assert await value_of(attack, code) == ("(0, 'EACCES')" if box.tier == 3 else "(16, 'ENOSPC')")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(
    ("kind", "protocol"),
    [(1, 262), (2, 136), (1, 132), (5, 0), (6, 0), (5, 132), (6, 33), (3, 1), (2, 1), (2, 58), (4, 6), (1, 256)],
)
async def test_protocols_that_are_seldom_used(attack: Attack, family: int, kind: int, protocol: int) -> None:
    code = f"tried(socket.socket, {int(family)}, {kind} | socket.SOCK_NONBLOCK, {protocol})"
    assert await value_of(attack, code) in ("ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "EAFNOSUPPORT")


async def test_buffers_of_connections_are_small(attack: Attack, box: Sandbox) -> None:
    """60 connections held 484 MB, in the machine's memory for TCP."""
    if box.tier == 3:
        return  # there are none
    code = """
server, total, held = socket.create_server(("127.0.0.1", 0)), 0, []
for n in range(10):
    one = socket.create_connection(server.getsockname())
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
    one.setblocking(False)
    held += [one, server.accept()]
    while isinstance(sent := tried(one.send, bytes(1 << 20)), int): total += sent
total < 2 << 20
"""
    assert await value_of(attack, code) == "True"


@pytest.mark.skipif(platform.node() == "sandbox", reason="the host is called so, too")
async def test_the_hosts_name(attack: Attack, box: Sandbox) -> None:
    code = "import platform\n(platform.node(), socket.gethostname(), os.uname().nodename)"
    assert await value_of(attack, code) == str((platform.node() if box.tier == 3 else "sandbox",) * 3)


@pytest.mark.parametrize("command", ["F_SETLK", "F_SETLKW", "F_OFD_SETLK", "F_OFD_SETLKW"])
async def test_locks_are_no_memory(attack: Attack, command: str) -> None:
    """200,000 of them, on every second byte, held 38 MB that no cgroup counted."""
    code = f"""
file = open("locked", "w+b", buffering=0)
for start in range(0, 2000, 2):
    fcntl.fcntl(file, fcntl.{command}, struct.pack("hhqqi", fcntl.F_WRLCK, 0, start, 1, 0))
other = open("locked", "r+b", buffering=0)
asked = fcntl.fcntl(other, fcntl.F_OFD_GETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 5000, 0))
struct.unpack("hhqqi", asked)[0] == fcntl.F_UNLCK
"""
    assert await value_of(attack, code) == "True"


async def test_connections_without_descriptors_are_bounded(attack: Attack, box: Sandbox) -> None:
    """Those that wait to be accepted, with what was sent on them; one process held 242 MB with 21 descriptors."""
    if box.tier == 3:
        return  # there are none
    code = """
server = socket.create_server(("127.0.0.1", 0), backlog=5000)
made = total = 0
try:
    for made in range(200):
        with socket.create_connection(server.getsockname(), 0.05) as one:
            one.setblocking(False)
            while isinstance(sent := tried(one.send, bytes(1 << 18)), int): total += sent
except TimeoutError: pass
made <= 65, total < 4 << 20
"""
    assert await value_of(attack, code) == "(True, True)"


@pytest.mark.parametrize("call", ["os.fsync", "os.fdatasync", "syncfs", "sync_file_range", "fadvise64"])
async def test_the_disk_is_not_made_to_write(attack: Attack, call: str) -> None:
    """A cell had the host's disk write out its cache 10,000 times a second, by a file that it may only read.

    Of a descriptor that there is not Linux would say so, had it been asked.
    """
    code = f"{call}(999)" if call.startswith("os.") else f"call({call!r}, 999, 0, 9, 7)"
    assert await value_of(attack, code) in ("", "0")
