"""Isolates a fresh fork of the zygote before it runs hostile code: namespaces, limits, privileges, filter.

The order matters: mounting needs privileges, limits on processes need the final user id, dropping privileges needs
privileges, and the seccomp filter, which refuses most of the calls made here, comes last.
"""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import landlock, seccomp, system
from .between import DESCRIPTORS

_libc = ctypes.CDLL(None)

# Linux enforces RLIMIT_DATA at allocation; this much is reserved for reporting the MemoryError.
MEMORY_RESERVE = 32 << 20
# Address space beyond RLIMIT_DATA: libraries, thread stacks' guards, shared files.
_ADDRESS_ROOM = 4 << 30
_UID = 1000  # uid inside, where a kernel has no uid of its own
# Limits on resources of which a machine or a user has a fixed number.
_TERMINALS = 16
_QUEUED_SIGNALS = 256
# The stack of the main thread, which RLIMIT_DATA does not count, and its maximum.
_STACK, _MOST_STACK = 8 << 20, 512 << 20
# Settings of a kernel's own network, see tcp(7), listen(2): minimum, default and maximum bytes of a connection's
# buffers; connections that are closed or not yet accepted, which hold memory without a descriptor that is counted.
_NETWORK = {
    "ipv4/tcp_rmem": "4096 16384 16384",
    "ipv4/tcp_wmem": "4096 16384 16384",
    "ipv4/tcp_max_tw_buckets": "1024",
    "core/somaxconn": "64",
}


def enter(world: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Isolate this process as the tier requires. Returns the leaks found, empty if there are none.

    Args:
        world: settings common to all kernels; see `sandbox.zygote.Zygote`.
        settings: settings of this kernel: limits, uid, home.

    Raises:
        OSError: Linux refused a step; the process must not run any code.
    """
    tier = world["tier"]
    # A new session: no controlling terminal, and a process group that can be killed.
    os.setsid()
    if tier in (1, 2):
        old_proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        _own_namespaces(world, settings)
        _become(settings, old_proc)
        os.close(old_proc)
    elif settings["uid"] is not None:
        os.chown(settings["home"], settings["uid"], settings["uid"])
        kept = (system.CAP_DAC_READ_SEARCH,) if world["reads_all"] else ()
        system.empty_bounding_set(kept)
        system.prctl(system.PR_SET_KEEPCAPS, int(bool(kept)))
        _change_user(settings["uid"])
        system.keep_capabilities(kept, inherited=True)
    if tier in (0, 3):  # in the other tiers, the end of the zygote's pid namespace ends all processes below it
        system.die_with_parent(world["zygote"])
    os.chdir(settings["home"])
    _limit(settings, processes=tier > 0)
    if tier > 0:
        system.no_new_privileges()
        if tier == 3:
            landlock.restrict(readable=world["readable"], writable=[settings["home"]])
        else:
            system.keep_capabilities(())
        seccomp.install(filter_of(world))
        return leaks(world)
    return []


def filter_of(world: dict[str, Any]) -> bytes:
    """The seccomp filter of all kernels of a zygote. Assembled once, by the zygote."""
    namespaces = world["tier"] < 3
    return seccomp.program(namespaces=namespaces, own_user=world["changes_users"])


def shares_user(world: dict[str, Any]) -> bool:
    """Whether kernels must not use resources that Linux counts per user; see `sandbox.inside.calls`."""
    return bool(world["tier"] == 3 or (world["tier"] > 0 and not world["changes_users"]))


def _own_namespaces(world: dict[str, Any], settings: dict[str, Any]) -> None:
    """Give this kernel its own network, IPC and host name namespaces, /proc, and writable file systems.

    The pid namespace was made by the zygote before the fork; this process is the first in it.
    """
    system.unshare(system.CLONE_NEWNS | system.CLONE_NEWNET | system.CLONE_NEWIPC | system.CLONE_NEWUTS)
    system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    for name, value in _NETWORK.items():
        with suppress(OSError):
            handle = os.open(f"/proc/sys/net/{name}", os.O_WRONLY)
            os.write(handle, value.encode())
            os.close(handle)
    # Read-only: a write to /proc/self/mem makes private copies that do not count as memory of the process.
    flags = system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC | system.MS_RDONLY
    try:
        system.mount("proc", "/proc", "proc", flags, "subset=pid")
    except OSError:  # Linux before 5.8
        system.mount("proc", "/proc", "proc", flags)
    terminals = f"newinstance,ptmxmode=0666,max={_TERMINALS}"
    system.mount("devpts", "/dev/pts", "devpts", system.MS_NOSUID | system.MS_NOEXEC, terminals)
    own = "" if settings["uid"] is None else f",uid={settings['uid']},gid={settings['uid']}"
    size = f"size={settings['disk_bytes']},nr_inodes={settings['inodes']}"
    for path in world["writable"]:
        mode = "0700" + own if path == settings["home"] else "1777"
        system.mount("tmpfs", path, "tmpfs", system.MS_NOSUID | system.MS_NODEV, f"{size},mode={mode}")
    for source, target in world["python"]:  # an interpreter in a writable folder is hidden by now
        path = Path(target)
        if Path(source).is_dir():
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        system.bind(source, target)
    system.loopback_up()


def _become(settings: dict[str, Any], old_proc: int) -> None:
    """Become an unprivileged user: with its own uid if the zygote is root, else in a user namespace."""
    with suppress(OSError):  # without CAP_SETPCAP, nothing could be gained from the bounding set
        system.empty_bounding_set()
    if settings["uid"] is not None:
        _change_user(settings["uid"])
        return
    uid, gid = os.geteuid(), os.getegid()  # the zygote's, which may be 0 in bubblewrap's namespace
    # The new user namespace gives no rights over anything, since all other namespaces were made before. It makes Linux
    # count the processes of each kernel separately.
    system.unshare(system.CLONE_NEWUSER)
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid or _UID} {uid} 1"),
        ("gid_map", f"{gid or _UID} {gid} 1"),
    ):
        handle = os.open(f"self/{name}", os.O_WRONLY, dir_fd=old_proc)
        os.write(handle, line.encode())
        os.close(handle)


def _change_user(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    system.prctl(system.PR_SET_DUMPABLE, 1)  # needed to read its own entries in /proc


def _limit(settings: dict[str, Any], *, processes: bool) -> None:
    memory = limit_memory(settings["memory_bytes"])
    limits = {
        resource.RLIMIT_CORE: (1, 1),  # with 0, a program configured in core_pattern would still be started; core(5)
        resource.RLIMIT_AS: (memory + _ADDRESS_ROOM,) * 2,
        resource.RLIMIT_FSIZE: (settings["disk_bytes"],) * 2,
        resource.RLIMIT_NOFILE: (settings["open_files"], settings["open_files"] + DESCRIPTORS),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_SIGPENDING: (_QUEUED_SIGNALS,) * 2,
        resource.RLIMIT_STACK: (_STACK, min(_MOST_STACK, max(memory, _STACK))),
        resource.RLIMIT_RTPRIO: (0, 0),
        resource.RLIMIT_NICE: (0, 0),
    }
    if processes:  # without isolation, all processes of the user would be counted
        limits[resource.RLIMIT_NPROC] = (settings["processes"],) * 2
    for name, (soft, most) in limits.items():
        hard = resource.getrlimit(name)[1]
        if hard != resource.RLIM_INFINITY:  # an unprivileged process cannot raise it
            most = min(most, hard)
        resource.setrlimit(name, (min(soft, most), most))


def limit_memory(most: int) -> int:
    """Limit the private memory of this process, with a reserve above the limit for reporting a MemoryError.

    Args:
        most: bytes; lowered if the hard limit is lower.

    Returns the limit that was set.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = most + MEMORY_RESERVE
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    memory = max(limit - MEMORY_RESERVE, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, limit))
    return memory


def leaks(world: dict[str, Any]) -> list[str]:
    """A few quick escape attempts; returns those that worked. Run in each kernel before it reports itself ready."""
    found = []
    if 0 in (*os.getresuid(), *os.getresgid()):
        found.append("it runs as root")
    for path in world["canaries"]:
        try:
            os.close(os.open(path, os.O_RDONLY))
            found.append(f"a file of the host can be read ({path})")
        except OSError:
            pass
    try:
        os.close(os.open("/usr/.sandbox-probe", os.O_WRONLY | os.O_CREAT))
        found.append("/usr is writable")
    except OSError:
        pass
    with suppress(OSError):
        system.unshare(system.CLONE_NEWUSER)
        found.append("it can make user namespaces")
    if _libc.ptrace(0, 0, 0, 0) == 0:
        found.append("it can be traced")
    if world["tier"] < 3:
        for name, host in world["namespaces"].items():
            if os.readlink(f"/proc/self/ns/{name}") == host:  # noqa: PTH115 - a magic link, not a path
                found.append(f"it shares the host's {name} namespace")
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        if int(status["CapEff"], 16) or int(status["CapPrm"], 16) or int(status["CapInh"], 16):
            found.append("it has capabilities")
        if status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
            found.append("its system calls are not filtered")
    return found
