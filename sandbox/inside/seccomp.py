"""The system calls that a kernel may not make, as a seccomp filter.

What is refused is what ordinary programs never need and exploits of Linux begin with; see the table. It is a list
of what is refused, not of what is allowed: Python and its libraries use too much of Linux for the other kind. A
refused call fails with EPERM, so that a program that asks can go on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from . import system

# asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64); None where the architecture has no such call.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # other processes' memory and descriptors
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # wide doors into the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "vmsplice": (278, 75),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "seccomp": (317, 277),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_FORKS = {"x86_64": (57, 58), "aarch64": ()}  # fork, vfork
_SOCKET = {"x86_64": (41, 53), "aarch64": (198, 199)}  # socket, socketpair
_IOCTL = {"x86_64": 16, "aarch64": 29}
_MMAP = {"x86_64": 9, "aarch64": 222}
_SECCOMP = {"x86_64": 317, "aarch64": 277}

_NEW_NAMESPACE = (
    system.CLONE_NEWNS
    | system.CLONE_NEWCGROUP
    | system.CLONE_NEWUTS
    | system.CLONE_NEWIPC
    | system.CLONE_NEWUSER
    | system.CLONE_NEWPID
    | system.CLONE_NEWNET
)
_CLONE_THREAD = 0x00010000
_MAP_SHARED_ANONYMOUS = 0x01 | 0x20
_MAP_TYPE = 0x0F
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h: typing into a terminal
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6: not vsock, netlink, packet, alg, ...

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _ARGS = 0, 4, 16
_X32_BIT = 0x40000000
_TSYNC = 1

Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return platform.machine() in _COLUMN


def program(*, fork: bool, network: bool = True) -> bytes:
    """The filter for this machine as an array of sock_filter.

    Args:
        fork: whether processes may be started; threads always may.
        network: whether sockets may be made at all (where a network namespace holds them); pairs always may.
    """
    machine = platform.machine()
    column = _COLUMN[machine]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),  # another architecture's calls have other numbers
        (_LOAD, 0, 0, _NR),
    ]
    if machine == "x86_64":
        code += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), _refuse(errno.ENOSYS)]
    # glibc asks for clone3 first, whose flags a filter cannot see, and then takes clone.
    code += [*_on(_CLONE3, [_refuse(errno.ENOSYS)])]
    code += _on(_CLONE[machine], _clone_rules(fork))
    if not fork:
        for number in _FORKS[machine]:
            code += _on(number, [_refuse()])
    for number, families in zip(_SOCKET[machine], (_FAMILIES if network else (), _FAMILIES[:1]), strict=True):
        allowed = [(_JUMP_EQUAL, len(families) - n, 0, family) for n, family in enumerate(families)]
        code += _on(number, [(_LOAD, 0, 0, _ARGS), *allowed, _refuse(errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)])
    terminal = [(_JUMP_EQUAL, 1, 0, _TIOCSTI), (_JUMP_EQUAL, 0, 1, _TIOCLINUX), _refuse(), (_RETURN, 0, 0, _ALLOW)]
    code += _on(_IOCTL[machine], [(_LOAD, 0, 0, _ARGS + 8), *terminal])
    shared = [(_AND, 0, 0, 0x20 | _MAP_TYPE), (_JUMP_EQUAL, 0, 1, _MAP_SHARED_ANONYMOUS), _refuse(errno.ENOMEM)]
    code += _on(_MMAP[machine], [(_LOAD, 0, 0, _ARGS + 24), *shared, (_RETURN, 0, 0, _ALLOW)])
    for numbers in _NUMBERS.values():
        if (number_here := numbers[column]) is not None:
            code += _on(number_here, [_refuse()])
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _clone_rules(fork: bool) -> list[Instruction]:
    flags: list[Instruction] = [(_LOAD, 0, 0, _ARGS), (_JUMP_SET, 0, 1, _NEW_NAMESPACE), _refuse()]
    if not fork:
        flags += [(_JUMP_SET, 1, 0, _CLONE_THREAD), _refuse()]
    return [*flags, (_RETURN, 0, 0, _ALLOW)]


def _on(number: int, rules: list[Instruction]) -> list[Instruction]:
    """These rules, which end in a return, for one system call; its number is loaded and stays so otherwise."""
    return [(_JUMP_EQUAL, 0, len(rules), number), *rules]


def _refuse(error: int = errno.EPERM) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | error)


def install(filter_program: bytes) -> None:
    """Put the filter on this process's threads and all that they start, for good. Needs no_new_privs."""
    count = len(filter_program) // 8
    buffer = ctypes.create_string_buffer(filter_program, len(filter_program))
    # struct sock_fprog: the count, padded, and a pointer.
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", count, ctypes.addressof(buffer)), 16)
    thread = system.syscall(_SECCOMP[platform.machine()], 1, _TSYNC, described, what="seccomp")
    if thread:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
