"""What a kernel sees instead of the host: its root file system and environment, and how they are set up.

Tiers, strongest first: 1, bubblewrap builds the root; 2, the program inside does (`sandbox.inside.root`); 3, no
separate root, but Landlock and a seccomp filter; 0, no isolation. In tiers 1 and 2 each kernel then creates its own
namespaces (`sandbox.inside.enter`).

An ordinary user gets the right to do so from a user namespace. Root does not need one; there, each kernel changes to
its own user id, because process limits do not apply to root. Only root can mount an interpreter that is installed under
a private home.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from sandbox import interpreter, users
from sandbox.errors import SandboxUnavailable

Tier = Literal[0, 1, 2, 3]
NAMES: dict[Tier, str] = {
    0: "none",
    1: "bubblewrap (tier 1)",
    2: "namespaces (tier 2)",
    3: "Landlock and seccomp (tier 3)",
}
"""The isolation between the code and the host, by tier."""

# Paths inside the sandbox, in tiers 1 and 2. Short, and in no other program's way.
HOME = "/sandbox"
INSIDE = "/run/sandbox_inside"
WRITABLE = (HOME, "/tmp", "/dev/shm")
_PYTHON = "/run/python"
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ALSO = ("/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime")

NAMESPACES = ("mnt", "net", "pid", "ipc", "uts")

inside = Path(__file__).with_name("inside")

Mount = tuple[Literal["bind", "folder", "link", "memory", "cover"], str, str]
"""Kind, source (for a link: its text), target. A cover is an empty folder that hides what lies below it."""


def environment(home: str) -> dict[str, str]:
    """The complete environment of a kernel; nothing is taken from the host's."""
    threads = ("OPENBLAS", "OMP", "MKL", "NUMEXPR")
    prefix = interpreter.plain(sys.prefix)
    paths = ":".join(str(path) for path in interpreter.libraries() if not path.is_relative_to(prefix))
    shared = ":".join(map(str, interpreter.shared_libraries()))
    return {
        "HOME": home,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "PATH": f"{interpreter.executable().parent}:/usr/local/bin:/usr/bin:/bin",  # `!python` is this one
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": "/tmp" if home == HOME else home,
        "IPYTHONDIR": f"{home}/.ipython",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{home}/.matplotlib",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # so that sets of strings print in the same order in all kernels
        "PYTHONPATH": paths,
        "PIP_RETRIES": "0",  # there is no network
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **({"LD_LIBRARY_PATH": shared} if shared else {}),
        **{f"{name}_NUM_THREADS": "1" for name in threads},
    }


def namespaces() -> dict[str, str]:
    """The host's namespaces, for kernels to compare with their own."""
    return {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in NAMESPACES}


def python_command(folder: str) -> list[str]:
    """The command that starts the program inside, without user site and without the program's folder on the path.

    Args:
        folder: location of the package `sandbox.inside`, which is imported as a top-level package.
    """
    parent, name = os.path.split(folder)
    program = f"import sys; sys.path.insert(0, {parent!r}); from {name}.start import main; sys.path.pop(0); main()"
    return [str(interpreter.executable()), "-sP", "-c", program]


def names(changes_users: bool, uid: int) -> dict[str, str]:
    """Content of the files in /etc, by name: users, groups and hosts. Nothing is taken from the host.

    Args:
        changes_users: whether each kernel has its own user id.
        uid: the user id of this process.
    """
    uids = range(users.FIRST, users.LAST + 1) if changes_users else sorted({1000, uid} - {0})
    return {
        "passwd": "root:x:0:0:root:/:\n" + "".join(f"sandbox:x:{uid}:{uid}::{HOME}:/bin/sh\n" for uid in uids),
        "group": "root:x:0:\n" + "".join(f"sandbox:x:{uid}:\n" for uid in uids),
        "hosts": "127.0.0.1 localhost sandbox\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def bubblewrap_command(etc: Path) -> list[str]:
    """The command line that starts a zygote in its own root file system.

    Args:
        etc: a folder with the files to show in /etc.

    Raises SandboxUnavailable if bubblewrap is missing, or if Python is installed in a folder that contains a home.
    """
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise SandboxUnavailable("bwrap is not on PATH")
    # With another uid, bubblewrap would make two user namespaces, of which only the outer one has rights over the
    # processes. Each kernel gets a uid other than 0 through its own user namespace.
    user = [] if users.changes_users() else ["--unshare-user", "--uid", "0", "--gid", "0"]
    # The zygote needs these to create the kernels' namespaces; kernels drop them all.
    kept = ["SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "NET_ADMIN", "KILL"]
    if user:
        kept.append("SETFCAP")  # without it, Linux lets no user namespace map this one's user 0
    options = {"bind": "--ro-bind", "link": "--symlink"}
    arguments: list[str] = []
    for kind, source, target in mounts(etc):
        if kind == "memory":
            arguments += ["--perms", "1777", "--tmpfs", target]
        elif kind == "folder":
            arguments += ["--perms", "0755", "--dir", target]
        elif kind == "cover":
            arguments += ["--perms", "0755", "--tmpfs", target]
        else:
            arguments += [options[kind], source, target]
    return [
        *(bubblewrap, "--die-with-parent", "--new-session"),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *user,
        *("--cap-drop", "ALL", *(word for name in kept for word in ("--cap-add", f"CAP_{name}"))),
        *("--hostname", "sandbox", "--proc", "/proc", "--dev", "/dev"),
        *("--dev-bind", "/dev/full", "/dev/zero"),  # see `sandbox.inside.root`
        *arguments,
        *(word for path in _covers() for word in ("--remount-ro", str(path))),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"),
        *python_command(INSIDE),
    ]


def mounts(etc: Path) -> list[Mount]:
    """The mounts of the root file system besides /proc and /dev, in the order in which they are made.

    Args:
        etc: a folder with the files to show in /etc.

    Raises SandboxUnavailable if Python is installed in a folder that contains a home.
    """
    found: list[Mount] = [("folder", "", f"/{name}") for name in ("etc", "run")]
    for path in _system():
        found.append(("link", str(path.readlink()), str(path)) if path.is_symlink() else ("bind", str(path), str(path)))
    found += [("bind", path, path) for path in _ALSO if Path(path).exists()]
    found += [("bind", str(path), f"/etc/{path.name}") for path in sorted(etc.iterdir())]
    found += [("memory", "", path) for path in WRITABLE]
    # After /tmp, which would otherwise hide an interpreter installed there.
    found += _interpreter_mounts()
    found.append(("bind", str(inside), INSIDE))
    for place, hidden in hidden_python():
        found += [("folder", "", _PYTHON), ("bind", hidden, place)]
    return found


def hidden_python() -> list[tuple[str, str]]:
    """Parts of the interpreter in writable folders, each with a second place from which it is mounted again."""
    hidden = [path for kind, _, path in _interpreter_mounts() if kind == "bind" and path.startswith(_below(WRITABLE))]
    return [(f"{_PYTHON}/{number}", path) for number, path in enumerate(hidden)]


def _below(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{path}/" for path in paths)


def readable() -> list[str]:
    """The paths that a kernel without its own root may read: the same files, at their place on the host."""
    shown = [*_system(), *(Path(path) for kind, _, path in _interpreter_mounts() if kind == "bind")]
    return [str(path) for root in shown for path in _without(root, _covers())] + list(_ALSO)


def _without(folder: Path, covered: list[Path]) -> list[Path]:
    """The folder, or the largest parts of it that contain no covered folder."""
    if not any(path.is_relative_to(folder) for path in covered):
        return [folder]
    if folder in covered:
        return []
    return [part for entry in sorted(folder.iterdir()) for part in _without(entry, covered)]


def shows(path: Path) -> bool:
    """Whether kernels can see a folder of the host, or one that contains it."""
    path = path.resolve()
    return any(path.is_relative_to(shown.resolve()) for shown in (*_system(), *interpreter.files()))


def hides(path: Path) -> bool:
    """Whether a path of the host, with everything in it, is invisible to kernels."""
    path = path.resolve()
    places = {shown.resolve(): True for shown in (*_system(), *interpreter.files())} | dict.fromkeys(_covers(), False)
    around = [place for place in places if path.is_relative_to(place)]
    if around and places[max(around, key=lambda place: len(place.parts))]:
        return False
    return not any(shown and place.is_relative_to(path) for place, shown in places.items())


def home() -> Path | None:
    """This user's home; None if there is none of its own: for services and in containers it may be "/"."""
    try:
        path = Path.home().resolve()
    except RuntimeError:  # neither in HOME nor in the user database
        return None
    return path if path.is_dir() and path != Path("/") else None


def hidden_from_others() -> str | None:
    """A folder of the interpreter that only root can reach; None if there is none, or kernels keep our user id.

    Without their own root (tiers 0 and 3), kernels that run as other users need access to all of these folders.
    """
    if not users.changes_users():
        return None
    for folder in {path.resolve() for path in (*interpreter.files(), inside)}:
        for path in (folder, *folder.parents):
            if path.is_dir() and not path.stat().st_mode & stat.S_IXOTH:
                return str(path)
    return None


@cache
def _system() -> list[Path]:
    """The folders with the system's programs and libraries, and links to such folders."""
    return [path for name in _SYSTEM if (path := Path("/", name)).is_dir()]


@cache
def _covers() -> list[Path]:
    """Folders within the visible files that kernels do not need and that are hidden from them, outermost first.

    These are sources, as in /usr/src/app of a container; this checkout, if it is one; and this user's home.
    """
    checkout, user = Path(__file__).resolve().parents[1], home()
    places = {Path("/usr/src"), checkout}
    if user is not None and not any(path.is_relative_to(user) for path in interpreter.files()):
        places.add(user)
    found: list[Path] = []
    for place in sorted(places.difference(_system(), interpreter.files())):
        if place.is_dir() and shows(place) and not any(place.is_relative_to(other) for other in found):
            found.append(place)
    return found


@cache
def _interpreter_mounts() -> list[Mount]:
    """Mounts of interpreter files outside the system's folders, and of the covers, outer ones first."""
    user, covered = home(), _covers()
    placed: list[tuple[Path, bool]] = [(path, True) for path in _system() if not path.is_symlink()]
    found: list[Mount] = []

    def is_shown(path: Path) -> bool:
        around = [(place, shown) for place, shown in placed if path.is_relative_to(place)]
        return max(around, key=lambda pair: len(pair[0].parts))[1] if around else False

    def make_way(path: Path) -> None:
        # Bubblewrap would make the parent folders readable by root only.
        way: list[Mount] = [("folder", "", str(parent)) for parent in reversed(path.parents[:-1])]
        found.extend(step for step in way if step not in found and not is_shown(Path(step[2])))

    for path in sorted({*interpreter.files(), *covered}):
        if path in covered:
            if is_shown(path):
                placed.append((path, False))
                found.append(("cover", "", str(path)))
        elif not is_shown(path):
            if user is not None and user.is_relative_to(path.resolve()):
                raise SandboxUnavailable(f"Python is installed in {path}, which also holds the home {user}: use a venv")
            make_way(path)
            placed.append((path, True))
            found.append(("bind", str(path), str(path)))
    for link in interpreter.links():
        if not is_shown(link):
            make_way(link)
            found.append(("link", str(link.readlink()), str(link)))
    return found
