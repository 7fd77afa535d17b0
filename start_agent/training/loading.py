"""Rows from disk, with the columns that training reads and no more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from start_agent.data.dataset import MANIFEST, ROWS
from start_agent.errors import DataError, MissingExtraError
from start_agent.files import file_digest

COLUMNS = ("key", "problem", "input_ids", "labels", "assistant_masks", "answer_begins")
_DATASETS = "dataset_info.json"
_TYPES = {"input_ids": np.int32, "labels": np.int32, "assistant_masks": np.bool_}  # ids are below 2**31


def read_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows of a data folder, of a JSONL file, or of a folder that ``datasets`` saved.

    Raises:
        DataError: there is nothing of these, or it cannot be read.
        MissingExtraError: ``datasets`` is not installed.
    """
    if (path / _DATASETS).is_file():
        try:
            from datasets import load_from_disk
        except ImportError as error:
            raise MissingExtraError(error.name or "datasets", "train") from error
        return numbers(load_from_disk(str(path)))
    file_path = path
    if path.is_dir():
        _whole(path)
        file_path = path / ROWS
    try:
        with file_path.open(encoding="utf-8") as file:
            return [_row(line) for line in file if line.strip()]
    except OSError as error:
        raise DataError(
            f"cannot read {file_path}: {error.strerror}; --data takes a data folder, a JSONL file of rows, or a "
            "folder that datasets saved"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{file_path} holds something that is no row: {error}") from error


def _whole(path: Path) -> None:
    """Raise DataError where a data folder is unfinished, or its rows are not those that its manifest tells of."""
    try:
        told = json.loads((path / MANIFEST).read_bytes())["digest"]
        found = file_digest(path / ROWS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no whole data folder ({MANIFEST} and {ROWS}): run its select command again, "
            "or name a JSONL file of rows, or a folder that datasets saved"
        ) from error
    if found != told:
        raise DataError(f"{path / ROWS} has been changed since it was written: select again, or name the file itself")


def numbers(rows: Any) -> Sequence[Mapping[str, Any]]:
    """The same rows; those of a ``datasets.Dataset`` as arrays, which are read many times faster than lists."""
    if not hasattr(rows, "with_format"):
        return rows  # type: ignore[no-any-return]
    there = [name for name in COLUMNS if name in rows.column_names]
    return rows.select_columns(there).with_format("numpy")  # type: ignore[no-any-return]


def source(path: Path) -> dict[str, str]:
    """What a model card says of where the rows came from: the path, and the sha256 of the data folder's manifest."""
    found = {"source": f"`{path}`"}
    manifest = path / MANIFEST
    if manifest.is_file():
        found["sha256 of its data.json"] = f"`{file_digest(manifest)}`"
    return found


def _row(line: str) -> dict[str, Any]:
    values = json.loads(line)
    return {
        name: np.asarray(values[name], dtype=_TYPES[name]) if name in _TYPES else values[name]
        for name in COLUMNS
        if name in values
    }
