"""Checkpoints that a killed run leaves: which of them are whole.

The trainer writes a checkpoint file by file. One counts only when ``whole.json`` is in it, which comes last, once all
else is forced to the disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from start_agent.files import sync, write_json

_HEAD, _WHOLE = "checkpoint-", "whole.json"  # the head is the trainer's own


def there(folder: Path) -> list[Path]:
    """All of them, torn ones too."""
    return list(folder.glob(f"{_HEAD}*"))


def mark_whole(folder: Path, step: int) -> None:
    """Force the checkpoint of a step to the disk, then say in it that it is whole."""
    checkpoint = folder / f"{_HEAD}{step}"
    for path in checkpoint.rglob("*"):
        if path.is_file():
            sync(path)
    write_json(checkpoint / _WHOLE, {"step": step})


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None where there is none."""
    whole = [path.parent for path in folder.glob(f"{_HEAD}*/{_WHOLE}")]
    return max(whole, key=_number, default=None)


def remove(folder: Path, *, torn_only: bool = False) -> None:
    """Remove the checkpoints, or only those that a killed run left unfinished."""
    for path in there(folder):
        if not (torn_only and (path / _WHOLE).is_file()):
            shutil.rmtree(path)


def remove_old(folder: Path) -> None:
    """Remove all but the last two that are whole: the one before remains, should the last be damaged."""
    whole = sorted((path.parent for path in folder.glob(f"{_HEAD}*/{_WHOLE}")), key=_number)
    for path in whole[:-2]:
        shutil.rmtree(path)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(_HEAD))
