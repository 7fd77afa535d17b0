"""The sandbox's private folder on the host."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sandbox import guardian, interpreter, isolation
from sandbox.errors import SandboxUnavailable

CANARY = "canary"
"""A file in each sandbox's folder, made for kernels to find that they cannot read it. All users may, where it is."""

_PREFIX = "kernels-"  # of folders with a lock: whoever has no lock on one may be taken for dead
_UNNAMED_SECONDS = 3_600  # how old a folder without a lock or its final name has to be to have been forgotten
_PARENTS = ("/tmp", "/var/tmp", "/dev/shm")  # of the folder, where the one for temporary files will not do
_UNIX_PATH_BYTES = 107  # sun_path of a socket's address, less its final zero; see unix(7)


_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Held:
    """A folder, and the lock that says that its owner lives."""

    path: Path
    descriptor: int

    def remove(self) -> None:
        """Remove the folder and all in it."""
        if not guardian.clear(self.path):
            _log.warning("The folder %s could not be removed altogether.", self.path)
        os.close(self.descriptor)


def make(mode: int = 0o711) -> Held:
    """A new folder of this user's that no kernel sees, and whose path leaves room for the names of sockets.

    Removes those of others of this user who were killed before they could.

    Args:
        mode: for others; kernels without a root of their own have to get through to their folders. Nobody may list it.

    Raises:
        SandboxUnavailable: no folder for temporary files will do.
    """
    made = path = _made()
    descriptor = None
    try:
        descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # It has its name only once it is locked, or another who cleans up would take it for an orphan.
        path = made.with_name(made.name[1:])
        made.rename(path)
        path.chmod(mode)
        (path / CANARY).touch()
        (path / CANARY).chmod(0o644)
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        for place in (made, path):
            guardian.clear(place)
        raise SandboxUnavailable(f"The sandbox's folder {path} cannot be made: {error.strerror}.") from error
    return Held(path, descriptor)


def _made() -> Path:
    reasons = []
    for parent in dict.fromkeys((_temporary(), *map(Path, _PARENTS))):
        if parent is None:
            reasons.append("no folder for temporary files can be written to")
        elif len(os.fsencode(parent)) >= _UNIX_PATH_BYTES - len("/kernels-12345678/channel-1"):
            reasons.append(f"the name of {parent} is too long")
        elif isolation.shows(parent):
            reasons.append(f"code can see {parent}")
        else:
            try:
                made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
            except OSError as error:
                reasons.append(f"{parent}: {error.strerror}")
            else:
                _remove_orphans(parent)
                return made
    raise SandboxUnavailable(f"The sandbox has no place for its files ({'; '.join(reasons)}): set TMPDIR to another.")


def _temporary() -> Path | None:
    try:
        return interpreter.plain(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def _remove_orphans(parent: Path) -> None:
    """Remove what sandboxes of this user have left who are dead. Raises nothing: they keep nobody from opening."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith((_PREFIX, f".{_PREFIX}"))]  # noqa: PTH208
    except OSError:
        return
    for name in names:
        try:
            _remove_orphan(parent / name)
        except Exception as error:  # whatever it is, it is not this sandbox's
            _log.warning("What is left of an earlier sandbox in %s cannot be removed: %s", parent / name, error)


def _remove_orphan(path: Path) -> None:
    # Gone, alive, a file or a link, or another user's.
    with contextlib.suppress(FileNotFoundError, BlockingIOError, NotADirectoryError, PermissionError):
        if path.name.startswith(".") and time.time() - path.lstat().st_mtime < _UNNAMED_SECONDS:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            # Of what was opened: another user may put something else there. Nobody else can replace a folder of ours.
            if os.fstat(descriptor).st_uid != os.geteuid():
                return
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not guardian.clear(path):
                _log.warning("What is left of an earlier sandbox in %s could not be removed altogether.", path)
        finally:
            os.close(descriptor)
