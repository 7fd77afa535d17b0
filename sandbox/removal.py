"""Removes a kernel's folder, in a separate process if it holds many files.

Where code has no file system of its own (tier 3), the number of its files is not limited: it can create 20,000 per
second, and removing that many took half a second of the host's CPU time.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from sandbox import guardian
from sandbox.zygote import ended

_FEW = 500
"""Entries of a folder, counted recursively: this many are removed in about 5 ms."""
_FEW_BYTES = 64 << 20  # on disk: this many are freed in about 10 ms


async def remove(folder: Path) -> None:
    """Remove a folder that no process writes to any more, as far as `guardian.remove` can."""
    if await asyncio.to_thread(_remove_few, folder):
        return
    try:
        process = await asyncio.to_thread(_start, guardian.removal(folder))
    except OSError:  # no process or descriptor is left
        await asyncio.to_thread(guardian.remove, folder)
        return
    await ended(process)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _remove_few(folder: Path) -> bool:
    """Remove the folder if it holds few files. Returns whether it did."""
    if not _has_few(folder):
        return False
    guardian.remove(folder)
    return True


def _has_few(folder: Path) -> bool:
    entries, size = 0, 0
    places = [str(folder)]
    try:
        while places:
            with os.scandir(places.pop()) as found:
                for entry in found:
                    entries += 1
                    size += 512 * entry.stat(follow_symlinks=False).st_blocks
                    if entries > _FEW or size > _FEW_BYTES:
                        return False
                    if entry.is_dir(follow_symlinks=False):
                        places.append(entry.path)
    except FileNotFoundError:  # never made, or gone already
        return True
    except OSError:  # too long a path, or no permission: leave it to the other process
        return False
    return True
