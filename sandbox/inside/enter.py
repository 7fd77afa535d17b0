"""From a fresh fork of the zygote to a process that can hold hostile code: namespaces, limits, rights, filter.

The order matters: what is mounted needs rights, what counts processes needs the user, what gives rights up needs
rights, and the filter of system calls, which refuses most of what is done here, comes last.
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

# Linux enforces RLIMIT_DATA when memory is asked for; this much is kept back to report the MemoryError.
MEMORY_RESERVE = 32 << 20
# Address space beyond RLIMIT_DATA: libraries, thread stacks' guards, shared files.
_ADDRESS_ROOM = 4 << 30
_UID = 1000  # what a user of no number of its own is called inside
# What a machine or a user has a fixed number of, for all.
_TERMINALS = 16
_QUEUED_SIGNALS = 256
# The stack of the first thread, which is not counted as data, and how far it may be raised.
_STACK, _MOST_STACK = 8 << 20, 512 << 20
# Of a kernel's own network, see tcp(7), listen(2): least, first and most bytes of a connection's buffers; connections
# that have ended, and those that wait to be accepted, which hold memory without a descriptor that would be counted.
_NETWORK = {
    "ipv4/tcp_rmem": "4096 16384 16384",
    "ipv4/tcp_wmem": "4096 16384 16384",
    "ipv4/tcp_max_tw_buckets": "1024",
    "core/somaxconn": "64",
}


def enter(world: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Become isolated as the world's tier says. Returns what could be got at nevertheless: nothing, if all is well.

    Args:
        world: what all kernels have in common; see `sandbox.zygote.Zygote`.
        settings: what is this kernel's alone: the limits, uid, home.

    Raises:
        OSError: Linux refused a step; the process must not run anything.
    """
    tier = world["tier"]
    # A session of its own: no terminal, and a process group that can be killed.
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
    if tier in (0, 3):  # elsewhere the end of the zygote's process namespace is the end of all below it
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
    """The filter of system calls that all kernels of a world have. Put together once, by the zygote."""
    namespaces = world["tier"] < 3
    return seccomp.program(namespaces=namespaces, own_user=world["changes_users"])


def shares_user(world: dict[str, Any]) -> bool:
    """Whether kernels do without what Linux counts for all processes of a user; see `sandbox.inside.calls`."""
    return bool(world["tier"] == 3 or (world["tier"] > 0 and not world["changes_users"]))


def _own_namespaces(world: dict[str, Any], settings: dict[str, Any]) -> None:
    """Nothing in common with siblings: a network, names, processes, and file systems to write to.

    The process namespace was made by the zygote before the fork; this process is the first in it.
    """
    system.unshare(system.CLONE_NEWNS | system.CLONE_NEWNET | system.CLONE_NEWIPC | system.CLONE_NEWUTS)
    system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    for name, value in _NETWORK.items():
        with suppress(OSError):
            handle = os.open(f"/proc/sys/net/{name}", os.O_WRONLY)
            os.write(handle, value.encode())
            os.close(handle)
    # Read-only: a write to /proc/self/mem makes private copies that count as no memory of the process.
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
    for source, target in world["python"]:  # an interpreter that lives where code may write is hidden by now
        path = Path(target)
        if Path(source).is_dir():
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        system.bind(source, target)
    system.loopback_up()


def _become(settings: dict[str, Any], old_proc: int) -> None:
    """A user without rights: of a number of its own where the zygote is root, in a user namespace elsewhere."""
    with suppress(OSError):  # without CAP_SETPCAP there is nothing in the set that could be gained
        system.empty_bounding_set()
    if settings["uid"] is not None:
        _change_user(settings["uid"])
        return
    uid, gid = os.geteuid(), os.getegid()  # the zygote's, which may be called 0 in a namespace of bubblewrap's
    # It gives no rights over anything, as all namespaces were made before. It is there so that Linux counts
    # the processes of each kernel by themselves.
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
    system.prctl(system.PR_SET_DUMPABLE, 1)  # or it could not read its own entries below /proc


def _limit(settings: dict[str, Any], *, processes: bool) -> None:
    memory = limit_memory(settings["memory_bytes"])
    limits = {
        resource.RLIMIT_CORE: (1, 1),  # with 0, a program that core_pattern(5) names would be started all the same
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
    if processes:  # without isolation the count would be that of all the user's processes
        limits[resource.RLIMIT_NPROC] = (settings["processes"],) * 2
    for name, (soft, most) in limits.items():
        hard = resource.getrlimit(name)[1]
        if hard != resource.RLIM_INFINITY:  # which nobody here may raise
            most = min(most, hard)
        resource.setrlimit(name, (min(soft, most), most))


def limit_memory(most: int) -> int:
    """Limit this process's private memory, and keep a reserve above that for saying that it is used up.

    Args:
        most: bytes; fewer where the hard limit, which nobody here may raise, leaves fewer.

    Returns how many it has become.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = most + MEMORY_RESERVE
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    memory = max(limit - MEMORY_RESERVE, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, limit))
    return memory


def leaks(world: dict[str, Any]) -> list[str]:
    """Try to get out, quickly; name what worked. Run in each kernel before it reports itself ready."""
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
            if os.readlink(f"/proc/self/ns/{name}") == host:  # noqa: PTH115 - a link that leads nowhere
                found.append(f"it shares the host's {name} namespace")
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        if int(status["CapEff"], 16) or int(status["CapPrm"], 16) or int(status["CapInh"], 16):
            found.append("it has capabilities")
        if status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
            found.append("its system calls are not filtered")
    return found
