"""A data folder: the rows of a training set, with their provenance.

::

    rows.jsonl     one JSON object per line, with the columns of ``columns_of``
    data.json      configuration, report, counts, versions; written last and atomically, so it marks a complete folder
    README.md      the dataset card

Each row names its run, its record and the hash of its trace, so that ``check`` can compare it with them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO

from start_agent.batch.resume import differences
from start_agent.batch.store import RECORDS, read_config, read_records
from start_agent.data.card import card
from start_agent.data.loss import LossPolicy
from start_agent.data.messages import TOOLS, messages
from start_agent.data.rows import make_row
from start_agent.data.selection import Chosen, Selection, trace_digest
from start_agent.data.views import TraceView
from start_agent.errors import ConfigError, DataError, RowError, RunDirectoryError
from start_agent.files import LOCK, NewFolder, atomic_write, file_digest, lock_folder, write_json
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.versions import versions

ROWS, MANIFEST, CARD = "rows.jsonl", "data.json", "README.md"

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class DataSet:
    """The manifest of a data folder.

    Attributes:
        config: the configuration of selection, filters, loss and runs.
        report: the report of the selection, as JSON.
        sources: the sha256 of each run's records.
        rows, tokens, trained: totals; ``trained`` counts tokens in the loss.
        hint_loss: number of rows by how the loss treats their hints.
        refused_rows: selected traces that could not be made a row, by reason.
        digest: the sha256 of ``rows.jsonl``.
        versions: versions of the packages that made it.
    """

    config: dict[str, Any]
    report: dict[str, Any]
    sources: dict[str, str]
    rows: int
    tokens: int
    trained: int
    hint_loss: dict[str, int]
    refused_rows: dict[str, int]
    digest: str
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready object."""
        return {"schema": _SCHEMA, **{name: getattr(self, name) for name in self.__slots__}}


def write_data(
    path: Path, selection: Selection, policy: LossPolicy, *, config: Mapping[str, Any], max_length: int | None = None
) -> DataSet:
    """Write the rows of a selection. The manifest comes last, so that an interrupted write leaves no complete folder.

    Args:
        path: a new folder, or one left by a killed process.
        selection: the selected traces.
        policy: which tokens are in the loss.
        config: the configuration that determines the rows, JSON-able; stored in the manifest.
        max_length: maximum tokens of a row.

    Raises:
        DataError: no row is left, the folder has other content, or it cannot be written.
    """
    refused: Counter[str] = Counter()
    hint_loss: Counter[str] = Counter()
    rows = tokens = trained = 0
    unsorted, lock = path / (ROWS + ".unsorted"), -1
    try:
        folder = NewFolder(path)
        if (path / RECORDS).exists() or ((path / CARD).exists() and not (path / ROWS).exists()):
            raise DataError(f"{path} has other files, which would be overwritten: choose a new folder")
        lock = lock_folder(path)
        sources = source_digests(selection.runs)
        places: list[tuple[str, int, int]] = []  # sort key of the row, its offset in the file, its length
        with unsorted.open("wb+") as file:
            for chosen in selection:
                try:
                    row = columns_of(chosen, selection.tokenizer, policy, max_length)
                except RowError as error:
                    refused[error.reason] += 1
                    continue
                line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
                places.append((f"{row['key']} {row['run']}", file.tell(), len(line)))
                file.write(line)
                rows, tokens, trained = rows + 1, tokens + len(row["input_ids"]), trained + sum(row["assistant_masks"])
                hint_loss[row["hint_loss"]] += 1
            if rows:
                digest = _write_sorted(path / ROWS, file, places)
            unsorted.unlink()
        if not rows:
            raise DataError(f"no trace is left to train on; {_left_out(selection, refused)}")
        found = DataSet(
            json.loads(json.dumps(config)),
            selection.report.to_json(),
            sources,
            rows,
            tokens,
            trained,
            dict(hint_loss),
            dict(refused),
            digest,
            versions(),
        )
        (path / CARD).write_text(card(found.to_json()), encoding="utf-8")
        write_json(path / MANIFEST, found.to_json())
    except BaseException as error:
        if lock >= 0:
            folder.take_back(LOCK, ROWS, unsorted.name, CARD, MANIFEST)
        if isinstance(error, OSError):
            raise DataError(f"cannot write the data folder {path}: {error.strerror}") from error
        raise
    finally:
        if lock >= 0:
            os.close(lock)
    return found


def columns_of(
    chosen: Chosen, tokenizer: Tokenizer, policy: LossPolicy, max_length: int | None = None
) -> dict[str, Any]:
    """All columns of a row: provenance, training columns, and a readable copy. Raises RowError."""
    record = chosen.record
    row = make_row(chosen.trace, tokenizer, policy, key=record["key"], max_length=max_length)
    view = TraceView(chosen.trace, tokenizer)
    edges = accumulate((length for _, length in row.spans), initial=0)
    texts = (tokenizer.decode(_readable(row.input_ids[begin:end], tokenizer)) for begin, end in pairwise(edges))
    spans = [
        {"kind": kind, "length": length, "text": text} for (kind, length), text in zip(row.spans, texts, strict=True)
    ]
    return {
        **{name: record[name] for name in ("key", "problem", "sample", "question", "gold", "answer")},
        "run": chosen.run,
        "source": chosen.source,
        **{name: value for name, value in row.to_json().items() if name not in ("key", "spans")},
        "spans": spans,
        "messages": messages(view, hints=row.hint_loss != "drop"),
        "tools": TOOLS,
    }


def read_data(path: Path, config: Mapping[str, Any] | None = None) -> DataSet | None:
    """The manifest of a data folder; None if the folder has no complete data set.

    Raises:
        DataError: it cannot be read, or its configuration differs from ``config``.
    """
    try:
        content = json.loads((path / MANIFEST).read_bytes())
        if content.pop("schema") != _SCHEMA:
            raise DataError(f"{path / MANIFEST} was written by an incompatible version of start-agent")
        found = DataSet(**content)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise DataError(f"{path} is not a folder: name a data folder") from None
    except OSError as error:
        raise DataError(f"cannot read {path / MANIFEST}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {path / MANIFEST}: {error}") from error
    if config is not None and (different := differences(found.config, json.loads(json.dumps(config)))):
        raise DataError(
            f"{path} has data with another configuration: {'; '.join(different[:8])}. Choose another folder"
        )
    return found


def need_data(path: Path) -> DataSet:
    """The manifest of a data folder. Raises DataError if the folder has no complete data set."""
    found = read_data(path)
    if found is None:
        raise DataError(f"{path} is not a data folder: it has no {MANIFEST}; make one with  start-agent select")
    return found


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data folder, or of a JSONL file of rows.

    Raises:
        DataError: it cannot be read; or, after the last row of a data folder, its rows were changed after writing.
    """
    if path.is_file():
        yield from read_jsonl(path)
        return
    digest, expected = sha256(), need_data(path).digest
    yield from read_jsonl(path / ROWS, digest.update)
    if digest.hexdigest() != expected:
        raise DataError(f"{path / ROWS} was changed after it was written: select again, or name the file itself")


def read_jsonl(path: Path, on_line: Callable[[bytes], None] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file; empty lines are skipped.

    Args:
        path: the file.
        on_line: called with each line before it is parsed.

    Raises:
        DataError: it cannot be read, or a line is not a JSON object; the message has the line's number.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if on_line is not None:
                    on_line(line)
                if line.isspace():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{path}, line {number}: a row must be a JSON object")
                yield row
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not JSON: {error}") from error


@dataclass(slots=True)
class Checked:
    """The comparison of rows with their runs.

    Attributes:
        rows: number of rows.
        missing: rows whose record is gone.
        changed: rows whose record has another trace now.
        intact: whether ``rows.jsonl`` is unchanged.
    """

    rows: int = 0
    missing: int = 0
    changed: int = 0
    intact: bool = True

    @property
    def good(self) -> bool:
        """Whether nothing has changed."""
        return self.intact and not self.missing and not self.changed


def check(path: Path) -> Checked:
    """Compare a data folder with its runs. Raises DataError, and RunDirectoryError if a run is gone."""
    found = Checked(intact=True)
    pending: dict[str, dict[str, str]] = {}  # by run: the source of each record
    expected, digest = need_data(path).digest, sha256()
    for row in read_jsonl(path / ROWS, digest.update):
        found.rows += 1
        pending.setdefault(row["run"], {})[row["key"]] = row["source"]
    found.intact = digest.hexdigest() == expected
    for run, sources in pending.items():
        for record in read_records(Path(run)):
            source = sources.pop(record["key"], None)
            found.changed += source is not None and source != trace_digest(record["trace"])
        found.missing += len(sources)
    return found


def model_of(runs: tuple[Path, ...]) -> str:
    """The model that runs were made with, from their configuration.

    Raises:
        ConfigError: the configuration does not name it, or the runs were made with several models.
        RunDirectoryError: a run cannot be read.
    """
    models = {str(read_config(run).get("model", {}).get("model", "")) for run in runs}
    if len(models) != 1 or "" in models:
        raise ConfigError(
            f"give the --model that made the runs: they name {', '.join(sorted(models - {''})) or 'none'}"
        )
    return models.pop()


def source_digests(runs: tuple[Path, ...]) -> dict[str, str]:
    """The sha256 of each run's records. Raises RunDirectoryError."""
    found: dict[str, str] = {}
    for run in runs:
        try:
            found[str(run)] = file_digest(run / RECORDS)
        except OSError as error:
            raise RunDirectoryError(
                f"{run} is not a run directory: cannot read its {RECORDS}: {error.strerror}"
            ) from error
    return found


def _write_sorted(path: Path, lines: BinaryIO, places: list[tuple[str, int, int]]) -> str:
    """Write the lines in a deterministic order, by sort key. Returns the sha256 of the file."""
    lines.flush()
    digest = sha256()
    with atomic_write(path) as file:
        for _, begin, size in sorted(places):
            lines.seek(begin)
            line = lines.read(size)
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def _readable(token_ids: tuple[int, ...], tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids without a final end-of-sequence token."""
    return token_ids[:-1] if token_ids[-1] in tokenizer.eos_ids else token_ids


def _left_out(selection: Selection, refused: Mapping[str, int]) -> str:
    """A message with the number of records left out, by reason."""
    report = selection.report
    counts = {"incorrect": report.wrong, "correct without a hint": report.greedy_right}
    counts |= {"no greedy trace": report.no_greedy} | dict(report.refused) | dict(refused)
    reasons = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return f"{report.records} records were read ({reasons or 'none rejected'})"
