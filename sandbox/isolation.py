"""What a kernel sees instead of the host: the files of its root, its environment, and the ways to make that so.

Tiers, from the strongest: 1, bubblewrap builds the root; 2, the program inside does (`sandbox.inside.root`); 3, no
root of its own, but Landlock and a filter of system calls; 0, nothing at all. In tiers 1 and 2 each kernel then makes
namespaces of its own (`sandbox.inside.enter`).

As an ordinary user, a user namespace gives the right to do so. Root needs none, and each kernel changes to a user id of
its own: limits on processes do not bind root, and an interpreter installed under a private home can only be mounted by
root.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from sandbox.errors import SandboxUnavailable

Tier = Literal[0, 1, 2, 3]
NAMES: dict[Tier, str] = {
    0: "none",
    1: "bubblewrap (tier 1)",
    2: "namespaces (tier 2)",
    3: "Landlock and seccomp (tier 3)",
}
"""By tier, what stands between the code and the host."""

# Where things are inside, in tiers 1 and 2. Short, and in nobody's way.
HOME = "/sandbox"
INSIDE = "/run/sandbox_inside"
WRITABLE = (HOME, "/tmp", "/dev/shm")
_PYTHON = "/run/python"

# Systemd's range for users that exist only while their service runs; below 65536, so that containers have it.
_FIRST_UID, _LAST_UID = 61184, 65519
_next_uid = random.randrange(_FIRST_UID, _LAST_UID)

NAMESPACES = ("mnt", "net", "pid", "ipc", "uts")

inside = Path(__file__).with_name("inside")

Mount = tuple[Literal["bind", "folder", "link", "memory"], str, str]
"""Kind, source (of a link: its text), target."""


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
        "TMPDIR": "/tmp" if home == HOME else home,
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
    """The interpreter on the program inside, without user site and without the program's folder on the path.

    Args:
        folder: where the package `sandbox.inside` is, as a package of its own.
    """
    parent, name = os.path.split(folder)
    program = f"import sys; sys.path.insert(0, {parent!r}); from {name}.start import main; sys.path.pop(0); main()"
    return [sys.executable, "-sP", "-c", program]


def bubblewrap_command() -> list[str]:
    """The whole command line of a zygote in a root of its own.

    Raises SandboxUnavailable without bubblewrap, or where Python shares its folder with a home.
    """
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise SandboxUnavailable("bwrap is not on the path")
    # With another number, bubblewrap would make two user namespaces, of which only the outer one has rights over the
    # processes. Each kernel gets a number other than 0 with a user namespace of its own.
    user = [] if os.geteuid() == 0 else ["--unshare-user", "--uid", "0", "--gid", "0"]
    # With these the zygote makes the kernels' namespaces; they lose them all.
    kept = ["SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "NET_ADMIN"]
    if user:
        kept.append("SETFCAP")  # without it, Linux lets no user namespace have a name for this one's user 0
    options = {"bind": "--ro-bind", "link": "--symlink"}
    arguments: list[str] = []
    for kind, source, target in mounts():
        if kind == "memory":
            arguments += ["--perms", "1777", "--tmpfs", target]
        elif kind == "folder":
            arguments += ["--perms", "0755", "--dir", target]
        else:
            arguments += [options[kind], source, target]
    return [
        *(bubblewrap, "--die-with-parent", "--new-session"),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *user,
        *("--cap-drop", "ALL", *(word for name in kept for word in ("--cap-add", f"CAP_{name}"))),
        *("--hostname", "sandbox", "--proc", "/proc", "--dev", "/dev"),
        *arguments,
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"),
        *python_command(INSIDE),
    ]


def mounts() -> list[Mount]:
    """What the root is made of, besides /proc and /dev, in the order of making.

    Raises SandboxUnavailable where Python shares its folder with a home.
    """
    found: list[Mount] = [("folder", "", f"/{name}") for name in ("etc", "run")]
    found.append(("bind", "/usr", "/usr"))
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            found.append(("link", str(path.readlink()), str(path)))
        elif path.is_dir():
            found.append(("bind", str(path), str(path)))
    for name in ("alternatives", "ld.so.cache", "localtime"):
        if Path("/etc", name).exists():
            found.append(("bind", f"/etc/{name}", f"/etc/{name}"))
    found += [("memory", "", path) for path in WRITABLE]
    # After /tmp: an interpreter may live there, and these would be hidden behind it.
    found += _interpreter_mounts()
    found.append(("bind", str(inside), INSIDE))
    for place, hidden in hidden_python():
        found += [("folder", "", _PYTHON), ("bind", hidden, place)]
    return found


def hidden_python() -> list[tuple[str, str]]:
    """The interpreter's folders that lie where code may write, each with a second place from where to show it again."""
    hidden = [path for kind, _, path in _interpreter_mounts() if kind == "bind" and path.startswith(_below(WRITABLE))]
    return [(f"{_PYTHON}/{number}", path) for number, path in enumerate(hidden)]


def _below(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{path}/" for path in paths)


def readable() -> list[str]:
    """What a kernel without a root of its own may read: the same, where it is."""
    system = [str(Path("/", name)) for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")]
    own = [path for kind, _, path in _interpreter_mounts() if kind == "bind"]
    return [*system, *own, "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"]


def hidden_from_others() -> str | None:
    """A folder of the interpreter that only root can reach; None where all users can, or this process is not root.

    Without a root of their own (tiers 0 and 3) the kernels of root, which run as other users, need all of them.
    """
    if os.geteuid() != 0:
        return None
    for folder in {Path(entry).resolve() for entry in (sys.prefix, sys.base_prefix, inside) if entry}:
        for path in (folder, *folder.parents):
            if not path.stat().st_mode & stat.S_IXOTH:
                return str(path)
    return None


@cache
def _interpreter_mounts() -> list[Mount]:
    """The interpreter's own folders where the system does not have them, by the names Python uses for them."""
    named = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), *_libraries()]
    found: list[Mount] = []
    bound = [Path("/usr")]

    def make_way(path: Path) -> None:
        # Bubblewrap would make the folders on the way readable by root alone.
        for parent in reversed(path.parents[:-1]):
            if not any(parent.is_relative_to(other) for other in bound):
                found.append(("folder", "", str(parent)))

    for path in sorted({*named, *(path.resolve() for path in named)}):
        if not path.is_dir() or any(path.is_relative_to(parent) for parent in bound):
            continue
        if Path.home().is_relative_to(path):
            raise SandboxUnavailable(f"Python is installed in {path}, which also holds a home: use a venv")
        make_way(path)
        bound.append(path)
        found.append(("bind", str(path), str(path)))
    # The interpreter of a virtual environment may be a link to a link.
    link = Path(sys.executable)
    while link.is_symlink():
        if not any(link.is_relative_to(parent) for parent in bound):
            make_way(link)
            found.append(("link", str(link.readlink()), str(link)))
        link = link.parent / link.readlink()
    return found


@cache
def _libraries() -> list[Path]:
    """The folders of installed packages on the path (not projects installed in editable mode)."""
    return [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
