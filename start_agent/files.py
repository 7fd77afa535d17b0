"""Atomic writes, locked folders, and digests of files and models."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from start_agent.errors import FolderInUseError

LOCK = "lock"

_UNFINISHED = ".new"

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
MODEL_CONFIG = "config.json"
ADAPTERS = "adapter_config.json"

_SAMPLE = 1 << 20  # bytes at each end of a weights file that a model's digest covers


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(model: Path) -> str:
    """The sha256, in hex, of a model's configuration and of both ends of each weights file (of a GGUF file, its ends).

    That detects another training without reading a large model whole. Raises OSError.
    """
    if model.is_file():
        total, paths = hashlib.sha256(), [model]
    else:
        total = hashlib.sha256((model / MODEL_CONFIG).read_bytes())
        paths = sorted(path for pattern in _WEIGHTS for path in model.glob(pattern))
    for path in paths:
        size = path.stat().st_size
        total.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            total.update(file.read(_SAMPLE))
            file.seek(max(size - _SAMPLE, 0))
            total.update(file.read())
    return total.hexdigest()


def lock_folder(path: Path) -> int:
    """Lock a folder until the returned descriptor is closed or the process ends: ``flock`` on the file ``lock`` in it.

    Raises:
        FolderInUseError: another process has locked it.
        OSError: the file cannot be created.
    """
    while True:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 20).strip()
            os.close(descriptor)
            raise FolderInUseError(path, int(owner) if owner.isdigit() else 0) from None
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # its owner has removed it since it was opened: see ``NewFolder.take_back``
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


class NewFolder:
    """A folder to write to, which remembers what was there before, so that a start that fails leaves nothing behind.

    Args:
        path: the folder; it and its parents are made if they do not exist.

    Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        self._before = set(path.iterdir())

    def take_back(self, *names: str) -> None:
        """Remove new files of these names, and the folders that were made, unless there is anything else in them.

        Args:
            names: files in the folder; their unfinished versions by ``atomic_write`` are removed, too.
        """
        with suppress(OSError):  # what fails already has its error; a folder with other files stays
            new = set(self.path.iterdir()) - self._before
            if {path.name.removesuffix(_UNFINISHED) for path in new} <= set(names):
                for path in new:
                    path.unlink()
                for folder in self._made:
                    folder.rmdir()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces ``path`` if the block ends without an error: complete even after a loss of power.

    It is written to ``path`` with the suffix ``.new``, which a later write overwrites. Raises OSError.
    """
    temporary = path.with_name(path.name + _UNFINISHED)
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically. Raises OSError, and ValueError for NaN or infinity."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically. Raises OSError."""
    with atomic_write(path) as file:
        file.writelines(f"{json.dumps(row)}\n".encode() for row in rows)


def sync(path: Path) -> None:
    """``fsync`` a file, or the entries of a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
