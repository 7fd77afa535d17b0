"""Files that are written whole or not at all, folders that one process holds, and digests of what they hold."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from start_agent.errors import FolderInUseError

LOCK = "lock"

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
MODEL_CONFIG = "config.json"
ADAPTERS = "adapter_config.json"

_SAMPLE = 1 << 20  # bytes of each end of a file of weights that a model's digest covers


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(model: Path) -> str:
    """sha256, in hex, over a model's configuration and both ends of each file of its weights: another training shows
    there, and a large model need not be read whole. Of a GGUF file, over its both ends. Raises OSError.
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
    """Hold a folder until the descriptor returned is closed or the process ends: ``flock`` on the file ``lock`` in it.

    Raises:
        FolderInUseError: another process holds it.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).strip()
        os.close(descriptor)
        raise FolderInUseError(path, int(owner) if owner.isdigit() else 0) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces ``path`` when the block ends without an error: complete, also after a loss of power.

    It is written beside it, under the name with ``.new``, which a later write overwrites. Raises OSError.
    """
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically. Raises OSError, and ValueError for a number that JSON does not have."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically. Raises OSError."""
    with atomic_write(path) as file:
        file.writelines(f"{json.dumps(row)}\n".encode() for row in rows)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
