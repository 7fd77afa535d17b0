"""Cgroups for kernels, where this user can create them: a hard limit on a kernel's total memory and processes.

All other limits stay in force. A group allows `Limits.memory_in_sum_bytes` plus full file systems, which also live in
memory; Linux kills its processes when they need more. Memory that Linux itself holds for them (pipes, page tables)
counts too.

A kernel enters its groups itself, before it does anything else, through descriptors opened by the host. In version 1 a
thread that moves itself costs some 20 µs, while moving another process makes Linux wait for a grace period, 10 to
20 ms; in version 2 there is no way around that.

In version 1 the groups are made below the groups of this process. In version 2 that works only if no process is in this
process's group; otherwise they are made next to it, or next to one of its ancestors, unless kernels would escape a
limit that way. A systemd user session has such a place.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import guardian
from sandbox.isolation import WRITABLE
from sandbox.limits import Limits

_log = logging.getLogger(__name__)

_CONTROLLERS = ("memory", "pids")
_MARGIN_BYTES = 4 << 20  # Linux kills when a few pages are missing and it cannot reclaim any
_CONNECTION_BYTES = 64 << 20
_EVENTS = {1: "memory.oom_control", 2: "memory.events"}  # by version: counts of processes killed for lack of memory
_TURNS, _TURN_SECONDS = 1_000, 0.001  # attempts and pause, until Linux has removed a group's processes


class _Unusable(Exception):  # noqa: N818 - a reason, not an error
    """Why cgroups cannot be used here."""


@dataclass(slots=True)
class Group:
    """The cgroups of one kernel. Made by `Groups.make`; the owner must close `entries` and call `remove`.

    Attributes:
        version: of cgroups.
        memory: memory limit in bytes.
        folders: one per hierarchy, the one for memory first.
        entries: a descriptor for each; a process enters by writing "0" to it.
    """

    version: int
    memory: int
    folders: list[Path] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)

    def open_events(self) -> int | None:
        """A descriptor for `has_overflowed`; None if no descriptor is left, or the group is gone."""
        try:
            return os.open(f"{self.folders[0]}/{_EVENTS[self.version]}", os.O_RDONLY)
        except (OSError, IndexError):
            return None

    def has_overflowed(self, events: int | None = None) -> bool:
        """Whether Linux has killed any of its processes because the memory limit was reached.

        Args:
            events: a descriptor from `open_events`; None to open one. Opening takes longer than reading.
        """
        if events is None:
            if (events := self.open_events()) is None:
                return False
            try:
                return self.has_overflowed(events)
            finally:
                os.close(events)
        with contextlib.suppress(OSError, IndexError, KeyError):
            words = os.pread(events, 4096, 0).decode().split()
            counts = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            if counts["oom_kill"] > 0:  # also counts kills caused by the limit of an ancestor
                if self.version == 2:
                    return counts["oom"] > 0
                most = int((self.folders[0] / "memory.max_usage_in_bytes").read_text())
                return most > self.memory - _MARGIN_BYTES
        return False

    async def remove(self) -> None:
        """Kill the remaining processes and remove the group. What cannot be removed now is removed with the sandbox."""
        for _ in range(_TURNS):
            self.folders = [folder for folder in self.folders if not _removed(folder)]
            if not self.folders:
                return
            for folder in self.folders:
                with contextlib.suppress(OSError):
                    for process in map(int, (folder / "cgroup.procs").read_text().split()):
                        if process:  # 0 is a process that we cannot see; kill(2) would take it for ourselves
                            os.kill(process, signal.SIGKILL)
            await asyncio.sleep(_TURN_SECONDS)


class Groups:
    """The cgroups of one sandbox, if they can be used. They are removed with its folder.

    Args:
        folder: the folder of the sandbox; the groups are listed in a file there, so that `sandbox.guardian.clear` can
            remove them.
    """

    def __init__(self, folder: Path) -> None:
        self._note = folder / guardian.GROUPS
        self._version = 0
        self._homes: list[Path] = []
        self._files: list[tuple[int, str]] = []  # the limit files that exist: index of the hierarchy, name
        self._made = 0
        self._why_not = ""
        try:
            self._open(folder.name)
        except (_Unusable, OSError) as reason:
            self.give_up(str(reason))

    def __str__(self) -> str:
        if self._why_not:
            return f"not used: {self._why_not}"
        return f"memory and processes of each kernel (version {self._version})"

    def _open(self, name: str) -> None:
        self._version, own = _places(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
        why_not = ""
        for places in [own] if self._version == 1 else [[place] for place in _from_here_up(own[0])]:
            self._homes = [place / name for place in places]
            self._note.write_text("".join(f"{home}\n" for home in self._homes))
            try:
                for home in self._homes:
                    home.mkdir()
                    if self._version == 2:
                        _delegate(home)
                self._try()
                return
            except OSError as error:
                why_not = why_not or f"{error.strerror} ({error.filename or places[0]})"
                guardian.remove_groups(self._note)
        self._note.unlink()
        raise _Unusable(why_not)

    def _try(self) -> None:
        group = self._make(Limits())
        for descriptor in group.entries:
            os.close(descriptor)
        for folder in group.folders:
            folder.rmdir()

    def make(self, limits: Limits) -> Group | None:
        """Groups for one kernel; None if cgroups are not used. Raises OSError if no descriptor is left."""
        if self._why_not:
            return None
        try:
            return self._make(limits)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            self.give_up(str(error))
            return None

    def _make(self, limits: Limits) -> Group:
        self._made += 1
        group = Group(self._version, limits.memory_in_sum_bytes + len(WRITABLE) * limits.disk_bytes)
        try:
            self._fill(group, limits)
        except OSError:
            for descriptor in group.entries:
                os.close(descriptor)
            for folder in group.folders:
                folder.rmdir()
            raise
        return group

    def _fill(self, group: Group, limits: Limits) -> None:
        for home in self._homes:
            folder = home / str(self._made)
            folder.mkdir()
            group.folders.append(folder)
        values = {
            **dict.fromkeys(("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"), group.memory),
            # Version 1 counts the buffers of connections separately.
            "memory.kmem.tcp.limit_in_bytes": min(group.memory, _CONNECTION_BYTES),
            "memory.swap.max": 0,
            "memory.oom.group": 1,
            "pids.max": limits.processes,
        }
        if not self._files:
            found = [(number, name) for name in values for number in range(len(group.folders))]
            self._files = [(number, name) for number, name in found if (group.folders[number] / name).exists()]
        for number, name in self._files:
            handle = os.open(f"{group.folders[number]}/{name}", os.O_WRONLY)
            try:
                os.write(handle, str(values[name]).encode())
            finally:
                os.close(handle)
        entry = "tasks" if self._version == 1 else "cgroup.procs"
        for folder in group.folders:
            group.entries.append(os.open(folder / entry, os.O_WRONLY))

    def give_up(self, reason: str) -> None:
        """Stop using cgroups. The first reason is kept."""
        if not self._why_not:
            self._why_not = reason
            _log.info("Cgroups are not used: %s. The other limits still apply.", reason)


def _places(memberships: str, mounts: str) -> tuple[int, list[Path]]:
    """The cgroup version, and the folders of this process's groups, one per controller, memory first.

    Args:
        memberships: content of /proc/self/cgroup.
        mounts: content of /proc/self/mountinfo.

    Raises _Unusable if some of them are not mounted. Formats: cgroups(7), proc_pid_mountinfo(5).
    """
    own: dict[str, str] = {}
    for line in memberships.splitlines():
        _, names, path = line.split(":", 2)
        own |= dict.fromkeys(names.split(","), path)
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()
        for name in {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, []):
            if name in own:
                inner = os.path.relpath(own[name], root)
                found[name] = Path(point) if inner.startswith("..") else Path(point, inner)
    if all(name in own for name in _CONTROLLERS):
        if missing := [name for name in _CONTROLLERS if name not in found]:
            raise _Unusable(f"the cgroups of {' and '.join(missing)} are not mounted")
        return 1, list(dict.fromkeys(found[name] for name in _CONTROLLERS))
    if "" not in found:
        raise _Unusable("cgroups are not mounted")
    return 2, [found[""]]


def _from_here_up(own: Path) -> Iterator[Path]:
    """Where groups of version 2 may be made: in this group, and in its ancestors as long as no limit is escaped."""
    for path in (own, *own.parents):
        if not (path / "cgroup.procs").exists():
            return
        yield path
        with contextlib.suppress(OSError):
            if (path / "memory.max").read_text().strip() != "max":
                return


def _delegate(home: Path) -> None:
    """Enable the controllers for groups below `home`. Raises OSError if they are not delegated to us."""
    for folder in (home.parent, home):
        control = folder / "cgroup.subtree_control"
        if not set(_CONTROLLERS) <= set(control.read_text().split()):
            control.write_text(" ".join(f"+{name}" for name in _CONTROLLERS))


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
