"""A small process between the host and a zygote that cleans up when the host dies.

A zygote, and bubblewrap before it, asks Linux to be killed when its parent ends. But a parent that is killed in the few
milliseconds before that leaves a process behind: bubblewrap's child then waits forever. So their parent is this
process, which is not killed along with the host (it has its own session) and which inherits their orphans. It kills
them all when the host ends or asks for it, or when the zygote has ended; if the host was killed, it also removes the
sandbox's folder.

Runs as a standalone program with the standard library only, since there is one for each zygote.
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
"""The file in a sandbox's folder that lists, one per line, the parent cgroups of its kernels' cgroups."""

_REMOVE = "--remove"
_MOVED = "moved-"  # prefix of folders that were moved up for removal
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_NOT_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these in its own process


def command(host: int, stop: int, folder: Path, program: list[str]) -> list[str]:
    """The command line of a guardian.

    Args:
        host: descriptor of the host's process (a pidfd).
        stop: reading end of a pipe; the host writes to the other end, or closes it, to stop everything.
        folder: the folder of the sandbox, to be removed if the host has died.
        program: the command to run and to guard.
    """
    from sandbox import interpreter  # not at the top: run as a program, this file cannot import its package

    return [str(interpreter.executable()), "-ISB", __file__, str(host), str(stop), str(folder), *program]


def removal(folder: Path) -> list[str]:
    """The command line of a process that removes a folder at low priority."""
    from sandbox import interpreter

    return [str(interpreter.executable()), "-ISB", __file__, _REMOVE, str(folder)]


def clear(folder: Path) -> bool:
    """Remove a sandbox's folder and the cgroups listed in it, if no process is in them.

    Returns whether the folder is gone.
    """
    remove_groups(folder / GROUPS)
    return remove(folder)


def remove(folder: Path) -> bool:
    """Remove a folder with everything in it, at any depth and with any modes. Returns whether it is gone.

    Subfolders are moved to the top level before they are read: no recursion, no long paths, and at most four open
    descriptors. Links are not followed and other mounts not entered; what cannot be removed stays.
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
    """Make a folder accessible and open it; see open(2) for O_PATH. Raises OSError if it is on another mount."""
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
    """The mount id of a file. (The device would not do: a bind mount has that of its source.) See proc(5), fdinfo."""
    handle = os.open(f"/proc/self/fdinfo/{descriptor}", os.O_RDONLY)  # without Path, for speed: there may be many
    try:
        words = os.read(handle, 4096).split()
    finally:
        os.close(handle)
    return int(words[words.index(b"mnt_id:") + 1])


def _empty(name: str, top: int, mount: int) -> list[str]:
    """Remove an entry of the top-level folder. Returns the new top-level names of its subfolders."""
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
                os.close(_open(entry, inner, mount))  # makes it writable, which moving a folder needs
                new = f"{_MOVED}{secrets.token_hex(8)}"
                os.rename(entry, new, src_dir_fd=inner, dst_dir_fd=top)
                moved.append(new)
    finally:
        os.close(inner)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=top)
    return moved


def remove_groups(note: Path) -> None:
    """Remove the cgroups listed in a file, and the groups in them, if they exist and are empty."""
    with contextlib.suppress(OSError):
        for home in map(Path, note.read_text().splitlines()):
            with contextlib.suppress(OSError):
                for group in [entry for entry in home.iterdir() if entry.is_dir()]:
                    group.rmdir()
                home.rmdir()


def main() -> None:
    """Run the program and guard it, or remove a folder. Standard input is passed on to the zygote."""
    import ctypes

    if sys.argv[1] == _REMOVE:
        os.nice(19)
        remove(Path(sys.argv[2]))
        return
    host, stop = int(sys.argv[1]), int(sys.argv[2])
    folder, program = Path(sys.argv[3]), sys.argv[4:]
    for descriptor in (host, stop):
        os.set_inheritable(descriptor, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the host may have blocked SIGCHLD
    ended, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # From here on, orphans of our children become our children, not those of the system's init process.
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
    """Kill our children, and the orphans that they leave to us, until there are none."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    while True:
        # Zombies are listed as well: if any child is left, waitpid returns one of them soon.
        for child in map(int, children.read_text().split()):
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
