"""Tier 2, the equivalent of bubblewrap: new namespaces, and a root file system with only what Python needs."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path
from typing import Any

from . import system

_SAFE = system.MS_NOSUID | system.MS_NODEV
# /dev/full stands in for /dev/zero: it reads the same, but cannot be mapped as memory that counts for no process.
_DEVICES = {"null": "null", "zero": "full", "full": "full", "random": "random", "urandom": "urandom", "tty": "tty"}
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_KEPT = (
    *(system.CAP_SYS_ADMIN, system.CAP_SETUID, system.CAP_SETGID, system.CAP_SETPCAP, system.CAP_NET_ADMIN),
    system.CAP_KILL,  # to kill kernels that run as other users
)


def change(control: socket.socket, world: dict[str, Any]) -> None:
    """Return in a child process, the first of a new pid namespace, that sees nothing of the host.

    The calling process waits for the child; when either ends, so does the other.
    """
    uid, gid, changes_users = os.geteuid(), os.getegid(), world["changes_users"]
    kinds = system.CLONE_NEWNS | system.CLONE_NEWPID | system.CLONE_NEWNET | system.CLONE_NEWIPC | system.CLONE_NEWUTS
    system.unshare(kinds if changes_users else kinds | system.CLONE_NEWUSER)
    if not changes_users:
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path(f"/proc/self/{name}").write_text(line)
    born_read, born_write = os.pipe()
    alive_read, alive_write = os.pipe()
    child = os.fork()
    if child:
        control.close()
        os.close(born_write)
        os.read(born_read, 1)
        os.write(alive_write, b"1")
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    system.prctl(system.PR_SET_PDEATHSIG, 9)
    os.close(alive_write)
    os.write(born_write, b"1")
    if not os.read(alive_read, 1):  # the parent died before PDEATHSIG was set
        os._exit(1)
    for descriptor in (born_read, born_write, alive_read):
        os.close(descriptor)
    os.setsid()
    socket.sethostname("sandbox")
    if hasattr(platform, "_uname_cache"):  # may hold the host's name
        platform._uname_cache = None
    system.loopback_up()
    _build(world)
    system.pivot_root(world["new_root"])
    system.mount("none", "/", None, system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | _SAFE)
    if changes_users:
        system.empty_bounding_set(keep=_KEPT)
    # Without SETFCAP, Linux lets no user namespace map user 0, which root of a namespace with one id is.
    system.keep_capabilities(_KEPT if uid != 0 or changes_users else (*_KEPT, system.CAP_SETFCAP))
    system.no_new_privileges()


def _build(world: dict[str, Any]) -> None:
    """Build the new root on a folder that contains nothing that is shown in it."""
    base = world["new_root"]
    os.umask(0o022)
    system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    system.mount("tmpfs", base, "tmpfs", _SAFE, "mode=755")
    for folder in ("/proc", "/dev", "/dev/pts"):
        Path(base + folder).mkdir()
    system.mount("proc", f"{base}/proc", "proc", _SAFE | system.MS_NOEXEC)
    for name, device in _DEVICES.items():
        Path(f"{base}/dev/{name}").touch()
        system.bind(f"/dev/{device}", f"{base}/dev/{name}", read_only=False, devices=True)
    for name, text in _LINKS.items():
        Path(f"{base}/dev/{name}").symlink_to(text)
    covers = []
    for kind, source, target in world["mounts"]:
        path = Path(base + target)
        if kind == "link":
            path.symlink_to(source)
        elif kind == "folder":
            path.mkdir(exist_ok=True)
        elif kind == "memory":
            path.mkdir(exist_ok=True)
            system.mount("tmpfs", str(path), "tmpfs", _SAFE, "mode=1777")
        elif kind == "cover":
            system.mount("tmpfs", str(path), "tmpfs", _SAFE, "mode=755")
            covers.append(str(path))
        elif Path(source).is_dir():
            path.mkdir(parents=True, exist_ok=True)
            system.bind(source, str(path))
        else:
            path.touch()
            system.bind(source, str(path))
    for cover in covers:  # read-only only now, after the mounts inside them were made
        system.mount("none", cover, None, system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | _SAFE)
