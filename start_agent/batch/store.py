"""The run directory: the resolved configuration, and one record for each trace, appended and never changed.

::

    config.json      what was asked for, in full; written once, by rename
    records.jsonl    a JSON object a line, its ``key`` first and its ``trace`` last
    summary.json     there once a run has come to its end; written by rename
    lock             held (flock) while a run is at work; freed by the system when its process dies

A record is handed to the system in one write before it counts as done, so that a killed process loses none. It is
forced to the disk (fsync) when the run ends or is interrupted, not at each line: a machine that loses its power may
lose the last lines. Whatever is lost, a torn last line included, is pending for the next run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from start_agent.batch.resume import ResumeRules, differences
from start_agent.errors import BatchError, RunDirectoryError
from start_agent.files import lock_folder, write_json

CONFIG, RECORDS, SUMMARY = "config.json", "records.jsonl", "summary.json"

_SCHEMA = 1
_HEAD = b'{"key": "'
_KEY_CHARS = 64
_TRACE = b', "trace": {"schema": '
_SHOWN = 8  # differences in an error


def record_key(problem_key: str, sample: int) -> str:
    """The content hash of one sample of a problem: sha256 of both, in hex."""
    return sha256(f"{problem_key}:{sample}".encode()).hexdigest()


class RunDirectory:
    """A run directory, open for one run. Use ``open`` and ``with``.

    Attributes:
        path: the folder.
        done: the keys of the records, as bytes: all that is kept in memory of them.
        truncated_bytes: of a torn last line that were cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: set[bytes] = set()
        self.truncated_bytes = 0
        self._lock = self._file = -1
        self._size = 0  # bytes of whole records

    @classmethod
    def open(
        cls,
        path: Path,
        config: Mapping[str, Any],
        *,
        versions: Mapping[str, str] | None = None,
        rules: ResumeRules | None = None,
    ) -> Self:
        """Open a directory, new or old.

        Args:
            path: made where it does not exist.
            config: what decides the records, JSON-able; nothing that may differ from start to start.
            versions: of what made the first record; kept beside the configuration, not compared.
            rules: what of a stored configuration may differ; nothing where unset.

        Raises:
            RunDirectoryError: another run is at work in it, it holds another configuration, or it is damaged.
            BatchError: it cannot be written.
        """
        self = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(path)
            self._agree(json.loads(json.dumps(config)), dict(versions or {}), rules or ResumeRules())
            self._file = os.open(path / RECORDS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._scan()
            (path / SUMMARY).unlink(
                missing_ok=True
            )  # it told of an end; there is one again when this run has come to it
        except (FileExistsError, NotADirectoryError):
            self.close()
            raise RunDirectoryError(f"{path} is a file, or lies below one: name a folder") from None
        except OSError as error:
            self.close()
            raise BatchError(f"cannot use the run directory {path}: {error.strerror}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Force the records to the disk and free the directory. May be called again. Raises BatchError."""
        file, lock, self._file, self._lock = self._file, self._lock, -1, -1
        try:
            if file >= 0:
                os.fsync(file)
        except OSError as error:
            raise BatchError(f"cannot write {self.path / RECORDS} to the disk: {error.strerror}") from error
        finally:
            for descriptor in (file, lock):
                if descriptor >= 0:
                    os.close(descriptor)

    def settle(self, name: str, value: Any) -> None:
        """Note what is known of the configuration once the model's tokenizer is there, or compare it with the note.

        Args:
            name: in ``config.json``, beside the configuration.
            value: JSON-able.

        Raises:
            RunDirectoryError: the records were made with another value.
            BatchError: it cannot be written.
        """
        path = self.path / CONFIG
        content = json.loads(path.read_bytes())
        noted = content.get(name)
        if noted is not None and self.done:
            if different := differences({name: noted}, {name: value}):
                raise RunDirectoryError(
                    f"{self.path} holds a run with other prompts ({'; '.join(different)}): the model, "
                    "its tokenizer or its chat template has changed since. Name another --output-dir, or bring back "
                    "the old ones"
                )
        elif noted != value:
            try:
                write_json(path, content | {name: value})
            except OSError as error:
                raise BatchError(f"cannot write {path}: {error.strerror}") from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record: when this returns, killing the process does not lose it.

        Args:
            record: JSON-able; ``key`` first, as ``record_key`` makes it, and ``trace`` last.

        Raises:
            ValueError: its key is there already.
            BatchError: it cannot be written; what was written of it is cut off again where that can be done.
        """
        key = bytes.fromhex(record["key"])
        if key in self.done:
            raise ValueError(f"there is a record {record['key']} already")
        line = json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            with suppress(OSError):  # else the next run finds the torn line and cuts it off
                os.ftruncate(self._file, self._size)
            raise BatchError(
                f"cannot write to {self.path / RECORDS}: {error.strerror}; mend that and run the same command again"
            ) from error
        self._size += len(line)
        self.done.add(key)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``. Raises BatchError."""
        try:
            write_json(self.path / SUMMARY, summary)
        except OSError as error:
            raise BatchError(f"cannot write {self.path / SUMMARY}: {error.strerror}") from error

    def _agree(self, config: dict[str, Any], versions: dict[str, str], rules: ResumeRules) -> None:
        """Write the configuration; where there are records, check that it is theirs."""
        path, records = self.path / CONFIG, self.path / RECORDS
        if not records.exists() or not records.stat().st_size:  # also after a start that came to nothing
            write_json(path, {"schema": _SCHEMA, "config": config, "versions": versions})
            return
        if not path.exists():
            raise RunDirectoryError(f"{self.path} has records but no {CONFIG}: name another --output-dir")
        stored = read_config(self.path)
        different = rules.differences(stored, config)
        if not different and stored != config:  # something has grown: from now on less is refused
            written = json.loads(path.read_bytes())
            write_json(path, written | {"config": config})
        if different:
            more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
            raise RunDirectoryError(
                f"{self.path} holds a run of another configuration: {'; '.join(different[:_SHOWN])}{more}. "
                "Name another --output-dir, or run with the old options"
            )

    def _scan(self) -> None:
        """Take up the keys that are there; cut off a torn last line."""
        with (self.path / RECORDS).open("rb") as file:
            for number, line in enumerate(file, start=1):
                key = _key_of(line)
                if key is None:
                    if not file.read(1):
                        break
                    raise RunDirectoryError(f"{self.path / RECORDS}, line {number}: not a record; the file is damaged")
                if key in self.done:
                    raise RunDirectoryError(f"{self.path / RECORDS}, line {number}: its key is there twice")
                self.done.add(key)
                self._size += len(line)
        size = os.fstat(self._file).st_size
        if size > self._size:
            self.truncated_bytes = size - self._size
            os.ftruncate(self._file, self._size)


def read_note(path: Path, name: str) -> Any:
    """What ``RunDirectory.settle`` noted under a name; None where it noted nothing."""
    try:
        return json.loads((path / CONFIG).read_bytes()).get(name)
    except (OSError, ValueError, AttributeError):
        return None  # what is wrong with it, opening the directory says


def read_config(path: Path) -> dict[str, Any]:
    """The configuration that a run directory holds. Raises RunDirectoryError."""
    try:
        content = json.loads((path / CONFIG).read_bytes())
        if content["schema"] != _SCHEMA:
            raise RunDirectoryError(f"{path / CONFIG} is of schema {content['schema']}; this version reads {_SCHEMA}")
        return dict(content["config"])
    except FileNotFoundError:
        raise RunDirectoryError(f"{path} is no run directory: it has no {CONFIG}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"cannot read {path / CONFIG}: {error}") from error


def read_records(path: Path, *, traces: bool = True) -> Iterator[dict[str, Any]]:
    """The records of a run directory, one at a time; a torn last line is none.

    Args:
        path: the folder.
        traces: read the traces too; without them reading is many times faster.

    Raises:
        RunDirectoryError: there are none to read, or a line in the middle is damaged.
    """
    file_path = path / RECORDS
    try:
        file = file_path.open("rb")
    except OSError as error:
        raise RunDirectoryError(f"{path} is no run directory: cannot read its {RECORDS}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield _parse(line, traces)
            except ValueError as error:
                if not file.read(1):
                    return
                raise RunDirectoryError(f"{file_path}, line {number}: not a record: {error}") from error


def _parse(line: bytes, traces: bool) -> dict[str, Any]:
    """A line's record. The trace, most of the line, is cut off before parsing where nobody wants it."""
    record = None
    if not traces and (place := line.find(_TRACE)) >= 0:
        with suppress(ValueError):  # another field may hold something that looks like a trace
            record = json.loads(line[:place] + b"}")
    if record is None:
        record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    if not traces:
        record.pop("trace", None)
    return record


def _key_of(line: bytes) -> bytes | None:
    """The key of a whole line, without parsing the line; None of a torn one."""
    begin = len(_HEAD)
    if not line.startswith(_HEAD) or not line.endswith(b"}\n"):
        return None
    try:
        return bytes.fromhex(line[begin : begin + _KEY_CHARS].decode("ascii"))
    except ValueError:
        return None
