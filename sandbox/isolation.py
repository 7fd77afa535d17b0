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
"""By tier, what stands between the code and the host."""

# Where things are inside, in tiers 1 and 2. Short, and in nobody's way.
HOME = "/sandbox"
INSIDE = "/run/sandbox_inside"
WRITABLE = (HOME, "/tmp", "/dev/shm")
_PYTHON = "/run/python"
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ALSO = ("/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime")

NAMESPACES = ("mnt", "net", "pid", "ipc", "uts")

inside = Path(__file__).with_name("inside")

Mount = tuple[Literal["bind", "folder", "link", "memory", "cover"], str, str]
"""Kind, source (of a link: its text), target. A cover is an empty folder in front of what is not to be seen."""


def environment(home: str) -> dict[str, str]:
    """All of the environment that a kernel gets; nothing of the host's."""
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
        "PYTHONHASHSEED": "0",  # so that sets of texts print alike in all kernels
        "PYTHONPATH": paths,
        "PIP_RETRIES": "0",  # there is no network to wait for
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **({"LD_LIBRARY_PATH": shared} if shared else {}),
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
    return [str(interpreter.executable()), "-sP", "-c", program]


def names(changes_users: bool, uid: int) -> dict[str, str]:
    """Files of /etc, by name: who there is, and what `localhost` is. Nothing of the host's.

    Args:
        changes_users: whether each kernel has a user id of its own.
        uid: this process's.
    """
    uids = range(users.FIRST, users.LAST + 1) if changes_users else sorted({1000, uid} - {0})
    return {
        "passwd": "root:x:0:0:root:/:\n" + "".join(f"sandbox:x:{uid}:{uid}::{HOME}:/bin/sh\n" for uid in uids),
        "group": "root:x:0:\n" + "".join(f"sandbox:x:{uid}:\n" for uid in uids),
        "hosts": "127.0.0.1 localhost sandbox\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def bubblewrap_command(etc: Path) -> list[str]:
    """The whole command line of a zygote in a root of its own.

    Args:
        etc: a folder with files that are to be in /etc.

    Raises SandboxUnavailable without bubblewrap, or where Python shares its folder with a home.
    """
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise SandboxUnavailable("bwrap is not on the path")
    # With another number, bubblewrap would make two user namespaces, of which only the outer one has rights over the
    # processes. Each kernel gets a number other than 0 with a user namespace of its own.
    user = [] if users.changes_users() else ["--unshare-user", "--uid", "0", "--gid", "0"]
    # With these the zygote makes the kernels' namespaces; they lose them all.
    kept = ["SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "NET_ADMIN", "KILL"]
    if user:
        kept.append("SETFCAP")  # without it, Linux lets no user namespace have a name for this one's user 0
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
    """What the root is made of, besides /proc and /dev, in the order of making.

    Args:
        etc: a folder with files that are to be in /etc.

    Raises SandboxUnavailable where Python shares its folder with a home.
    """
    found: list[Mount] = [("folder", "", f"/{name}") for name in ("etc", "run")]
    for path in _system():
        found.append(("link", str(path.readlink()), str(path)) if path.is_symlink() else ("bind", str(path), str(path)))
    found += [("bind", path, path) for path in _ALSO if Path(path).exists()]
    found += [("bind", str(path), f"/etc/{path.name}") for path in sorted(etc.iterdir())]
    found += [("memory", "", path) for path in WRITABLE]
    # After /tmp: an interpreter may live there, and these would be hidden behind it.
    found += _interpreter_mounts()
    found.append(("bind", str(inside), INSIDE))
    for place, hidden in hidden_python():
        found += [("folder", "", _PYTHON), ("bind", hidden, place)]
    return found


def hidden_python() -> list[tuple[str, str]]:
    """What of the interpreter lies where code may write, each with a second place from where to show it again."""
    hidden = [path for kind, _, path in _interpreter_mounts() if kind == "bind" and path.startswith(_below(WRITABLE))]
    return [(f"{_PYTHON}/{number}", path) for number, path in enumerate(hidden)]


def _below(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{path}/" for path in paths)


def readable() -> list[str]:
    """What a kernel without a root of its own may read: the same, where it is."""
    shown = [*_system(), *(Path(path) for kind, _, path in _interpreter_mounts() if kind == "bind")]
    return [str(path) for root in shown for path in _without(root, _covers())] + list(_ALSO)


def _without(folder: Path, covered: list[Path]) -> list[Path]:
    """The folder, or the largest parts of it in which nothing lies that is covered."""
    if not any(path.is_relative_to(folder) for path in covered):
        return [folder]
    if folder in covered:
        return []
    return [part for entry in sorted(folder.iterdir()) for part in _without(entry, covered)]


def shows(path: Path) -> bool:
    """Whether a kernel can see what of the host's is in a folder, or in one above it."""
    path = path.resolve()
    return any(path.is_relative_to(shown.resolve()) for shown in (*_system(), *interpreter.files()))


def hides(path: Path) -> bool:
    """Whether a kernel sees nothing of the host's there, neither that nor what lies in it."""
    path = path.resolve()
    places = {shown.resolve(): True for shown in (*_system(), *interpreter.files())} | dict.fromkeys(_covers(), False)
    around = [place for place in places if path.is_relative_to(place)]
    if around and places[max(around, key=lambda place: len(place.parts))]:
        return False
    return not any(shown and place.is_relative_to(path) for place, shown in places.items())


def home() -> Path | None:
    """This user's home. None where it is no folder of somebody's own: of services and in containers it may be "/"."""
    try:
        path = Path.home().resolve()
    except RuntimeError:  # neither HOME nor the list of users knows
        return None
    return path if path.is_dir() and path != Path("/") else None


def hidden_from_others() -> str | None:
    """A folder of the interpreter that only root can reach; None where all users can, or kernels are no other users.

    Without a root of their own (tiers 0 and 3) kernels that run as other users need all of them.
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
    """The folders, and links to such, in which the system has its programs and libraries."""
    return [path for name in _SYSTEM if (path := Path("/", name)).is_dir()]


@cache
def _covers() -> list[Path]:
    """Folders of the host's that lie in what a kernel is shown and that it does not need, outermost first.

    Those are sources, as in /usr/src/app of a container; this checkout, where it is one; and this user's home.
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
    """The interpreter's own files where the system does not have them, and the covers, outer ones first."""
    user, covered = home(), _covers()
    placed: list[tuple[Path, bool]] = [(path, True) for path in _system() if not path.is_symlink()]
    found: list[Mount] = []

    def is_shown(path: Path) -> bool:
        around = [(place, shown) for place, shown in placed if path.is_relative_to(place)]
        return max(around, key=lambda pair: len(pair[0].parts))[1] if around else False

    def make_way(path: Path) -> None:
        # Bubblewrap would make the folders on the way readable by root alone.
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
