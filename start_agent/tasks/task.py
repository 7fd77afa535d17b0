"""What a task is: where its rows come from, and how a row becomes a problem."""

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
    """Where a data set is found.

    Attributes:
        path: a file, a folder, a name of the hub, or a folder of files there (``hf://datasets/...``).
        subset: the configuration of a hub set; empty for its only one.
        split: "train", "test", ...
        large: whether it is streamed, not downloaded and converted as a whole.
        files: the names of the files to read in the folder; empty for all data files of a local one. On the hub they
            may be patterns.
    """

    path: str
    subset: str = ""
    split: str = "test"
    large: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of problems under a name.

    Attributes:
        name: what it is called on the command line.
        kind: of all its problems.
        read: makes a problem of a row, given the seed that shuffles choices. A column that is not there is asked for
            through ``column``, which raises DataError.
        source: where its rows are when no file is given; None of problems that are made, not read, and of a task whose
            rows are always given.
        releases: the names of the files of a release; None of sets that have none.
        make: makes so many problems of a split (None: the task's own), where there is no source.
        shuffles: whether the seed that ``read`` is given decides anything.
        about: one line.
        grader: what judges answers to its problems: a name or ``module:object``, as ``--grader`` takes them; empty for
            the grader of its kind.
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
            raise ValueError(f"the task {self.name!r} needs one of read and make")


def column(row: Row, *names: str) -> Any:
    """The value of the first of these columns that the row has.

    Raises:
        DataError: it has none of them; lists the columns that there are.
    """
    for name in names:
        if name in row:
            return row[name]
    wanted = " or ".join(repr(name) for name in names)
    raise DataError(f"there is no column {wanted}; the columns are {', '.join(map(str, row)) or 'none at all'}")


def text_of(row: Row, *names: str) -> str:
    """The text in the first of these columns that the row has; a number, a date or a time as text.

    Raises:
        DataError: it has none of them, or something else is in it.
    """
    value = column(row, *names)
    name = next(name for name in names if name in row)
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise DataError(f"the column {name!r} holds {value} where a text is needed")
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal | date | time):
        raise DataError(f"the column {name!r} holds {_described(value)} where a text is needed")
    text = (format(value, "f") if isinstance(value, Decimal) else str(value)).strip()
    if not text:
        raise DataError(f"the column {name!r} is empty")
    return text


def meta_of(row: Row, **columns: str) -> dict[str, Any]:
    """What else is known of a problem: the columns that the row has, under the names given."""
    known = {key: row[name] for key, name in columns.items() if row.get(name) not in (None, "")}
    return {key: _plain(value) for key, value in known.items() if value == value}  # a NaN stands for nothing


def _plain(value: Any) -> Any:
    """JSON-able: Parquet has numbers, dates and times that JSON has not."""
    return value if isinstance(value, str | int | float | list | dict) else str(value)


def _described(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
