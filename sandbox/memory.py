"""Total memory of a kernel and its child processes, from /proc, for machines without cgroups.

Shared pages (those of the zygote, and of the parent after a fork) are counted once, which needs a walk through all
pages of each process. Upper bounds that need no walk are tried first and usually suffice: the sum of all pages, shared
or not; and the sum at the latest walk plus the page faults and new pages since then.
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
"""CPU time that a walk may take. A walk through 64 idle processes takes 0.06 s; processes with so many pages or
mappings that it takes longer count as over the limit."""
WAIT_SECONDS = 0.5
"""Wall time that a walk may take: Linux makes it wait for a process that is forking, for example."""

_MOST_PROCESSES = 4_096
_FILE_BYTES = 4_096  # status, stat and smaps_rollup are shorter
_SHARE, _PAUSE_SECONDS = 10, 1.0  # pause after a walk: this many times its duration, at most this many seconds
# Kernel memory of each mapping (struct vm_area_struct and its tree node), which no statistic counts. With many
# processes, the mappings of one are counted and taken for all, up to a bound above which the maximum is assumed.
_MAPPING_BYTES, _MANY_MAPPINGS, _MOST_MAPPINGS, _MANY_PROCESSES = 300, 16_384, 65_530, 8


class UncountableError(Exception):
    """Measuring took too long, or the processes cannot be seen."""


class TableFullError(Exception):
    """The limit of open files of this process or of the machine is reached; says nothing about the kernel."""


@dataclass(frozen=True, slots=True)
class _Member:
    """One process.

    Attributes:
        own: bytes of its memory, including pages shared with forks.
        tables: bytes of its page tables.
        faults: page faults so far: an upper bound on pages it got or copied.
    """

    own: int
    tables: int
    faults: int


class Family:
    """A process and its descendants.

    Args:
        process: its process id on the host.
        namespaced: whether it is the first process of its own pid namespace.
        unknown: bytes to count for a process that cannot be read.
    """

    def __init__(self, process: int, *, namespaced: bool, unknown: int) -> None:
        self._process = process
        self._namespaced = namespaced
        self._unknown = unknown
        self._walked: dict[tuple[int, int], _Member] = {}  # the processes at the latest walk
        self._sum = 0  # result of the latest walk
        self._next_walk = 0.0
        self._all_ours = False  # whether the /proc read last shows only our processes

    def exceeds(self, most: int) -> bool:
        """Whether it uses more than `most` bytes. Raises UncountableError, TableFullError.

        Processes that end before they are read count as much as the average of the others.
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
            self._next_walk = 0.0  # the next call walks again at once
            return True

    def _folder(self, stack: contextlib.ExitStack) -> int:
        """A /proc with all of its processes: the one in its namespace, which has no others, if it is readable."""
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
        for member in family:  # the list grows meanwhile
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
        if b"RssAnon" not in status:  # a zombie
            return {}
        stat = _read(folder, f"{number}/stat").rpartition(b")")[2].split()  # starts at the third field, state
        own = status[b"RssAnon"] + status.get(b"VmSwap", 0)
        return {(number, int(stat[19])): _Member(own, status.get(b"VmPTE", 0), int(stat[7]) + int(stat[9]))}

    def _since(self, members: dict[tuple[int, int], _Member]) -> int:
        """Upper bound on the bytes added since the latest walk."""
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
            with contextlib.suppress(OSError, KeyError, ValueError):  # gone, or not readable
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
    """The fields of a /proc file that are given in kB, in bytes."""
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
