"""Data sets → problems: files are read here, sets of the hub through the ``datasets`` package."""

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
"""Problems of a task that makes them, where no limit is given: as many as the held-out set of the pocket tasks has."""


def load(task: str | None = None, **options: Any) -> list[Problem]:
    """All problems of a task or a data set at once: ``load("gsm8k", data="gsm8k-test.jsonl", limit=10)``.

    The keywords are the fields of ``DataOptions``. Raises what ``stream`` raises.
    """
    return list(stream(coerce(DataOptions, {"task": task, **options})))


def stream(options: DataOptions) -> Iterator[Problem]:
    """The problems one after the other, each question once; large sets need no more memory than small ones.

    A repeated question (with the same choices and tests) is left out, and their number logged at the end.

    Raises:
        ConfigError: no such task, or neither a task nor columns.
        DataError: the set cannot be found or read, or a column is missing; one line, with the columns there are.
        MissingExtraError: a set of the hub needs ``datasets``, a Parquet file ``pyarrow``, which is not installed.
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
        dated = f" between {options.start_date or 'the first'} and {options.end_date or 'the last'}"
        raise DataError(f"{source.path} has no rows{dated if options.start_date or options.end_date else ''}")
    if repeated:
        _log.warning("%s: %d rows repeat a question and were left out", source.path, repeated)


def resolve_task(options: DataOptions) -> Task:
    """The task that the options name, by its name or at ``module:object``, or the one that their columns define.

    Raises:
        ConfigError: no such task, or columns that are not named, or named beside a task.
    """
    columns = {name: getattr(options, f"{name}_column") for name in ("question", "answer", "level", "subject")}
    columns["choices"] = options.choices_column
    named = [name for name, value in columns.items() if value]
    if options.task is not None:
        task = TASKS.find(options.task)
        if named:
            raise ConfigError(
                f"--{named[0]}-column: the task {options.task!r} knows its columns; leave it or --task out"
            )
        return task
    if options.data is None:
        names = listed(known_tasks())
        raise ConfigError(f"name a --task ({names}), or --data with --question-column and --answer-column")
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
    """Whether a problem's day lies between the dates of the options. Days in ISO's form are in the order of texts."""
    if not options.start_date and not options.end_date:
        return True
    day = str(problem.meta.get("date", ""))[:10]
    if not day:
        raise DataError("--start-date, --end-date: a problem has no date; those of livecodebench have (contest_date)")
    return (options.start_date or day) <= day <= (options.end_date or day)


def _source(task: Task, options: DataOptions) -> Source:
    files: tuple[str, ...] = ()
    if options.release:
        if task.releases is None:
            raise ConfigError(f"--release: {task.name} has no releases; livecodebench has")
        files = task.releases(options.release)
    if options.data is not None:
        return Source(options.data, options.subset, options.split or "test", large=bool(options.stream), files=files)
    own = task.source
    if own is None:
        raise ConfigError(f"the task {task.name!r} reads rows, and does not say where they are: name them with --data")
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
    """The rows of a file, a folder or a hub set. Local files are always streamed: no copy of them is made."""
    path = Path(source.path).expanduser()
    on_hub = source.path.startswith("hf://")
    if not on_hub and path.exists():
        yield from read_files(_chosen(path, source.files) if source.files else data_files(path, options.split))
    elif not on_hub and _names_a_file(source.path):
        raise DataError(f"there is no file or folder {source.path!r}")
    else:
        yield from _hub_rows(source)


def _chosen(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The named files of a folder. Raises DataError where one is not there."""
    files = [folder / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataError(f"--release: {folder} is no folder with the release's files: there is no {', '.join(missing)}")
    return files


def _names_a_file(path: str) -> bool:
    return Path(path).suffix.lower() in FORMATS or path.startswith((".", "/", "~")) or path.count("/") > 1


def _hub_rows(source: Source) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "data") from error
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # what they have to say is in the error that is raised
    arguments: dict[str, Any] = {"split": source.split, "streaming": source.large}
    if source.path.startswith("hf://"):
        files = [f"{source.path}/{name}" for name in source.files] or source.path
        arguments |= {"path": "json", "data_files": files}
    else:
        arguments |= {"path": source.path, "name": source.subset or None}
    try:
        rows: Iterable[Row] = datasets.load_dataset(**arguments)
        yield from rows
    except Exception as error:  # whatever `datasets`, the hub's client, Arrow and the HTTP library raise
        reason = " ".join(str(error.__cause__ or error).split())[:300] or type(error).__name__
        hint = "; check the name and the network, or give a local file with --data"
        raise DataError(f"cannot read {source.path}: {reason}{hint}") from error
