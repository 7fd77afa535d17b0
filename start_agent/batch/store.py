"""The run directory: the resolved configuration, and an append-only file of records.

::

    config.json      the full configuration; written once, atomically
    records.jsonl    one JSON object per line, with its ``key`` first and its ``trace`` last
    summary.json     exists once a run is complete; written atomically
    lock             locked (flock) while a run is in progress; released by the system when its process dies

A record is passed to the system in one write before it counts as done, so that a killed process loses none. It is
synced to disk (fsync) when the run ends or is interrupted, not at each line: after a power failure the last lines may
be lost. Lost records, and a truncated last line, are pending for the next run.

A run that fails before its first record removes what it has made: its files, and the folder if that was new.
"""

from __future__ import annotations

import errno
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
from start_agent.files import LOCK, NewFolder, lock_folder, write_json

CONFIG, RECORDS, SUMMARY = "config.json", "records.jsonl", "summary.json"

_SCHEMA = 1
_HEAD = b'{"key": "'
_KEY_CHARS = 64
_TRACE = b', "trace": {"schema": '
_SHOWN = 8  # differences in an error
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # with these, the same command may resume later


def record_key(problem_key: str, sample: int) -> str:
    """The content hash of one sample of a problem: sha256 of both, in hex."""
    return sha256(f"{problem_key}:{sample}".encode()).hexdigest()


class RunDirectory:
    """A run directory, open for one run. Use ``open`` and ``with``.

    Attributes:
        path: the folder.
        done: the keys of the records, as bytes; nothing else of them is kept in memory.
        truncated_bytes: bytes of an incomplete last line that was removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: set[bytes] = set()
        self.truncated_bytes = 0
        self._lock = self._file = -1
        self._size = 0  # bytes of complete records
        self._folder: NewFolder | None = None  # once the folder exists

    @classmethod
    def open(
        cls,
        path: Path,
        config: Mapping[str, Any],
        *,
        versions: Mapping[str, str] | None = None,
        rules: ResumeRules | None = None,
    ) -> Self:
        """Open a new or existing directory.

        Args:
            path: the folder; created if it does not exist.
            config: the configuration that determines the records, JSON-able, without anything that may differ between
                starts.
            versions: versions of packages at the first start; stored with the configuration, not compared.
            rules: permitted differences to a stored configuration; None for none.

        Raises:
            RunDirectoryError: another run is using it, it has another configuration, it is damaged, or it cannot be
                created or written.
            BatchError: the disk is full or faulty.
        """
        self = cls(path)
        try:
            self._folder = NewFolder(path)
            self._lock = lock_folder(path)
            self._write_config(json.loads(json.dumps(config)), dict(versions or {}), rules or ResumeRules())
            self._file = os.open(path / RECORDS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._scan()
            (path / SUMMARY).unlink(missing_ok=True)  # written again when this run is complete
        except (FileExistsError, NotADirectoryError):
            self._abandon()
            raise RunDirectoryError(f"{path} is not a folder: choose another --output-dir") from None
        except OSError as error:
            self._abandon()
            message = f"cannot use the run directory {path}: {error.strerror}"
            if error.errno in _DISK_FAULTS:
                raise BatchError(message) from error
            raise RunDirectoryError(f"{message}; choose another --output-dir") from error
        except BaseException:
            self._abandon()
            raise
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abandon()

    def _abandon(self) -> None:
        """Close after an error; a start that came to nothing leaves nothing behind."""
        if self._folder is not None and not self.done:
            # Without the lock, the files are another run's.
            self._folder.take_back(*((CONFIG, RECORDS, LOCK) if self._lock >= 0 else ()))
        self.close()

    def close(self) -> None:
        """Sync the records to disk and release the lock. May be called again. Raises BatchError."""
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
        """Store a value that is known only after the model's tokenizer is loaded, or compare it with the stored one.

        Args:
            name: key in ``config.json``, next to the configuration.
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
                    f"{self.path} has a run with other prompts ({'; '.join(different)}): the model, "
                    "its tokenizer or its chat template has changed. Choose another --output-dir, or restore "
                    "the old ones"
                )
        elif noted != value:
            try:
                write_json(path, content | {name: value})
            except OSError as error:
                raise BatchError(f"cannot write {path}: {error.strerror}") from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record. When this returns, killing the process does not lose it.

        Args:
            record: JSON-able, with ``key`` first, as made by ``record_key``, and ``trace`` last.

        Raises:
            ValueError: there is a record with this key already.
            BatchError: it cannot be written; an incomplete line is removed if possible.
        """
        key = bytes.fromhex(record["key"])
        if key in self.done:
            raise ValueError(f"the record {record['key']} exists already")
        line = json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            with suppress(OSError):  # otherwise the next run removes the incomplete line
                os.ftruncate(self._file, self._size)
            raise BatchError(
                f"cannot write to {self.path / RECORDS}: {error.strerror}; "
                "fix the problem and run the same command again"
            ) from error
        self._size += len(line)
        self.done.add(key)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``. Raises BatchError."""
        try:
            write_json(self.path / SUMMARY, summary)
        except OSError as error:
            raise BatchError(f"cannot write {self.path / SUMMARY}: {error.strerror}") from error

    def _write_config(self, config: dict[str, Any], versions: dict[str, str], rules: ResumeRules) -> None:
        """Write the configuration; if there are records, check that it matches theirs."""
        path, records = self.path / CONFIG, self.path / RECORDS
        if not records.exists() or not records.stat().st_size:  # also after a start without any record
            write_json(path, {"schema": _SCHEMA, "config": config, "versions": versions})
            return
        if not path.exists():
            raise RunDirectoryError(f"{self.path} has records but no {CONFIG}: choose another --output-dir")
        stored = read_config(self.path)
        different = rules.differences(stored, config)
        if not different and stored != config:  # a number has grown: from now on, a smaller one is rejected
            written = json.loads(path.read_bytes())
            write_json(path, written | {"config": config})
        if different:
            more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
            raise RunDirectoryError(
                f"{self.path} has a run with another configuration: {'; '.join(different[:_SHOWN])}{more}. "
                "Choose another --output-dir, or run with the old options"
            )

    def _scan(self) -> None:
        """Read the keys of existing records; remove an incomplete last line."""
        with (self.path / RECORDS).open("rb") as file:
            for number, line in enumerate(file, start=1):
                key = _key_of(line)
                if key is None:
                    if not file.read(1):
                        break
                    raise RunDirectoryError(f"{self.path / RECORDS}, line {number}: not a record; the file is damaged")
                if key in self.done:
                    raise RunDirectoryError(f"{self.path / RECORDS}, line {number}: duplicate key")
                self.done.add(key)
                self._size += len(line)
        size = os.fstat(self._file).st_size
        if size > self._size:
            self.truncated_bytes = size - self._size
            os.ftruncate(self._file, self._size)


def read_note(path: Path, name: str) -> Any:
    """The value that ``RunDirectory.settle`` stored under a name; None if there is none."""
    try:
        return json.loads((path / CONFIG).read_bytes()).get(name)
    except (OSError, ValueError, AttributeError):
        return None  # opening the directory reports what is wrong


def read_config(path: Path) -> dict[str, Any]:
    """The configuration stored in a run directory. Raises RunDirectoryError."""
    try:
        content = json.loads((path / CONFIG).read_bytes())
        if content["schema"] != _SCHEMA:
            raise RunDirectoryError(f"{path / CONFIG} has schema {content['schema']}; this version reads {_SCHEMA}")
        return dict(content["config"])
    except FileNotFoundError:
        raise RunDirectoryError(f"{path} is not a run directory: it has no {CONFIG}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"cannot read {path / CONFIG}: {error}") from error


def read_records(path: Path, *, traces: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the records of a run directory; an incomplete last line is skipped.

    Args:
        path: the folder.
        traces: whether to read traces; reading is many times faster without them.

    Raises:
        RunDirectoryError: there is no file of records, or a line before the last is damaged.
    """
    file_path = path / RECORDS
    try:
        file = file_path.open("rb")
    except OSError as error:
        raise RunDirectoryError(
            f"{path} is not a run directory: cannot read its {RECORDS}: {error.strerror}"
        ) from error
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
    """Parse a line. The trace, which is most of it, is removed before parsing if it is not needed."""
    record = None
    if not traces and (place := line.find(_TRACE)) >= 0:
        with suppress(ValueError):  # another field may contain something that looks like a trace
            record = json.loads(line[:place] + b"}")
    if record is None:
        record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    if not traces:
        record.pop("trace", None)
    return record


def _key_of(line: bytes) -> bytes | None:
    """The key of a line, without parsing the line; None if the line is incomplete."""
    begin = len(_HEAD)
    if not line.startswith(_HEAD) or not line.endswith(b"}\n"):
        return None
    try:
        return bytes.fromhex(line[begin : begin + _KEY_CHARS].decode("ascii"))
    except ValueError:
        return None
