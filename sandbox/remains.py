"""The processes, folders and cgroups of a sandbox, and which of them are left after it was closed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_CGROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Remains:
    """Processes and folders that a sandbox has to remove.

    Attributes:
        processes: descendants of this process, each with its start time (process ids are reused).
        folders: the folder of the sandbox, and its cgroups, which have the same name.
    """

    processes: frozenset[tuple[int, str]] = field(default_factory=frozenset)
    folders: frozenset[Path] = field(default_factory=frozenset)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """What exists of an open sandbox now.

        Args:
            folder: the folder of the sandbox.
        """
        groups = [Path(place, folder.name) for place, names, _ in os.walk(_CGROUPS) if folder.name in names]
        return cls(frozenset(descendants()), frozenset([folder, *groups]))

    def __or__(self, other: Remains) -> Remains:
        return Remains(self.processes | other.processes, self.folders | other.folders)

    def left(self) -> list[str]:
        """Descriptions of what still exists."""
        found = [f"process {number}" for number, started in sorted(self.processes) if _stat(number)[1:] == [started]]
        return found + [f"folder {folder}" for folder in sorted(self.folders) if folder.exists()]


def descendants() -> set[tuple[int, str]]:
    """The descendants of this process: process id and start time of each."""
    parents: dict[int, tuple[int, str]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - there are thousands
        if stat := _stat(int(name)):
            parents[int(name)] = (int(stat[0]), stat[1])
    found: set[int] = set()
    fresh = {os.getpid()}
    while fresh:
        fresh = {number for number, (parent, _) in parents.items() if parent in fresh and number not in found}
        found |= fresh
    return {(number, parents[number][1]) for number in found}


def _stat(process: int) -> list[str]:
    """The parent and the start time of a process; empty if it has ended. See proc_pid_stat(5)."""
    try:
        state, parent, *more = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if state in "ZX" else [parent, more[17]]
