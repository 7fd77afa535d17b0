"""Removing a kernel's folder: where there is much in it, by a process of its own.

Where code has no file system of its own (tier 3), nothing bounds how many files it makes: 20,000 a second, and to
remove as many took half a second of the host's processor time.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from sandbox import guardian
from sandbox.zygote import ended

_FEW = 500
"""Entries of a folder, in all: so many are removed in some 5 ms."""
_FEW_BYTES = 64 << 20  # on the disk; Linux takes some 10 ms for as many


async def remove(folder: Path) -> None:
    """Remove a folder that nobody writes to any more, as far as `guardian.remove` can."""
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
    """Remove it if there is little in it. Returns whether that was so."""
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
    except OSError:  # of a path that is too long, or of modes: whatever code has built, it is not looked into here
        return False
    return True
