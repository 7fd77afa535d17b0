"""Between the host and a zygote: a small process that outlives the host, if only to leave nothing of it behind.

A zygote, and bubblewrap before it, asks Linux to be killed with its parent. But whoever dies before it has asked, or
while another waits to be told to ask, leaves somebody behind: bubblewrap's child waits for ever for a parent that was
killed in those few milliseconds. So their parent is this process, which nobody kills along with the host (it has a
session of its own), and which inherits whatever they leave. It ends them all when the host ends or says so, or when
the zygote has ended; and where the host was killed, it removes the sandbox's folder, too.

Run as a program on its own, with the standard library alone, since there is one for each zygote.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import signal
import stat
import sys
import threading
from collections import deque
from pathlib import Path

GROUPS = "groups"
"""The file in a sandbox's folder that names, one in a line, the cgroups in which it makes those of its kernels."""

_REMOVE = "--remove"
_MOVED = "moved-"  # how the names of folders begin that were moved to be removed
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_NOT_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # as Python does in itself


def command(host: int, stop: int, folder: Path, program: list[str]) -> list[str]:
    """The command line of a guardian.

    Args:
        host: descriptor of the host's process (a pidfd).
        stop: descriptor of a pipe's end; the host writes to the other end, or closes it, when all is to end.
        folder: the sandbox's, to be removed where the host has died.
        program: what to run and to guard.
    """
    from sandbox import interpreter  # not above: as a program, this file is without its package

    return [str(interpreter.executable()), "-ISB", __file__, str(host), str(stop), str(folder), *program]


def removal(folder: Path) -> list[str]:
    """The command line of a process that removes a folder, when nobody else needs the time."""
    from sandbox import interpreter

    return [str(interpreter.executable()), "-ISB", __file__, _REMOVE, str(folder)]


def clear(folder: Path) -> bool:
    """Remove a sandbox's folder, and the cgroups that it names, as far as no process is in them.

    Returns whether the folder is gone.
    """
    remove_groups(folder / GROUPS)
    return remove(folder)


def remove(folder: Path) -> bool:
    """Remove a folder with all that is in it, however deep, whatever its modes are. Returns whether it is gone.

    Folders are moved up to the topmost before they are looked into: so there is no recursion, no long path, and never
    more than four descriptors. No link is followed, no other mount entered; what cannot be removed is left.
    """
    try:
        top = _open(str(folder), None)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    with contextlib.suppress(OSError):
        mount = _mount(top)
        names = deque(os.listdir(top))  # noqa: PTH208 - of a descriptor
        while names:
            with contextlib.suppress(OSError):
                names += _empty(names.popleft(), top, mount)
    os.close(top)
    with contextlib.suppress(OSError):
        folder.rmdir()
        return True
    return False


def _open(name: str, parent: int | None, mount: int | None = None) -> int:
    """A folder, readable, after it was made so; see open(2) for O_PATH. Raises OSError if it is of another mount."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if mount is not None and _mount(place) != mount:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
        with contextlib.suppress(OSError):
            os.chmod(f"/proc/self/fd/{place}", 0o700)  # noqa: PTH101 - of a descriptor
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    finally:
        os.close(place)


def _mount(descriptor: int) -> int:
    """The number of the mount that a file is in: a bind mount has the device of what it shows. See proc(5), fdinfo."""
    handle = os.open(f"/proc/self/fdinfo/{descriptor}", os.O_RDONLY)  # by hand: there may be many folders
    try:
        words = os.read(handle, 4096).split()
    finally:
        os.close(handle)
    return int(words[words.index(b"mnt_id:") + 1])


def _empty(name: str, top: int, mount: int) -> list[str]:
    """Remove an entry of the topmost folder. Returns the names that folders in it have there now."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=top)
        return []
    moved: list[str] = []
    inner = _open(name, top, mount)
    try:
        with os.scandir(inner) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry, is_folder in found:
            with contextlib.suppress(OSError):
                if not is_folder:
                    os.unlink(entry, dir_fd=inner)
                    continue
                os.close(_open(entry, inner, mount))  # a folder can only be moved by who may write to it
                new = f"{_MOVED}{secrets.token_hex(8)}"
                os.rename(entry, new, src_dir_fd=inner, dst_dir_fd=top)
                moved.append(new)
    finally:
        os.close(inner)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=top)
    return moved


def remove_groups(note: Path) -> None:
    """Remove the cgroups that a file names, and those in them, as far as there are any and they are empty."""
    with contextlib.suppress(OSError):
        for home in map(Path, note.read_text().splitlines()):
            with contextlib.suppress(OSError):
                for group in [entry for entry in home.iterdir() if entry.is_dir()]:
                    group.rmdir()
                home.rmdir()


def main() -> None:
    """Run the program and guard it, or remove a folder. Standard input is the zygote's, for it alone."""
    import ctypes

    if sys.argv[1] == _REMOVE:
        os.nice(19)
        remove(Path(sys.argv[2]))
        return
    host, stop = int(sys.argv[1]), int(sys.argv[2])
    folder, program = Path(sys.argv[3]), sys.argv[4:]
    for descriptor in (host, stop):
        os.set_inheritable(descriptor, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the host may have blocked what wakes this
    ended, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # From here on the orphans of our children are ours, and not those of the system's first process.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    zygote = os.pidfd_open(os.posix_spawn(program[0], program, os.environ, setsigdef=_NOT_IGNORED))
    os.close(0)
    watched = select.poll()
    for descriptor in (host, stop, zygote, ended):
        watched.register(descriptor, select.POLLIN)
    while {descriptor for descriptor, _ in watched.poll()} == {ended}:
        os.read(ended, 4096)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    _end_all()
    if select.select([host], [], [], 0)[0]:
        clear(folder)


def _end_all() -> None:
    """Kill our children, and those whom they leave to us, until there are none."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    while True:
        # One that waits to be waited for is named as well. So there is one dying, or there is none at all.
        for child in map(int, children.read_text().split()):
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
