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
"""A file in each sandbox's folder that kernels try to read and must not be able to. All users of the host may."""

_PREFIX = "kernels-"  # of folders whose owner holds a lock; without a lock, the owner is dead
_UNNAMED_SECONDS = 3_600  # age from which a folder without its final name counts as abandoned
_PARENTS = ("/tmp", "/var/tmp", "/dev/shm")  # of the folder, if the folder for temporary files cannot be used
_UNIX_PATH_BYTES = 107  # sun_path of a socket's address, minus the final zero; see unix(7)


_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Held:
    """A folder, and the lock that shows that its owner is alive."""

    path: Path
    descriptor: int

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        if not guardian.clear(self.path):
            _log.warning("The folder %s could not be removed completely.", self.path)
        os.close(self.descriptor)


def make(mode: int = 0o711) -> Held:
    """Make a folder that no kernel sees, with a path short enough for the names of sockets.

    Also removes folders left by killed processes of this user.

    Args:
        mode: permissions; kernels without their own root need to traverse the folder, but nobody may list it.

    Raises:
        SandboxUnavailable: no folder for temporary files can be used.
    """
    made = path = _made()
    descriptor = None
    try:
        descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # It gets its final name only once it is locked: another process that cleans up would take it for an orphan.
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
        raise SandboxUnavailable(f"The sandbox's folder {path} cannot be created: {error.strerror}.") from error
    return Held(path, descriptor)


def _made() -> Path:
    reasons = []
    for parent in dict.fromkeys((_temporary(), *map(Path, _PARENTS))):
        if parent is None:
            reasons.append("no folder for temporary files is writable")
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
    raise SandboxUnavailable(f"No folder for the sandbox's files can be used ({'; '.join(reasons)}): set TMPDIR.")


def _temporary() -> Path | None:
    try:
        return interpreter.plain(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def _remove_orphans(parent: Path) -> None:
    """Remove the folders of dead sandboxes of this user. Raises nothing: leftovers must not keep a sandbox closed."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith((_PREFIX, f".{_PREFIX}"))]  # noqa: PTH208
    except OSError:
        return
    for name in names:
        try:
            _remove_orphan(parent / name)
        except Exception as error:  # not a problem of this sandbox
            _log.warning("The folder %s of an earlier sandbox cannot be removed: %s", parent / name, error)


def _remove_orphan(path: Path) -> None:
    # The folder may be gone, in use, a file or a link, or another user's.
    with contextlib.suppress(FileNotFoundError, BlockingIOError, NotADirectoryError, PermissionError):
        if path.name.startswith(".") and time.time() - path.lstat().st_mtime < _UNNAMED_SECONDS:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            # Check the opened folder, not the path: another user may have replaced it. A folder of ours stays.
            if os.fstat(descriptor).st_uid != os.geteuid():
                return
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not guardian.clear(path):
                _log.warning("The folder %s of an earlier sandbox could not be removed completely.", path)
        finally:
            os.close(descriptor)
