"""The definition of a task: where its rows are, and how a row becomes a problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from typing import Any

from start_agent.errors import DataError
from start_agent.problem import Kind, Problem

Row = Mapping[str, Any]
"""One row of a data set, by column."""


@dataclass(frozen=True, slots=True)
class Source:
    """The location of a data set.

    Attributes:
        path: a file, a folder, a name on the Hub, or a folder of files there (``hf://datasets/...``).
        subset: the configuration of a Hub set; empty if there is only one.
        split: "train", "test", ...
        large: whether it is streamed instead of downloaded and converted completely.
        files: the names of the files to read in the folder; empty for all data files of a local folder. On the Hub
            they may be patterns.
    """

    path: str
    subset: str = ""
    split: str = "test"
    large: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A named set of problems.

    Attributes:
        name: its name on the command line.
        kind: the kind of all its problems.
        read: (row, seed for shuffling choices) → a problem. It gets columns with ``column``, which raises DataError if
            they are missing.
        source: the default location of its rows; None if the problems are generated, or the rows are always given.
        releases: the name of a release → the names of its files; None for sets without releases.
        make: (number of problems, split or None for the default split) → generated problems; None if rows are read.
        shuffles: whether ``read`` uses its seed.
        about: a description of one line.
        grader: the grader of its answers: a name or ``module:object``, as for ``--grader``; empty for the default
            grader of its kind.
    """

    name: str
    kind: Kind
    read: Callable[[Row, int], Problem] | None = None
    source: Source | None = None
    releases: Callable[[str], tuple[str, ...]] | None = field(default=None)
    make: Callable[[int, str | None], list[Problem]] | None = field(default=None)
    shuffles: bool = False
    about: str = ""
    grader: str = ""

    def __post_init__(self) -> None:
        if (self.read is None) == (self.make is None):
            raise ValueError(f"the task {self.name!r} needs exactly one of read and make")


def column(row: Row, *names: str) -> Any:
    """The value of the first of these columns that the row has.

    Raises:
        DataError: it has none of them; the message lists the existing columns.
    """
    for name in names:
        if name in row:
            return row[name]
    wanted = " or ".join(repr(name) for name in names)
    raise DataError(f"there is no column {wanted}; the columns are {', '.join(map(str, row)) or 'none at all'}")


def text_of(row: Row, *names: str) -> str:
    """The text of the first of these columns that the row has; numbers, dates and times are converted to text.

    Raises:
        DataError: it has none of them, or the value has another type.
    """
    value = column(row, *names)
    name = next(name for name in names if name in row)
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise DataError(f"the column {name!r} must be text, but is {value}")
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal | date | time):
        raise DataError(f"the column {name!r} must be text, but is {_described(value)}")
    text = (format(value, "f") if isinstance(value, Decimal) else str(value)).strip()
    if not text:
        raise DataError(f"the column {name!r} is empty")
    return text


def meta_of(row: Row, **columns: str) -> dict[str, Any]:
    """Metadata of a problem: new name=column, for the columns that the row has and that are not empty."""
    known = {key: row[name] for key, name in columns.items() if row.get(name) not in (None, "")}
    return {key: _plain(value) for key, value in known.items() if value == value}  # NaN means missing


def _plain(value: Any) -> Any:
    """A JSON-able value: Parquet has numbers, dates and times that JSON does not have."""
    return value if isinstance(value, str | int | float | list | dict) else str(value)


def _described(value: object) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
