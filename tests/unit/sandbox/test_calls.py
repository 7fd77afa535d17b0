"""The system call numbers equal Linux's on both architectures: a wrong one would allow another call."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from sandbox.inside import calls, seccomp

# Name, number on x86_64, number on aarch64, as made from the headers of Linux 6.1, and scripts/syscall.tbl of 6.17 for
# the newer ones; "-" where there is none.
TABLE = """
fadvise64 221 223, sync 162 81, syncfs 306 267, fsync 74 82, fdatasync 75 83, sync_file_range 277 84
acct 163 89, shmat 30 196, shmctl 31 195, msgsnd 69 189, msgrcv 70 188, msgctl 71 187, semop 65 193
semtimedop 220 192, semctl 66 191, mq_unlink 241 181
add_key 248 217, adjtimex 159 171, bind 49 200, bpf 321 280, cachestat 451 451, chmod 90 -
chown 92 -, chroot 161 51, clock_adjtime 305 266, clock_settime 227 112, clone 56 220, clone3 435 435
connect 42 203, delete_module 176 106, fanotify_init 300 262, fanotify_mark 301 263, fchmod 91 52
fchmodat 268 53, fchmodat2 452 452, fchown 93 55, fchownat 260 54, fcntl 72 25, fgetxattr 193 10
finit_module 313 273, flistxattr 196 13, fork 57 -, fremovexattr 199 16, fsconfig 431 431, fsetxattr 190 7
fsmount 432 432, fsopen 430 430, fspick 433 433, futimesat 261 -, get_robust_list 274 100, getxattr 191 8
getxattrat 464 464, init_module 175 105, inotify_init 253 -, inotify_init1 294 26, io_setup 206 0
io_uring_enter 426 426, io_uring_register 427 427, io_uring_setup 425 425, ioctl 16 29, ioperm 173 -, iopl 172 -
ioprio_set 251 30, kcmp 312 272, kexec_file_load 320 294, kexec_load 246 104, keyctl 250 219
landlock_add_rule 445 445, landlock_create_ruleset 444 444, landlock_restrict_self 446 446, lchown 94 -
lgetxattr 192 9, listen 50 201, listxattr 194 11, listxattrat 465 465, llistxattr 195 12, lookup_dcookie 212 18
lremovexattr 198 15, lsetxattr 189 6, mbind 237 235, memfd_create 319 279, memfd_secret 447 447
migrate_pages 256 238, mmap 9 222, modify_ldt 154 -, mount 165 40, mount_setattr 442 442, move_mount 429 429
move_pages 279 239, mq_open 240 180, mseal 462 462, msgget 68 186, name_to_handle_at 303 264
open_by_handle_at 304 265, open_tree 428 428, perf_event_open 298 241, personality 135 92, pidfd_getfd 438 438
pidfd_open 434 434, pidfd_send_signal 424 424, pivot_root 155 41, prctl 157 167, prlimit64 302 261
process_madvise 440 440, process_mrelease 448 448, process_vm_readv 310 270, process_vm_writev 311 271
ptrace 101 117, quotactl 179 60, quotactl_fd 443 443, reboot 169 142, removexattr 197 14, removexattrat 466 466
request_key 249 218, sched_setaffinity 203 122, sched_setattr 314 274, sched_setparam 142 118
sched_setscheduler 144 119, seccomp 317 277, semget 64 190, set_mempolicy 238 237
set_mempolicy_home_node 450 450, setdomainname 171 162, sethostname 170 161, setns 308 268, setpriority 141 140
setsockopt 54 208, settimeofday 164 170, setxattr 188 5, setxattrat 463 463, shmget 29 194, socket 41 198
socketpair 53 199, swapoff 168 225, swapon 167 224, syslog 103 116, umount2 166 39, unshare 272 97, uselib 134 -
userfaultfd 323 282, close_range 436 436, epoll_create 213 -, epoll_create1 291 20, sendmsg 46 211, sendmmsg 307 269
utime 132 -, utimensat 280 88, utimes 235 -, vfork 58 -, vhangup 153 58, vmsplice 278 75
"""
HEADERS = (
    ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    ("/usr/include/asm-generic/unistd.h",),
)
ALL: dict[str, calls.Numbers] = {
    name: numbers
    for table in (
        calls.ARGUMENTS,
        calls.LATER,
        *calls.REFUSED.values(),
        *calls.REFUSED_WITHOUT_NAMESPACES.values(),
        *calls.REFUSED_WITH_A_SHARED_USER.values(),
        calls.WITHOUT_EFFECT,
        calls.METADATA,
        {"seccomp": seccomp._SECCOMP},
    )
    for name, numbers in table.items()
}


def test_the_numbers_are_those_of_an_independent_table() -> None:
    entries = [entry.split() for entry in TABLE.replace("\n", ", ").split(", ") if entry]
    expected = {name: tuple(None if n == "-" else int(n) for n in numbers) for name, *numbers in entries}
    assert expected == ALL


@pytest.mark.parametrize("column", [0, 1], ids=["x86_64", "aarch64"])
def test_the_numbers_are_those_of_the_headers_here(column: int) -> None:
    """Headers may be older than a call; then they say nothing about it."""
    path = next((path for name in HEADERS[column] if (path := Path(name)).exists()), None)
    if path is None:
        pytest.skip(f"no {HEADERS[column][0]} here: linux-libc-dev is not installed, or for another architecture")
    found = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", path.read_text(), re.M))
    found.pop("syscalls", None)  # how many there are
    assert len(found) > 250
    ours = {name: numbers[column] for name, numbers in ALL.items()}
    assert {name: int(found[name]) for name in ours if name in found} == {
        name: number for name, number in ours.items() if name in found
    }
    # What the headers know and we say is missing, they must not have; what they lack is newer than they are.
    newest = max(map(int, found.values()))
    assert all(number is None or number > newest for name, number in ours.items() if name not in found)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("namespaces", [True, False])
def test_each_number_ends_as_the_tables_say(machine: str, namespaces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter run as Linux does, for each number of a call that is decided by its number alone."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    seccomp.program.cache_clear()
    code = list(struct.iter_unpack("HBBI", seccomp.program(namespaces=namespaces, own_user=False)))
    seccomp.program.cache_clear()
    groups = [*calls.REFUSED.items(), *calls.REFUSED_WITH_A_SHARED_USER.items(), (0, calls.WITHOUT_EFFECT)]
    if not namespaces:
        groups += [*calls.REFUSED_WITHOUT_NAMESPACES.items(), (0, calls.METADATA)]
    ends = {calls.here(numbers): 0x50000 | error for error, group in groups for numbers in group.values()}
    looked_at = {calls.here(numbers) for numbers in calls.ARGUMENTS.values()}
    later = {calls.here(numbers) for numbers in calls.LATER.values()}
    allowed = 0
    for number in {*range(600), 0x40000000, 0x40000009, 0xFFFFFFFF} - looked_at:
        missing = number >= calls.NEWEST and number not in later
        expected = ends.get(number, 0x50000 | 38 if missing else 0x7FFF0000)
        assert _run(code, number, seccomp._AUDIT_ARCH[machine]) == expected, number
        allowed += expected == 0x7FFF0000
        assert _run(code, number, 0x40000003) == 0x80000000  # i386's calls kill
    assert allowed > 200


def _run(code: list[tuple[int, ...]], number: int, architecture: int) -> int:
    """Interpret what of BPF is used for this, see linux/filter.h. Raises KeyError where an argument is loaded."""
    at = value = 0
    while True:
        kind, true, false, operand = code[at]
        at += 1
        if kind == 0x06:
            return operand
        if kind == 0x20:
            value = {0: number, 4: architecture}[operand]
        else:
            at += true if {0x15: value == operand, 0x35: value >= operand}[kind] else false
