"""User ids for kernels when the host is root: each kernel gets one that no other kernel on this machine has.

Two kernels with one user id would be counted together by RLIMIT_NPROC, and could signal each other where they are not
in separate namespaces. So each user id has a lock, on one byte of a file that only root can open. These are record
locks of fcntl(2): they belong to a process, are not inherited by its forks, and end with it, however it ends. (They
also end if it closes the file.)

This does not separate containers that share user ids but not files.
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

# Systemd's range for dynamic users; below 65536, so that it is available in containers.
FIRST, LAST = 61184, 65519

_PLACES = ("/run", "/tmp", "/var/tmp", "/dev/shm")  # folders for the file; only the first is reserved for root


@cache
def changes_users() -> bool:
    """Whether this process is root and can run kernels under other user ids.

    Root in a user namespace may have no ids but its own (``unshare -r``, fakeroot, some containers): it is then treated
    as an ordinary user, which it is outside the namespace.
    """
    if os.geteuid() != 0 or Path("/proc/self/setgroups").read_text().strip() == "deny":
        return False
    return all(_has_our_ids(Path(f"/proc/self/{kind}_map").read_text()) for kind in ("uid", "gid"))


def _has_our_ids(ids: str) -> bool:
    """Whether a map of user ids, see user_namespaces(7), contains all ids that kernels get."""
    ranges = [(int(first), int(first) + int(count)) for first, _, count in map(str.split, ids.splitlines())]
    return any(first <= FIRST <= LAST < end for first, end in ranges)


class _Claims:
    """The user ids claimed by this process. The file with the locks is open while there are any."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self._held: set[int] = set()
        self._file: int | None = None
        # Ids are not reused soon, since kernels of a killed host end a moment after it.
        self._next = _anywhere()

    def claim(self) -> int:
        if self._file is None:
            self._file = _open()
        for _ in range(FIRST, LAST + 1):
            uid = self._next
            self._next = uid + 1 if uid < LAST else FIRST
            if uid in self._held:  # a record lock does not exclude its own process
                continue
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, uid)
            except BlockingIOError:
                continue
            self._held.add(uid)
            return uid
        self._close_if_unused()
        raise HostFull(f"all {LAST + 1 - FIRST:,} user ids of kernels ({FIRST} to {LAST}) are in use on this machine")

    def release(self, uid: int) -> None:
        if self._file is not None and uid in self._held:
            self._held.remove(uid)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, uid)
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._file is not None and not self._held:
            os.close(self._file)
            self._file = None


def _anywhere() -> int:
    return FIRST + secrets.randbelow(LAST + 1 - FIRST)


_claims = _Claims()


def _forget() -> None:
    """Reset in a forked process, which has no locks."""
    global _claims
    _claims = _Claims()


os.register_at_fork(after_in_child=_forget)


def claim() -> int | None:
    """A user id for one kernel, until `release`; None if this process cannot change users.

    Raises:
        HostFull: all are in use.
        OSError: the file with the locks cannot be opened anywhere.
    """
    if not changes_users():
        return None
    with _claims.turn:
        return _claims.claim()


def release(uid: int) -> None:
    """Release a user id once none of its processes is left."""
    with _claims.turn:
        _claims.release(uid)


def _open() -> int:
    """Open the file with the locks, or create it. Raises the OSError of the last place tried."""
    # Root users of different user namespaces, which see each other's files as owned by nobody, use different files.
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
        failure = PermissionError(1, "file of another user", path)
    assert failure is not None
    raise failure
