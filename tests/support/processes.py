"""The child processes of a process, and cgroups, to check that none is left."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from sandbox import guardian

Processes = dict[int, str]
"""Numbers, each with the time at which that process was started: a number may be given out again."""


def descendants(of: int | None = None) -> Processes:
    """Children, their children and so on, of a process (this one when None). Zombies only if they are its own."""
    of = os.getpid() if of is None else of
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent, *more = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z" or int(parent) == of:
                parents[int(folder.name)] = (int(parent), more[17])
    found: Processes = {}
    fresh = {of}
    while fresh:
        fresh = {number for number, (parent, _) in parents.items() if parent in fresh and number not in found}
        found |= {number: parents[number][1] for number in fresh}
    return found


def sandboxed() -> Processes:
    """Those of this process's sandboxes, and no one else's: their guardians and all below."""
    every = descendants()
    found: Processes = {}
    for number, started in every.items():
        try:
            line = Path(f"/proc/{number}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"\0{guardian.__file__}\0".encode() in line:
            found |= {number: started} | descendants(number)
    return found


def living(processes: Processes) -> Processes:
    """Those that still exist."""
    left = {}
    for number, started in processes.items():
        try:
            state, *more = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z" and more[18] == started:
            left[number] = started
    return left


def groups(names: Collection[str]) -> list[Path]:
    """Those folders of these names that there are in the cgroups' file systems."""
    # Not rglob: it raises where another sandbox's folder goes while it looks.
    walked = os.walk("/sys/fs/cgroup")
    return [Path(place, folder) for place, folders, _ in walked for folder in folders if folder in names]


def naming(folder: Path) -> Processes:
    """Processes, of anyone, whose command line has something below the folder in it."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                state, *more = (process / "stat").read_text().rpartition(")")[2].split()
                line = (process / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z" and f"{folder}/".encode() in line:
                found[int(process.name)] = more[18]
    return found
