"""Reads the rows of local data files, with every cell exactly as in the file.

JSON is read line by line with Python's own parser. A reader that infers one type per column changes values that do not
fit it: long numbers, texts that look like dates, a column that is missing in the first rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from start_agent.errors import DataError, MissingExtraError
from start_agent.tasks.task import Row

FORMATS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".parquet": "parquet"}
"""The format for each file extension."""

_METADATA_FILES = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_VALUE = re.compile(r"\S")
_SPLIT = re.compile(r"(?:train|test|validation|valid|val|dev)(?![a-z])")  # at the beginning of a file's name
_ROWS_AT_ONCE = 64  # of a Parquet file: a row with tests may have many megabytes
_DIGITS = 4300  # more than Python reads into a number


def data_files(path: Path, split: str | None = None) -> list[Path]:
    """The data files at a path, all of one format. In a folder, hidden files and metadata of `datasets` are skipped.

    Args:
        path: a file, or a folder of files.
        split: selects files in a folder where the file names start with splits (``test-00000-of-00001.parquet``); None
            for ``test`` if there are several splits.

    Raises:
        DataError: there are no data files, or files of several formats.
    """
    if path.is_file():
        if path.suffix.lower() not in FORMATS:
            raise DataError(f"{path} has an unknown format; use one of {', '.join(FORMATS)}")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder")
    files = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in FORMATS and not file.name.startswith(".") and file.name not in _METADATA_FILES
        if file.is_file()
    )
    splits = {file: named[0] for file in files if (named := _SPLIT.match(file.stem)) is not None}
    if len(set(splits.values())) > 1 or (split is not None and splits):
        files = [file for file in files if splits.get(file) == (split or "test")]
        if not files:
            known = ", ".join(sorted(set(splits.values())))
            raise DataError(f"the folder {path} has no split {split or 'test'!r}; use --split with one of {known}")
    formats = {FORMATS[file.suffix.lower()] for file in files}
    if len(formats) != 1:
        found = "files of several formats" if formats else "no JSONL or Parquet files"
        raise DataError(f"the folder {path} has {found}; give the path of one file")
    return files


def read_files(files: list[Path]) -> Iterator[Row]:
    """The rows of all files, in order.

    Raises:
        DataError: a file cannot be read; the message names the file, and for JSON the line.
        MissingExtraError: a Parquet file needs ``pyarrow``, which is not installed.
    """
    for file in files:
        try:
            yield from _parquet(file) if FORMATS[file.suffix.lower()] == "parquet" else _json(file)
        except UnicodeDecodeError as error:
            raise DataError(f"cannot read {file}: it is not UTF-8 text, or it is compressed ({error})") from error
        except OSError as error:
            raise DataError(f"cannot read {file}: {error}") from error


def _json(path: Path) -> Iterator[Row]:
    """The objects of a file: one per line, all in one list, or one after another over several lines each."""
    with path.open(encoding="utf-8-sig") as file:
        begin = next((line.strip() for line in file if line.strip()), "")
        file.seek(0)
        if begin.startswith("["):
            yield from _objects(path, "", _decoded(path, "", file.read(), list))
            return
        if begin == "{":
            yield from _objects(path, "", _all_decoded(path, file.read()))
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f", line {number}"
                yield from _objects(path, where, [_decoded(path, where, line, dict)])


def _decoded(path: Path, where: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_decimal)
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}{where}: {str(error) or 'nested too deeply'}") from error
    if not isinstance(value, kind):
        raise DataError(f"cannot read {path}{where}: expected an object with columns, found a {type(value).__name__}")
    return value


def _all_decoded(path: Path, text: str) -> list[Any]:
    """The JSON values in a text, separated by white space."""
    decoder = json.JSONDecoder(parse_int=_integer, parse_float=_decimal)
    values, at = list[Any](), 0
    try:
        while begun := _VALUE.search(text, at):
            value, at = decoder.raw_decode(text, begun.start())
            values.append(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {str(error) or 'nested too deeply'}") from error
    return values


def _objects(path: Path, where: str, values: list[Any]) -> Iterator[Row]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            place = where or f", entry {number}"
            raise DataError(
                f"cannot read {path}{place}: expected an object with columns, found a {type(value).__name__}"
            )
        yield value


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= _DIGITS else text


def _decimal(text: str) -> float | str:
    """A float if it has the same text as the input; otherwise the text, so that no digit is lost."""
    number = float(text)
    return number if repr(number) == text else text


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            short = [field.name for field in file.schema_arrow if field.type in (pyarrow.float16(), pyarrow.float32())]
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    yield row | {name: _shortest(row[name]) for name in short}
    except pyarrow.ArrowException as error:
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())[:300]}") from error


def _shortest(number: float | None) -> float | None:
    """The double with the same shortest text as a 32-bit or 16-bit number: 0.1, not 0.10000000149011612."""
    import numpy

    return number if number is None else float(str(numpy.float32(number)))
