"""Loads rows from disk, with only the columns that training needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from start_agent.data.dataset import MANIFEST, read_rows
from start_agent.errors import DataError, MissingExtraError
from start_agent.files import file_digest

COLUMNS = ("key", "problem", "input_ids", "labels", "assistant_masks", "answer_begins")
_DATASETS = "dataset_info.json"
_TYPES = {"input_ids": np.int32, "labels": np.int32, "assistant_masks": np.bool_}  # ids are below 2**31


def load_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows of a data folder, a JSONL file, or a folder saved by ``datasets``.

    Raises:
        DataError: the path is none of these, or cannot be read.
        MissingExtraError: ``datasets`` is not installed.
    """
    if (path / _DATASETS).is_file():
        try:
            from datasets import load_from_disk
        except ImportError as error:
            raise MissingExtraError(error.name or "datasets", "train") from error
        return numbers(load_from_disk(str(path)))
    if not path.exists():
        raise DataError(
            f"{path} does not exist: --data takes a data folder, a JSONL file of rows, or a folder saved by datasets"
        )
    return [_columns(row, number, path) for number, row in enumerate(read_rows(path))]


def numbers(rows: Any) -> Sequence[Mapping[str, Any]]:
    """The same rows; a ``datasets.Dataset`` yields arrays, which are read many times faster than lists."""
    if not hasattr(rows, "with_format"):
        return rows  # type: ignore[no-any-return]
    there = [name for name in COLUMNS if name in rows.column_names]
    return rows.select_columns(there).with_format("numpy")  # type: ignore[no-any-return]


def source(path: Path) -> dict[str, str]:
    """The source of rows for a model card: the path, and the sha256 of the data folder's manifest."""
    found = {"source": f"`{path}`"}
    manifest = path / MANIFEST
    if manifest.is_file():
        found["sha256 of its data.json"] = f"`{file_digest(manifest)}`"
    return found


def _columns(row: Mapping[str, Any], number: int, path: Path) -> dict[str, Any]:
    try:
        return {
            name: np.asarray(row[name], dtype=_TYPES[name]) if name in _TYPES else row[name]
            for name in COLUMNS
            if name in row
        }
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path}: row {number} is not a valid training row: {error}") from error
