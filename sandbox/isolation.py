"""How a kernel is kept apart from the host: the bubblewrap command line, and the environment.

As an ordinary user, bubblewrap makes a user namespace. As root it does not need one, and the program inside
changes to a user id of its own (`Isolation.uid`) before it loads anything: limits on processes do not bind root,
and an interpreter installed under a private home can only be mounted by root.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from sandbox.errors import KernelStartError, SandboxUnavailable
from sandbox.limits import Limits

Isolation = Literal["bubblewrap", "none"]

# Where things are inside. Short, and in nobody's way.
HOME = "/sandbox"
SOCKETS = "/run/kernel"
INSIDE = "/run/inside"

# Systemd's range for users that exist only while their service runs; below 65536, so that containers have it.
_FIRST_UID, _LAST_UID = 61184, 65519
_next_uid = random.randrange(_FIRST_UID, _LAST_UID)

NAMESPACES = ("mnt", "net", "pid", "ipc", "uts")
INSIDE_LIMITS = (
    "memory_bytes",
    "processes",
    "disk_bytes",
    "open_files",
    "output_chars",
    "printed_chars",
)

inside = Path(__file__).with_name("inside")


def own_uid() -> int | None:
    """A user id for one kernel where this process is root; None where it is not."""
    global _next_uid
    if os.geteuid() != 0:
        return None
    _next_uid = _next_uid + 1 if _next_uid < _LAST_UID else _FIRST_UID
    return _next_uid


def environment(home: str) -> dict[str, str]:
    """All of the environment that a kernel gets; nothing of the host's."""
    threads = ("OPENBLAS", "OMP", "MKL", "NUMEXPR")
    paths = os.pathsep.join(str(path) for path in _libraries() if not path.is_relative_to(sys.prefix))
    return {
        "HOME": home,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": "/tmp",
        "IPYTHONDIR": f"{home}/.ipython",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{home}/.matplotlib",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": paths,
        **{f"{name}_NUM_THREADS": "1" for name in threads},
    }


def namespaces() -> dict[str, str]:
    """The host's namespaces, for a kernel to compare its own with."""
    return {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in NAMESPACES}


def python_command(folder: str) -> list[str]:
    """The interpreter on the program inside, without user site and without the program's folder on the path."""
    return [sys.executable, "-sP", f"{folder}/main.py"]


def bubblewrap_command(sockets: Path, limits: Limits, info: int) -> list[str]:
    """The whole command line of one isolated kernel.

    Args:
        sockets: the folder of the host in which the kernel binds its sockets.
        limits: the session's limits; the size of the writable file systems is taken from them.
        info: descriptor on which bubblewrap reports the process that is the namespace's first.

    Raises KernelStartError without bubblewrap, SandboxUnavailable where Python shares its folder with a home.
    """
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise KernelStartError("bwrap is not on the path")
    writable = ["--size", str(limits.disk_bytes), "--perms", "1777", "--tmpfs"]
    return [
        *(bubblewrap, "--die-with-parent", "--new-session", "--info-fd", str(info)),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *_user_arguments(),
        *("--hostname", "sandbox"),
        *_system_mounts(),
        *("--proc", "/proc", "--dev", "/dev", *writable, "/dev/shm", "--remount-ro", "/dev"),
        *(*writable, "/tmp", *writable, HOME),
        # After /tmp: an interpreter may live there, and these would be hidden behind it.
        *_interpreter_mounts(),
        *("--bind", str(sockets), SOCKETS, "--ro-bind", str(inside), INSIDE),
        *("--remount-ro", "/", "--chdir", HOME, "--"),
        *python_command(INSIDE),
    ]


def _user_arguments() -> list[str]:
    if os.geteuid() == 0:
        # Root keeps all of its rights otherwise. The two are for the change of user, which loses them again.
        return ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return ["--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000"]


def _system_mounts() -> list[str]:
    mounts = ["--ro-bind", "/usr", "/usr"]
    for name in ("etc", "run"):
        mounts += ["--perms", "0755", "--dir", f"/{name}"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            mounts += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            mounts += ["--ro-bind", str(path), str(path)]
    for name in ("alternatives", "ld.so.cache", "localtime"):
        mounts += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return mounts


def _interpreter_mounts() -> list[str]:
    """The interpreter's own folders where the system does not have them, by the names Python uses for them."""
    named = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), *_libraries()]
    mounts: list[str] = []
    bound = [Path("/usr")]

    def make_way(path: Path) -> None:
        # Bubblewrap would make the folders on the way readable by root alone.
        for parent in reversed(path.parents[:-1]):
            if not any(parent.is_relative_to(other) for other in bound):
                mounts.extend(["--perms", "0755", "--dir", str(parent)])

    for path in sorted({*named, *(path.resolve() for path in named)}):
        if not path.is_dir() or any(path.is_relative_to(parent) for parent in bound):
            continue
        if Path.home().is_relative_to(path):
            raise SandboxUnavailable(f"Python is installed in {path}, which also holds a home: use a venv")
        make_way(path)
        bound.append(path)
        mounts += ["--ro-bind", str(path), str(path)]
    # The interpreter of a virtual environment may be a link to a link.
    link = Path(sys.executable)
    while link.is_symlink():
        if not any(link.is_relative_to(parent) for parent in bound):
            make_way(link)
            mounts += ["--symlink", str(link.readlink()), str(link)]
        link = link.parent / link.readlink()
    return mounts


@cache
def _libraries() -> list[Path]:
    """The folders of installed packages on the path (not projects installed in editable mode)."""
    return [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
