"""Numbers of system calls, and how each refused call fails.

From arch/x86/entry/syscalls/syscall_64.tbl and scripts/syscall.tbl (which aarch64 uses) of Linux, that is
asm/unistd_64.h and asm-generic/unistd.h. A test compares them with the headers and with a separate table.
"""

from __future__ import annotations

import errno
import platform

Numbers = tuple[int | None, int | None]
"""On x86_64 and on aarch64; None where the architecture has no such call."""

_COLUMN = {"x86_64": 0, "aarch64": 1}

NEWEST = 457
"""Calls from this number on (statmount, Linux 6.8) do not exist for kernels, except those in `LATER`, since calls added
to Linux in the future are unknown. The bound also covers all calls of the x32 ABI."""

ARGUMENTS: dict[str, Numbers] = {
    "mmap": (9, 222),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "clone": (56, 220),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "setsockopt": (54, 208),
    "prctl": (157, 167),
    "setpriority": (141, 140),
    "prlimit64": (302, 261),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "close_range": (436, 436),
}
"""Calls that are filtered by their arguments; see `sandbox.inside.seccomp`."""

LATER: dict[str, Numbers] = {"mseal": (462, 462)}
"""Allowed although they are newer than `NEWEST`."""

_ATTRIBUTES: dict[str, Numbers] = {
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "fgetxattr": (193, 10),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "flistxattr": (196, 13),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "getxattrat": (464, 464),
    "listxattrat": (465, 465),
    "removexattrat": (466, 466),
}
# These fail with ENOSYS, as on a Linux without the feature: programs then do without.
_MISSING: dict[str, Numbers] = {
    "clone3": (435, 435),  # a filter cannot see its flags; glibc tries it first and falls back to clone
    "cachestat": (451, 451),  # shows which parts of shared files others have read
    # A Landlock ruleset can hold any number of rules, in memory that only cgroups count.
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    "io_setup": (206, 0),  # the machine has a fixed number of contexts for all users
}
_FORBIDDEN: dict[str, Numbers] = {
    # other processes' memory and descriptors
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
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
    # large attack surface of Linux
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
    "uselib": (134, None),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # ... and such memory of other processes, where there is no namespace for it
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "mq_unlink": (241, 181),
    # watching other processes' use of shared files, and shared quotas
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
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
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "lookup_dcookie": (212, 18),
    "ioprio_set": (251, 30),  # can change all processes of a user
}
REFUSED: dict[int, dict[str, Numbers]] = {
    errno.EOPNOTSUPP: _ATTRIBUTES,
    errno.ENOSYS: _MISSING,
    errno.EPERM: _FORBIDDEN,
}
"""Refused in all tiers, by the error with which they fail."""

REFUSED_WITHOUT_NAMESPACES: dict[int, dict[str, Numbers]] = {
    errno.EPERM: {
        "fork": (57, None),
        "vfork": (58, None),
        "pidfd_open": (434, 434),
        "pidfd_send_signal": (424, 424),
        "get_robust_list": (274, 100),
        "chown": (92, None),
        "fchown": (93, 55),
        "lchown": (94, None),
        "fchownat": (260, 54),
        # Otherwise a socket of a pair could be connected to a named socket of the host.
        "connect": (42, 203),
        "bind": (49, 200),
        "listen": (50, 201),
    },
}
"""Also refused in tier 3, because Landlock does not cover them."""

REFUSED_WITH_A_SHARED_USER: dict[int, dict[str, Numbers]] = {
    # Epoll watches have a quota per user, 4 % of the machine's memory, and count towards no other limit; a session can
    # make a million of them, and then no event loop of that user can watch another descriptor. Python can use poll.
    errno.ENOSYS: {"epoll_create": (213, None), "epoll_create1": (291, 20)},
    # Descriptors in transit in messages also have a quota per user of a few hundred. A filter cannot see which messages
    # carry descriptors.
    errno.EPERM: {"sendmsg": (46, 211), "sendmmsg": (307, 269)},
}
"""Refused where a kernel shares its user, and in tier 3, where open files in transit would exceed the limit."""

WITHOUT_EFFECT: dict[str, Numbers] = {
    "sync": (162, 81),
    "syncfs": (306, 267),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "sync_file_range": (277, 84),
    "fadvise64": (221, 223),
}
"""These succeed without doing anything, which is correct for files in memory. On files that are merely readable, they
would make the host's disk write out its buffers as often as code likes (10,000 times a second), and drop cached pages
of files that others read."""

METADATA: dict[str, Numbers] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
"""These also succeed without effect where a kernel runs as the user whose files must be protected (tier 3, not as
root). A filter cannot see which file is meant and Landlock does not cover them; with an error, copying a file would
fail."""


def here(numbers: Numbers) -> int | None:
    """The number on this machine; None if the call does not exist. Raises OSError on other architectures."""
    machine = platform.machine()
    if machine not in _COLUMN:
        raise OSError(errno.ENOSYS, f"system calls are known for x86_64 and aarch64 only, not for {machine}")
    return numbers[_COLUMN[machine]]
