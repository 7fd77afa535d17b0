"""Loads problems from local files and, with the ``datasets`` package, from the Hub."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from start_agent.errors import ConfigError, DataError, MissingExtraError
from start_agent.fields import coerce
from start_agent.problem import Kind, Problem
from start_agent.tasks.definitions import TASKS, known_tasks, listed
from start_agent.tasks.files import FORMATS, data_files, read_files
from start_agent.tasks.options import DataOptions
from start_agent.tasks.reading import by_columns
from start_agent.tasks.task import Row, Source, Task

_log = logging.getLogger(__name__)

POCKET_COUNT = 500
"""The default number of problems of a task that generates them: the size of the pocket tasks' held-out set."""


def load(task: str | None = None, **options: Any) -> list[Problem]:
    """All problems of a task or a data set as a list: ``load("gsm8k", data="gsm8k-test.jsonl", limit=10)``.

    The keywords are the fields of ``DataOptions``. Raises what ``stream`` raises.
    """
    return list(stream(coerce(DataOptions, {"task": task, **options})))


def stream(options: DataOptions) -> Iterator[Problem]:
    """The problems one by one, each question once; memory use does not depend on the size of the set.

    A repeated question (with the same choices and tests) is skipped; the number of skipped rows is logged at the end.

    Raises:
        ConfigError: no such task, or neither a task nor columns.
        DataError: the set cannot be found or read, or a column is missing; one line, with the existing columns.
        MissingExtraError: ``datasets`` (for a set on the Hub) or ``pyarrow`` (for a Parquet file) is not installed.
    """
    task = resolve_task(options)
    if task.make is not None:
        if options.data is not None:
            raise ConfigError(f"the task {task.name!r} generates its problems; remove --data")
        yield from task.make(options.limit or POCKET_COUNT, options.split)
        return
    source = _source(task, options)
    seen: set[bytes] = set()
    repeated = 0
    for problem in filter(partial(_in_time, options), _problems(task, source, options)):
        key = bytes.fromhex(problem.key)
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        yield problem
        if len(seen) == options.limit:
            break
    if not seen:
        dated = f" from {options.start_date or 'the first'} to {options.end_date or 'the last'}"
        raise DataError(f"{source.path} has no rows{dated if options.start_date or options.end_date else ''}")
    if repeated:
        _log.warning("%s: skipped %d rows that repeat a question", source.path, repeated)


def resolve_task(options: DataOptions) -> Task:
    """The task that the options choose by name or by ``module:object``, or that their columns define.

    Raises:
        ConfigError: no such task; column options are missing, or given together with a task.
    """
    columns = {name: getattr(options, f"{name}_column") for name in ("question", "answer", "level", "subject")}
    columns["choices"] = options.choices_column
    named = [name for name, value in columns.items() if value]
    if options.task is not None:
        task = TASKS.find(options.task)
        if named:
            raise ConfigError(
                f"--{named[0]}-column: the task {options.task!r} defines its columns; remove this option or --task"
            )
        return task
    if options.data is None:
        names = listed(known_tasks())
        raise ConfigError(f"use --task ({names}), or --data with --question-column and --answer-column")
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


def _in_time(options: DataOptions, problem: Problem) -> bool:
    """Whether a problem's date is in the range of the options. ISO dates sort as strings."""
    if not options.start_date and not options.end_date:
        return True
    day = str(problem.meta.get("date", ""))[:10]
    if not day:
        raise DataError("--start-date, --end-date: a problem has no date; only livecodebench has dates (contest_date)")
    return (options.start_date or day) <= day <= (options.end_date or day)


def _source(task: Task, options: DataOptions) -> Source:
    files: tuple[str, ...] = ()
    if options.release:
        if task.releases is None:
            raise ConfigError(f"--release: {task.name} has no releases; only livecodebench has")
        files = task.releases(options.release)
    if options.data is not None:
        return Source(options.data, options.subset, options.split or "test", large=bool(options.stream), files=files)
    own = task.source
    if own is None:
        raise ConfigError(f"the task {task.name!r} has no data set of its own; use --data")
    return Source(
        own.path,
        options.subset or own.subset,
        options.split or own.split,
        large=own.large if options.stream is None else options.stream,
        files=files or own.files,
    )


def _problems(task: Task, source: Source, options: DataOptions) -> Iterator[Problem]:
    assert task.read is not None
    for number, row in enumerate(_rows(source, options), start=1):
        try:
            problem = task.read(row, options.choice_seed or 0)
        except DataError as error:
            raise DataError(f"{source.path}, row {number}: {error}") from error
        if options.tolerance and problem.tests is not None:
            problem = replace(problem, tests=replace(problem.tests, tolerance=options.tolerance))
        yield problem


def _rows(source: Source, options: DataOptions) -> Iterator[Row]:
    """The rows of a file, a folder or a Hub set. Local files are always streamed, never copied to a cache."""
    path = Path(source.path).expanduser()
    on_hub = source.path.startswith("hf://")
    if not on_hub and path.exists():
        yield from read_files(_chosen(path, source.files) if source.files else data_files(path, options.split))
    elif not on_hub and _is_path(source.path):
        raise DataError(f"there is no file or folder {source.path!r}")
    else:
        yield from _hub_rows(source)


def _chosen(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files with these names in a folder. Raises DataError if one is missing."""
    files = [folder / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataError(f"--release: {folder} does not have all files of the release: missing {', '.join(missing)}")
    return files


def _is_path(path: str) -> bool:
    return Path(path).suffix.lower() in FORMATS or path.startswith((".", "/", "~")) or path.count("/") > 1


def _hub_rows(source: Source) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "data") from error
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # the raised error has the same information
    arguments: dict[str, Any] = {"split": source.split, "streaming": source.large}
    if source.path.startswith("hf://"):
        files = [f"{source.path}/{name}" for name in source.files] or source.path
        arguments |= {"path": "json", "data_files": files}
    else:
        arguments |= {"path": source.path, "name": source.subset or None}
    try:
        rows: Iterable[Row] = datasets.load_dataset(**arguments)
        yield from rows
    except Exception as error:  # of `datasets`, the Hub's client, Arrow or the HTTP library
        reason = " ".join(str(error.__cause__ or error).split())[:300] or type(error).__name__
        hint = "; check the name and the network, or use a local file with --data"
        raise DataError(f"cannot read {source.path}: {reason}{hint}") from error
