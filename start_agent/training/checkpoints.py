"""Complete and incomplete checkpoints of a training run.

The trainer writes a checkpoint file by file. A checkpoint is complete if it contains ``whole.json``, which is written
last, after all other files are synced to disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from start_agent.files import sync, write_json

_PREFIX, _COMPLETE = "checkpoint-", "whole.json"  # the prefix is that of the trainer


def all_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, including incomplete ones."""
    return list(folder.glob(f"{_PREFIX}*"))


def mark_complete(folder: Path, step: int) -> None:
    """Sync the checkpoint of a step to disk, then mark it as complete."""
    checkpoint = folder / f"{_PREFIX}{step}"
    for path in checkpoint.rglob("*"):
        if path.is_file():
            sync(path)
    write_json(checkpoint / _COMPLETE, {"step": step})


def last_complete(folder: Path) -> Path | None:
    """The newest complete checkpoint; None if there is none."""
    complete = _complete(folder)
    return complete[-1] if complete else None


def remove(folder: Path, *, incomplete_only: bool = False) -> None:
    """Remove the checkpoints, or only incomplete ones left by a killed run."""
    for path in all_checkpoints(folder):
        if not (incomplete_only and (path / _COMPLETE).is_file()):
            shutil.rmtree(path)


def remove_old(folder: Path) -> None:
    """Remove all complete checkpoints but the last two; the second last is a backup in case the last is damaged."""
    for path in _complete(folder)[:-2]:
        shutil.rmtree(path)


def _complete(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted((path.parent for path in folder.glob(f"{_PREFIX}*/{_COMPLETE}")), key=_number)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(_PREFIX))
