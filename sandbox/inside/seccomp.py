"""The seccomp filter, which refuses system calls of kernels.

Refused are calls that ordinary programs do not need and exploits of Linux start from, calls that use memory or quotas
that no limit counts, and calls that reach files and processes outside the kernel; see `sandbox.inside.calls`. This is a
deny list: Python and its libraries use too much of Linux for an allow list. Multiplexed calls (ioctl, prctl,
setsockopt) have allow lists. A refused call fails with an error that programs know, so that they can continue.

When the filter is installed, Linux runs it once for each number and caches those that are always allowed. So only calls
whose arguments are checked cost anything, and these come first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from functools import cache

from . import calls, system

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_SECCOMP: calls.Numbers = (317, 277)

_NEW_NAMESPACE = (
    system.CLONE_NEWNS
    | system.CLONE_NEWCGROUP
    | system.CLONE_NEWUTS
    | system.CLONE_NEWIPC
    | system.CLONE_NEWUSER
    | system.CLONE_NEWPID
    | system.CLONE_NEWNET
)
_CLONE_THREAD, _CLONE_FILES = 0x00010000, 0x00000400
_CLOSE_RANGE_UNSHARE = 2  # linux/close_range.h

# linux/mman.h, asm-generic/mman-common.h, asm-generic/mman.h. Shared memory without a file counts for no process,
# memory that grows downwards counts as stack, and huge pages are reserved by the machine for other programs.
_MAP_SHARED_ANONYMOUS, _MAP_TYPE, _MAP_ANONYMOUS = 0x01 | 0x20, 0x0F, 0x20
_MAP_GROWSDOWN, _MAP_HUGETLB = 0x0100, 0x40000

# linux/fcntl.h. Leases and notifications delay and observe other processes' use of files; the size of pipes is counted
# per user, and the host's end of a pipe has the same size.
_FCNTL_REFUSED = (1024, 1026, 1031)  # F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ
# The number of locks on parts of a file is not limited, in memory that not even cgroups count (200,000 per second,
# which take 38 MB), and on shared files others would wait for them. They succeed without effect, as on a file system
# mounted with nolock, because SQLite needs them. (F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW.)
_FCNTL_WITHOUT_EFFECT = (6, 7, 37, 38)

# asm-generic/ioctls.h: terminals, files' descriptors; linux/sockios.h; linux/random.h. Others are for devices, which
# kernels do not have, and for file systems, where some change attributes of files opened for reading.
_IOCTL_KINDS = (ord("T"), 0x89, ord("R"))
_IOCTL_REFUSED = (0x5412, 0x541C, 0x5423)  # TIOCSTI and TIOCLINUX type into a terminal, TIOCSETD loads modules

# bits/socket.h, linux/in.h. Other families (vsock, netlink, packet, alg, ...), types and protocols (MPTCP, UDP-Lite,
# SCTP, DCCP, raw, ...) are seldom used and often broken.
_UNIX, _INTERNET = 1, (2, 10)
_STREAM, _DATAGRAM, _PACKETS = 1, 2, 5
_TYPE_MASK = 0x0F
_PROTOCOLS = (0, 6, 17)  # the type's own, TCP, UDP

# asm-generic/socket.h, linux/tcp.h, linux/in.h, linux/in6.h. Not allowed: filters (SO_ATTACH_FILTER, SO_ATTACH_BPF,
# ...), whose memory counts for no process; flow labels of IPv6, of which the machine has 4096; timestamps, which would
# be enabled for all packets of the machine; multicast groups, which take a global lock; TCP_ULP, which loads modules;
# ...
_OPTIONS: dict[int, tuple[int, ...]] = {
    1: (2, 5, 6, 9, 10, 12, 13, 15, 16, 18, 20, 21, 66, 67),  # REUSEADDR ... KEEPALIVE, LINGER, timeouts
    6: (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 18, 23, 25, 30),  # NODELAY, CORK, KEEPIDLE, ..., FASTOPEN
    0: (1, 2, 6, 8, 10, 11, 12, 13, 14, 15, 24, 32, 33, 34, 49),  # TOS, TTL, ..., multicast but its groups
    41: (16, 17, 18, 19, 23, 24, 25, 26, 29, 49, 66, 67),  # V6ONLY, hops, multicast but its groups, ...
}
# Socket buffers often count for no process: SO_SNDBUF and SO_RCVBUF succeed without effect, as where the limit is low.
_SIZES = (7, 8)

# linux/prctl.h: names, timing, queries; SVE and tagged addresses on aarch64. Not allowed: PR_SET_SECCOMP (more filters
# would use up the machine's memory for filters), PR_SET_MM, PR_SCHED_CORE, ...
_PRCTL = (2, 3, 7, 15, 16, 21, 23, 27, 29, 30, 36, 37, 38, 39, 40, 41, 42, 50, 51, 52, 54, 55, 56, 61, 63, 64)

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET = 0x20, 0x15, 0x35, 0x45
_AND, _SHIFT_RIGHT, _RETURN = 0x54, 0x74, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _ARGS = 0, 4, 16
_TSYNC = 1
_FAR = 255  # instructions that a jump can skip

Instruction = tuple[int, int, int, int]


@cache
def program(*, namespaces: bool, own_user: bool = True) -> bytes:
    """The filter for this machine as an array of sock_filter.

    Args:
        namespaces: whether the kernel has its own network and pid namespaces. Without them it may not start processes,
            may not create sockets other than pairs, and may not change other processes; threads are always allowed.
        own_user: whether no other process runs as the kernel's user, so that its files and quotas are not shared.

    Raises OSError if the system call numbers of this architecture are unknown.
    """
    rules = _rules(namespaces)
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH.get(platform.machine(), 0)),
        _ended(_KILL),  # another architecture's calls have other numbers
        (_LOAD, 0, 0, _NR),
    ]
    for name, numbers in calls.ARGUMENTS.items():
        if name in rules and (number := calls.here(numbers)) is not None:
            code += _on(number, rules[name])
    endings: dict[int, int] = {}
    groups = [*calls.REFUSED.items(), *(() if namespaces else calls.REFUSED_WITHOUT_NAMESPACES.items())]
    groups += [] if namespaces and own_user else calls.REFUSED_WITH_A_SHARED_USER.items()
    groups += [(0, calls.WITHOUT_EFFECT), *([] if namespaces or own_user else [(0, calls.METADATA)])]
    for error, group in groups:
        endings |= {number: _ERRNO | error for numbers in group.values() if (number := calls.here(numbers)) is not None}
    endings |= {number: _ALLOW for numbers in calls.LATER.values() if (number := calls.here(numbers)) is not None}
    newer = [step for number in endings if number >= calls.NEWEST for step in _on(number, [_ended(endings[number])])]
    code += [(_JUMP_AT_LEAST, 0, len(newer) + 1, calls.NEWEST), *newer, _refuse(errno.ENOSYS)]
    code += _search(sorted((number, ending) for number, ending in endings.items() if number < calls.NEWEST))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _rules(namespaces: bool) -> dict[str, list[Instruction]]:
    """The rules for calls that are filtered by their arguments, each ending in a return."""
    not_a_name = [(_JUMP_EQUAL, 1, 0, _UNIX), _refuse(errno.EAFNOSUPPORT)]
    pairs = (_STREAM, _DATAGRAM, _PACKETS) if namespaces else (_STREAM, _PACKETS)  # datagrams can go to any name
    rules = {
        "mmap": [
            _argument(3),
            (_JUMP_SET, 3, 0, _MAP_GROWSDOWN | _MAP_HUGETLB),
            (_AND, 0, 0, _MAP_ANONYMOUS | _MAP_TYPE),
            (_JUMP_EQUAL, 1, 0, _MAP_SHARED_ANONYMOUS),
            _ended(_ALLOW),
            _refuse(errno.ENOMEM),
        ],
        "ioctl": [
            _argument(1),
            *(step for number in _IOCTL_REFUSED for step in _on(number, [_refuse()])),
            (_SHIFT_RIGHT, 0, 0, 8),
            (_AND, 0, 0, 0xFF),
            *_only(_IOCTL_KINDS, errno.EOPNOTSUPP),
        ],
        "fcntl": [
            _argument(1),
            *(step for number in _FCNTL_REFUSED for step in _on(number, [_refuse()])),
            *(step for number in _FCNTL_WITHOUT_EFFECT for step in _on(number, [_refuse(0)])),
            _ended(_ALLOW),
        ],
        "clone": [
            _argument(0),
            (_JUMP_SET, 0, 1, _NEW_NAMESPACE),
            _refuse(),
            *(() if namespaces else [(_JUMP_SET, 1, 0, _CLONE_THREAD), _refuse()]),
            # A thread with its own descriptor table could open as many descriptors again, including sockets.
            *(() if namespaces else [(_JUMP_SET, 1, 0, _CLONE_FILES), _refuse()]),
            _ended(_ALLOW),
        ],
        "close_range": [
            _argument(2),
            *(() if namespaces else [(_JUMP_SET, 0, 1, _CLOSE_RANGE_UNSHARE), _refuse(errno.EINVAL)]),
            _ended(_ALLOW),
        ],
        "socketpair": [
            *(_argument(0), *not_a_name),
            *(_argument(1), (_AND, 0, 0, _TYPE_MASK), *_only(pairs, errno.ESOCKTNOSUPPORT)),
        ],
        "socket": _socket_rules() if namespaces else [_refuse(errno.EAFNOSUPPORT)],
        "setsockopt": [
            _argument(1),
            *(step for level in _OPTIONS for step in _on(level, _option_rules(level))),
            _refuse(errno.ENOPROTOOPT),
        ],
        "prctl": [
            _argument(0),
            *_on(
                system.PR_SET_DUMPABLE,  # 0 would hide its memory from the host, which measures it
                [_argument(1), (_JUMP_EQUAL, 0, 1, 1), _ended(_ALLOW), _refuse()],
            ),
            # Tier 3 relies on it to end kernels with the zygote.
            *_on(system.PR_SET_PDEATHSIG, [_ended(_ALLOW) if namespaces else _refuse()]),
            *_only(_PRCTL, errno.EINVAL),
        ],
        # PRIO_PROCESS alone; without namespaces only the caller itself.
        "setpriority": [
            _argument(0),
            (_JUMP_EQUAL, 1, 0, 0),
            _refuse(),
            *([_ended(_ALLOW)] if namespaces else [_argument(1), *_only((0,), errno.EPERM)]),
        ],
    }
    if not namespaces:
        itself = [_argument(0), *_only((0,), errno.EPERM)]
        for name in ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"):
            rules[name] = itself
    return rules


def _socket_rules() -> list[Instruction]:
    of_internet = [
        *(_argument(1), (_AND, 0, 0, _TYPE_MASK)),
        *((_JUMP_EQUAL, 2, 0, _STREAM), (_JUMP_EQUAL, 1, 0, _DATAGRAM), _refuse(errno.ESOCKTNOSUPPORT)),
        *(_argument(2), *_only(_PROTOCOLS, errno.EPROTONOSUPPORT)),
    ]
    return [
        _argument(0),
        *_on(_UNIX, [_ended(_ALLOW)]),
        *(step for family in _INTERNET for step in _on(family, of_internet)),
        _refuse(errno.EAFNOSUPPORT),
    ]


def _option_rules(level: int) -> list[Instruction]:
    sizes = [step for size in _SIZES for step in _on(size, [_refuse(0)])] if level == 1 else []
    return [_argument(2), *sizes, *_only(_OPTIONS[level], errno.ENOPROTOOPT)]


def _argument(number: int) -> Instruction:
    """Load the lower half of an argument: all that are checked are ints in Linux, or fail if they are larger."""
    return (_LOAD, 0, 0, _ARGS + 8 * number)


def _on(value: int, rules: list[Instruction]) -> list[Instruction]:
    """Apply these rules, which end in a return, if the loaded value equals `value`; otherwise continue with it."""
    assert len(rules) <= _FAR
    return [(_JUMP_EQUAL, 0, len(rules), value), *rules]


def _only(values: tuple[int, ...], error: int) -> list[Instruction]:
    """Allow these values, and refuse all others."""
    allowed = [(_JUMP_EQUAL, len(values) - n, 0, value) for n, value in enumerate(values)]
    return [*allowed, _refuse(error), _ended(_ALLOW)]


def _refuse(error: int = errno.EPERM) -> Instruction:
    return _ended(_ERRNO | error)


def _ended(ending: int) -> Instruction:
    return (_RETURN, 0, 0, ending)


def _search(endings: list[tuple[int, int]]) -> list[Instruction]:
    """A binary search for the ending of a number, given sorted endings, since Linux runs it for each number."""
    if len(endings) > 3:
        middle = len(endings) // 2
        lower, upper = _search(endings[:middle]), _search(endings[middle:])
        assert len(lower) <= _FAR
        return [(_JUMP_AT_LEAST, len(lower), 0, endings[middle][0]), *lower, *upper]
    return [*(step for number, ending in endings for step in _on(number, [_ended(ending)])), _ended(_ALLOW)]


def install(filter_program: bytes) -> None:
    """Apply the filter permanently to all threads of this process and all their children. Needs no_new_privs."""
    count = len(filter_program) // 8
    buffer = ctypes.create_string_buffer(filter_program, len(filter_program))
    # struct sock_fprog: the count, padded, and a pointer.
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", count, ctypes.addressof(buffer)), 16)
    number = calls.here(_SECCOMP)
    assert number is not None
    thread = system.syscall(number, 1, _TSYNC, described, what="seccomp")
    if thread:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
