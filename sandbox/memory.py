"""How much memory a kernel and its child processes have in sum, which only cgroups count, where there are some."""

from __future__ import annotations

import contextlib
from pathlib import Path

_MOST_PROCESSES = 4_096


def process_id(pidfd: int) -> int | None:
    """The host's number of the process that a pidfd stands for; None where it has ended."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            number = int(line.split()[1])
            return number if number > 0 else None
    return None


def used_in_sum(process: int) -> int:
    """Bytes of memory of a process and of all that it has started, what they share counted once.

    0 where it has started none: its own limits hold it then. Those that end meanwhile, or that Linux does not let
    us look at, count for nothing.
    """
    family = [process]
    for member in family:  # which grows meanwhile
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{member}/task").iterdir():
                family += map(int, (thread / "children").read_text().split())
        if len(family) > _MOST_PROCESSES:
            break
    return sum(map(_share, family)) if len(family) > 1 else 0


def _share(process: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
