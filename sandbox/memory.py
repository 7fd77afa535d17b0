"""How much memory a kernel and its child processes have in sum, as far as Linux shows it where there are no cgroups.

Pages that are nobody's alone (the zygote's, after a fork those of the parent) are counted once, which takes a walk
through all of a process's pages. What takes no walk comes first, and mostly is enough: all pages that processes have,
shared or not, are at least as many; and since the latest walk no more can have been added than they have faults and new
pages.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.2
"""Of processor time that a walk may take. One of 64 idle processes takes 0.06; more pages or mappings than that are an
overrun, whatever they are."""
WAIT_SECONDS = 0.5
"""That it may take at all: Linux makes it wait for a process that is about to fork, for one."""

_MOST_PROCESSES = 4_096
_FILE_BYTES = 4_096  # status, stat and smaps_rollup are shorter
_SHARE, _PAUSE_SECONDS = 10, 1.0  # a walk is followed by so many times its duration without one, and so much at most
# Memory for each mapping, which no number counts (struct vm_area_struct and its place in a tree); they are counted in
# one process for all, where there are many processes, up to a bound from which on it counts as full.
_MAPPING_BYTES, _MANY_MAPPINGS, _MOST_MAPPINGS, _MANY_PROCESSES = 300, 16_384, 65_530, 8


class UncountableError(Exception):
    """A look took too long, or the processes cannot be seen."""


class TableFullError(Exception):
    """This process, or the machine, can open no file now: the host's doing, which says nothing of the kernel."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A process.

    Attributes:
        own: bytes of memory that it has, shared with other processes by forks or not.
        tables: bytes of its page tables.
        faults: pages that it may have got, or made its own, ever.
    """

    own: int
    tables: int
    faults: int


class Family:
    """A process and all that it has started.

    Args:
        process: the host's number of it.
        namespaced: whether it is the first of a process namespace of its own.
        unknown: bytes to count for a process that cannot be looked at.
    """

    def __init__(self, process: int, *, namespaced: bool, unknown: int) -> None:
        self._process = process
        self._namespaced = namespaced
        self._unknown = unknown
        self._walked: dict[tuple[int, int], _Member] = {}  # at the latest walk
        self._sum = 0  # that came out
        self._next_walk = 0.0
        self._all_ours = False  # what the latest look has seen of /proc

    def exceeds(self, most: int) -> bool:
        """Whether it has more than so many bytes. Raises UncountableError, TableFullError.

        Of processes that come and go all the time, those that have gone before they were looked at count like the
        others.
        """
        with contextlib.ExitStack() as stack:
            folder = self._folder(stack)
            numbers = self._members(folder)
            members: dict[tuple[int, int], _Member] = {}
            gone = 0
            for number in numbers:
                try:
                    members |= self._member(folder, number)
                except (FileNotFoundError, ProcessLookupError):
                    gone += 1
                except (OSError, ValueError, IndexError):
                    members[number, 0] = _Member(self._unknown, 0, 0)
            if not members:  # it has ended
                return False
            beside = sum(member.tables for member in members.values())
            beside += gone * sum(member.own for member in members.values()) // len(members)
            if len(numbers) >= _MANY_PROCESSES:
                sample = random.choice(list(members))[0]
                beside += len(numbers) * _MAPPING_BYTES * _mappings(folder, sample)
            if beside + sum(member.own for member in members.values()) <= most:
                return False
            if beside + self._sum + self._since(members) <= most:
                return False
            if beside <= most and time.monotonic() < self._next_walk:
                return False
            if beside + self._walk(folder, members) <= most:
                return False
            self._next_walk = 0.0  # looked at again at once
            return True

    def _folder(self, stack: contextlib.ExitStack) -> int:
        """A /proc that has all of its processes: its own, in which there are no others, if we may look at that."""
        for path in (f"/proc/{self._process}/root/proc", "/proc") if self._namespaced else ("/proc",):
            with contextlib.suppress(OSError):
                folder = _open(path, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, folder)
                self._all_ours = path != "/proc"
                return folder
        raise UncountableError("/proc cannot be read")

    def _members(self, folder: int) -> list[int]:
        if self._all_ours:
            numbers = [int(name) for name in os.listdir(folder) if name.isdecimal()]
        else:
            numbers = self._descendants()
        if len(numbers) > _MOST_PROCESSES:
            raise UncountableError("too many processes")
        return numbers

    def _descendants(self) -> list[int]:
        family = [self._process]
        seen = {self._process}
        for member in family:  # which grows meanwhile
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{member}/task").iterdir():
                    children = (thread / "children").read_bytes()
                    fresh = [child for child in map(int, children.split()) if child not in seen]
                    seen.update(fresh)
                    family += fresh
            if len(family) > _MOST_PROCESSES:
                break
        return family

    def _member(self, folder: int, number: int) -> dict[tuple[int, int], _Member]:
        status = _fields(_read(folder, f"{number}/status"))
        if b"RssAnon" not in status:  # it has ended, and nobody has waited for it
            return {}
        stat = _read(folder, f"{number}/stat").rpartition(b")")[2].split()  # from the third field, state, on
        own = status[b"RssAnon"] + status.get(b"VmSwap", 0)
        return {(number, int(stat[19])): _Member(own, status.get(b"VmPTE", 0), int(stat[7]) + int(stat[9]))}

    def _since(self, members: dict[tuple[int, int], _Member]) -> int:
        """The most that can have been added since the latest walk."""
        added = 0
        for key, member in members.items():
            if (before := self._walked.get(key)) is None:
                added += member.own
            else:
                added += max(0, member.own - before.own) + (member.faults - before.faults) * mmap.PAGESIZE
        return added

    def _walk(self, folder: int, members: dict[tuple[int, int], _Member]) -> int:
        began, began_wall = time.thread_time(), time.monotonic()
        total = 0
        for (number, _), member in members.items():
            share = member.own
            with contextlib.suppress(OSError, KeyError, ValueError):  # gone, or not to be looked at
                fields = _fields(_read(folder, f"{number}/smaps_rollup"))
                share = fields[b"Pss_Anon"] + fields.get(b"SwapPss", 0)
            total += share
            if time.thread_time() - began > LOOK_SECONDS or time.monotonic() - began_wall > WAIT_SECONDS:
                raise UncountableError("it takes too long")
        self._walked, self._sum = members, total
        self._next_walk = time.monotonic() + min(_PAUSE_SECONDS, _SHARE * (time.thread_time() - began))
        return total


def _open(name: str, flags: int, folder: int | None = None) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise TableFullError from error
        raise


def _read(folder: int, name: str) -> bytes:
    handle = _open(name, os.O_RDONLY, folder)
    try:
        return os.read(handle, _FILE_BYTES)
    finally:
        os.close(handle)


def _fields(text: bytes) -> dict[bytes, int]:
    """Those of a file's lines that are a name and kilobytes, in bytes."""
    found = {}
    for line in text.splitlines():
        if line.endswith(b" kB"):
            name, _, amount = line.partition(b":")
            found[name] = int(amount[:-3]) * 1024
    return found


def _mappings(folder: int, number: int) -> int:
    lines = 0
    with contextlib.suppress(OSError):
        handle = _open(f"{number}/maps", os.O_RDONLY, folder)
        try:
            while lines < _MANY_MAPPINGS and (piece := os.read(handle, 1 << 16)):
                lines += piece.count(b"\n")
        finally:
            os.close(handle)
    return lines if lines < _MANY_MAPPINGS else _MOST_MAPPINGS
