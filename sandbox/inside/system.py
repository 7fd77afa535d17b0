"""System calls that Python does not offer: namespaces, mounts, capabilities and prctl, through ctypes.

All wrappers raise OSError. Constants are from the Linux headers named next to them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import socket
import struct

_libc = ctypes.CDLL(None, use_errno=True)

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWTIME = 0x00000080

# linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/capability.h: the zygote needs these to isolate kernels, which then drop them.
CAP_DAC_READ_SEARCH = 2
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_SETFCAP = 31
_CAPABILITY_VERSION = 0x20080522

_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object, what: str) -> int:
    """Make a system call by its number; integers are passed as C longs."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(int(_libc.syscall(ctypes.c_long(number), *passed)), what)


def unshare(flags: int) -> None:
    """Move to new namespaces of the given kinds."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace of a descriptor."""
    _check(_libc.setns(descriptor, kind), "setns")


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *padded), f"prctl {option}")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(result, f"mount {target}")


def bind(source: str, target: str, *, read_only: bool = True, devices: bool = False) -> None:
    """Bind-mount a file or folder, with everything mounted below it."""
    mount(source, target, None, MS_BIND | MS_REC)
    # struct mount_attr: flags to set, flags to clear, propagation, user namespace. The flags are those of mount(2).
    attributes = struct.pack(
        "QQQQ", MS_NOSUID | (0 if devices else MS_NODEV) | (MS_RDONLY if read_only else 0), 0, 0, 0
    )
    syscall(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, 32, what=f"mount_setattr {target}")


def pivot_root(folder: str) -> None:
    """Make a mounted folder the root, and unmount the old root."""
    os.chdir(folder)
    syscall(_PIVOT_ROOT[platform.machine()], b".", b".", what="pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def loopback_up() -> None:
    """Bring up the loopback interface of a new network namespace, which programs expect."""
    siocsifflags, iff_up = 0x8914, 1  # linux/sockios.h, linux/if.h
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, siocsifflags, struct.pack("16sh22x", b"lo", iff_up))


def keep_capabilities(capabilities: tuple[int, ...], *, inherited: bool = False) -> None:
    """Drop all capabilities of this process but these, permanently.

    Args:
        capabilities: numbers; all must be permitted already.
        inherited: whether programs started from here on keep them, too.
    """
    kept = sum(1 << number for number in capabilities)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    passed = (low, high) if inherited else (0, 0)
    data = struct.pack("6I", low, low, passed[0], high, high, passed[1])
    _check(_libc.capset(header, data), "capset")
    for number in capabilities if inherited else ():
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def empty_bounding_set(keep: tuple[int, ...] = ()) -> None:
    """Prevent programs started from here on from gaining capabilities. Needs CAP_SETPCAP."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        if number not in keep:
            try:
                prctl(PR_CAPBSET_DROP, number)
            except OSError:
                return  # past the last capability of this Linux


def no_new_privileges() -> None:
    """Prevent programs started from here on from gaining privileges, e.g. by setuid."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends; exit if it has ended already."""
    prctl(PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)
