"""Data sets → problems, through the ``datasets`` package."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from start_agent.errors import ConfigError, DataError, MissingExtraError
from start_agent.problem import Kind, Problem
from start_agent.tasks.definitions import TASKS
from start_agent.tasks.options import DataOptions
from start_agent.tasks.reading import by_columns
from start_agent.tasks.task import Row, Source, Task

_log = logging.getLogger(__name__)

POCKET_COUNT = 500
"""Problems of a pocket task where no limit is given: the size of the held-out set."""

_FORMATS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".parquet": "parquet"}


def load(task: str | None = None, **options: Any) -> list[Problem]:
    """All problems of a task or a data set at once: ``load("gsm8k", data="gsm8k-test.jsonl", limit=10)``.

    The keywords are the fields of ``DataOptions``. Raises what ``stream`` raises.
    """
    return list(stream(DataOptions(task=task, **options)))


def stream(options: DataOptions) -> Iterator[Problem]:
    """The problems one after the other, each question once; large sets need no more memory than small ones.

    A repeated question (with the same choices and tests) is left out, and their number logged at the end.

    Raises:
        ConfigError: no such task, or neither a task nor columns.
        DataError: the set cannot be found or read, or a column is missing; one line, with the columns there are.
        MissingExtraError: ``datasets`` is not installed.
    """
    task = resolve_task(options)
    if task.make is not None:
        if options.data is not None:
            raise ConfigError(f"the problems of {task.name!r} are made, not read: leave --data out")
        yield from task.make(options.limit or POCKET_COUNT, options.split)
        return
    source = _source(task, options)
    seen: set[bytes] = set()
    repeated = 0
    for problem in _problems(task, source, options):
        key = bytes.fromhex(problem.key)
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        yield problem
        if len(seen) == options.limit:
            break
    if not seen:
        raise DataError(f"{source.path} has no rows")
    if repeated:
        _log.warning("%s: %d rows repeat a question and were left out", source.path, repeated)


def resolve_task(options: DataOptions) -> Task:
    """The task that the options name, or the one that their columns define.

    Raises:
        ConfigError: no such task, or columns that are not named, or named beside a task.
    """
    columns = {name: getattr(options, f"{name}_column") for name in ("question", "answer", "level", "subject")}
    columns["choices"] = options.choices_column
    named = [name for name, value in columns.items() if value]
    if options.task is not None:
        if options.task not in TASKS:
            raise ConfigError(f"no task {options.task!r}: known are {_names()}; or name a set with --data")
        if named:
            raise ConfigError(
                f"--{named[0]}-column: the task {options.task!r} knows its columns; leave it or --task out"
            )
        return TASKS[options.task]
    if options.data is None:
        raise ConfigError(f"name a --task ({_names()}), or --data with --question-column and --answer-column")
    if not columns["question"] or not columns["answer"]:
        raise ConfigError("--data without --task needs --question-column and --answer-column")
    read = by_columns(
        columns["question"],
        columns["answer"],
        level=columns["level"],
        subject=columns["subject"],
        choices=columns["choices"],
    )
    return Task(Path(options.data).stem, Kind.CHOICE if columns["choices"] else Kind.MATH, read)


def _names() -> str:
    families = [name.removeprefix("pocket_") for name in TASKS if name.startswith("pocket_")]
    return ", ".join([name for name in TASKS if not name.startswith("pocket_")] + [f"pocket_{{{','.join(families)}}}"])


def _source(task: Task, options: DataOptions) -> Source:
    if options.data is not None:
        return Source(options.data, options.subset, options.split or "test", large=bool(options.stream))
    assert task.source is not None, f"the task {task.name} has neither a source nor a maker"
    own = task.source
    return Source(
        own.path,
        options.subset or own.subset,
        options.split or own.split,
        large=own.large if options.stream is None else options.stream,
    )


def _problems(task: Task, source: Source, options: DataOptions) -> Iterator[Problem]:
    assert task.read is not None
    for number, row in enumerate(_rows(source, options), start=1):
        try:
            yield task.read(row, options.choice_seed)
        except DataError as error:
            raise DataError(f"{source.path}, row {number}: {error}") from error


def _rows(source: Source, options: DataOptions) -> Iterator[Row]:
    """The rows of a file, a folder or a hub set. Local files are always streamed: no copy of them is made."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "data") from error
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # what they have to say is in the error that is raised
    path = Path(source.path).expanduser()
    arguments: dict[str, Any]
    if source.path.startswith("hf://"):
        arguments = {"path": "json", "data_files": source.path, "split": source.split, "streaming": source.large}
    elif path.exists():
        files = data_files(path)
        if not any(file.stat().st_size for file in files):
            raise DataError(f"{source.path} has no rows")
        arguments = {"path": _FORMATS[files[0].suffix.lower()], "data_files": [str(file) for file in files]}
        arguments |= {"split": "train", "streaming": True}
    elif path.suffix.lower() in _FORMATS or source.path.startswith((".", "/", "~")) or source.path.count("/") > 1:
        raise DataError(f"there is no file or folder {source.path!r}")
    else:
        name = source.subset or None
        arguments = {"path": source.path, "name": name, "split": source.split, "streaming": source.large}
    try:
        rows: Iterable[Row] = datasets.load_dataset(**arguments)
        yield from rows
    except Exception as error:  # whatever `datasets`, the hub's client, Arrow and the HTTP library raise
        reason = " ".join(str(error.__cause__ or error).split())[:300] or type(error).__name__
        hint = "" if path.exists() else "; check the name and the network, or give a local file with --data"
        raise DataError(f"cannot read {source.path}: {reason}{hint}") from error


def data_files(path: Path) -> list[Path]:
    """The data files at a path, all of one format. Raises DataError."""
    if path.is_file():
        if path.suffix.lower() not in _FORMATS:
            raise DataError(f"{path} is of no known format: known are {', '.join(_FORMATS)}")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _FORMATS)
    formats = {_FORMATS[file.suffix.lower()] for file in files}
    if len(formats) != 1:
        found = "files of several formats" if formats else "no JSONL or Parquet files"
        raise DataError(f"the folder {path} has {found}: name the file")
    return files
