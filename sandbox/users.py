"""The users that kernels run as, where the host is root: each kernel is one that no other on this machine is.

Two kernels of one user would be counted together by RLIMIT_NPROC, and could signal each other where no namespaces part
them. So there is a lock for each user id, on one byte of a file that root alone can open. These are the record locks of
fcntl(2): they belong to a process, which does not share them with those that it forks, and end with it, however it
ends. (They also end if it closes the file.)

Not parted by this are containers that have their user ids in common and files of their own.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import threading
from functools import cache
from pathlib import Path

from sandbox.errors import HostFull

# Systemd's range for users that exist only while their service runs; below 65536, so that containers have it.
FIRST, LAST = 61184, 65519

_PLACES = ("/run", "/tmp", "/var/tmp", "/dev/shm")  # of the file; the first is root's, in the others anyone may write


@cache
def changes_users() -> bool:
    """Whether this is root and can make each kernel another user.

    Root of a user namespace may have no ids but its own (``unshare -r``, fakeroot, some containers): it then goes the
    ordinary user's way, which it is outside.
    """
    if os.geteuid() != 0 or Path("/proc/self/setgroups").read_text().strip() == "deny":
        return False
    return all(_has_our_ids(Path(f"/proc/self/{kind}_map").read_text()) for kind in ("uid", "gid"))


def _has_our_ids(ids: str) -> bool:
    """Whether a map of user ids, see user_namespaces(7), has all those that kernels get."""
    ranges = [(int(first), int(first) + int(count)) for first, _, count in map(str.split, ids.splitlines())]
    return any(first <= FIRST <= LAST < end for first, end in ranges)


class _Claims:
    """What this process has claimed. The file with the locks is open while there is anything."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self._held: set[int] = set()
        self._file: int | None = None
        # None is used again soon: kernels of a host that was killed end a moment later.
        self._next = _anywhere()

    def claim(self) -> int:
        if self._file is None:
            self._file = _open()
        for _ in range(FIRST, LAST + 1):
            uid = self._next
            self._next = uid + 1 if uid < LAST else FIRST
            if uid in self._held:  # which the lock of this very process would not say
                continue
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, uid)
            except BlockingIOError:
                continue
            self._held.add(uid)
            return uid
        self._rest()
        raise HostFull(f"all {LAST + 1 - FIRST:,} user ids of kernels ({FIRST} to {LAST}) are in use on this machine")

    def release(self, uid: int) -> None:
        if self._file is not None and uid in self._held:
            self._held.remove(uid)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, uid)
            self._rest()

    def _rest(self) -> None:
        if self._file is not None and not self._held:
            os.close(self._file)
            self._file = None


def _anywhere() -> int:
    return FIRST + secrets.randbelow(LAST + 1 - FIRST)


_claims = _Claims()


def _forget() -> None:
    """In a process that was forked: it has no locks."""
    global _claims
    _claims = _Claims()


os.register_at_fork(after_in_child=_forget)


def claim() -> int | None:
    """A user id for one kernel, until `release`; None where this process cannot change users.

    Raises:
        HostFull: all are in use.
        OSError: there is no place for the file with the locks.
    """
    if not changes_users():
        return None
    with _claims.turn:
        return _claims.claim()


def release(uid: int) -> None:
    """Let others have a user id, of which no process is left."""
    with _claims.turn:
        _claims.release(uid)


def _open() -> int:
    """The file with the locks, made where there is none. Raises OSError of the last place tried."""
    # Roots of user namespaces, which see each other's files as nobody's, have different ids outside.
    outside = Path("/proc/self/uid_map").read_text().split()[1]
    failure = None
    for place in _PLACES:
        path = f"{place}/sandbox-users-{outside}"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            failure = error
            continue
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            return file
        os.close(file)
        failure = PermissionError(1, "a file of another user's", path)
    assert failure is not None
    raise failure
