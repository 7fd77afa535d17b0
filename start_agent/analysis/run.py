"""A run directory as an object: its summary, its records and traces, a table, a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from start_agent.analysis.compare import Comparison, compare_runs, read_run
from start_agent.analysis.summary import Summary, summarize
from start_agent.batch.record import traces_of
from start_agent.batch.store import read_config, read_records
from start_agent.errors import MissingExtraError
from start_agent.trace import Trace

if TYPE_CHECKING:
    import pandas

_COLUMNS = ("key", "problem", "sample", "kind", "question", "gold", "answer", "correct", "outcome")


@dataclass(frozen=True)
class Run:
    """A run directory, read on demand.

    Attributes:
        path: the folder; one given as a string becomes a ``Path``.
        failed: number of traces that failed in the latest start and are still pending; 0 if the run was only opened.
    """

    path: Path
    failed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # of a frozen dataclass

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration that determines the records. Raises RunDirectoryError."""
        return read_config(self.path)

    @cached_property
    def summary(self) -> Summary:
        """The summary of the run. Raises RunDirectoryError."""
        samples = self.config.get("batch", {}).get("samples", 1)
        return summarize(self.path, samples if isinstance(samples, int) else 1)

    @property
    def accuracy(self) -> float | None:
        """The share of correct records; None if there are no records. Raises RunDirectoryError."""
        return self.summary.accuracy

    def records(self, *, traces: bool = True) -> Iterator[dict[str, Any]]:
        """Yield the records; reading is many times faster without traces. Raises RunDirectoryError."""
        return read_records(self.path, traces=traces)

    def traces(self) -> Iterator[Trace]:
        """The traces in order of completion. Raises RunDirectoryError, TraceFormatError."""
        return (Trace.from_json(record["trace"]) for record in self.records())

    def to_pandas(self) -> pandas.DataFrame:
        """A row per record, without its trace, with separate columns for counts, timing and ``meta``.

        Raises:
            MissingExtraError: pandas is not installed.
            RunDirectoryError: the records cannot be read.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("pandas", "data") from error
        rows = []
        for record in self.records(traces=False):
            row = {name: record[name] for name in _COLUMNS}
            row["reason"], row["traces"] = record["verdict"].get("reason"), traces_of(record)
            row |= record["counts"] | record["course"] | {f"meta.{name}": v for name, v in record["meta"].items()}
            rows.append(row)
        return pandas.DataFrame(rows)

    def compare(self, *others: Run) -> Comparison:
        """Compare other runs on the same problems with this one, each as a pair.

        Raises:
            InputError: they have no problem in common.
            RunDirectoryError: one cannot be read.
        """
        runs = (self, *others)
        names = _names(runs)
        return compare_runs({name: read_run(run.path) for name, run in zip(names, runs, strict=True)})

    def _repr_html_(self) -> str:
        from html import escape

        found = self.summary
        accuracy = "none" if found.accuracy is None else f"{found.accuracy:.1%}"
        return (
            f"<b>{escape(str(self.path))}</b>: {found.records} records, {found.problems} problems, {accuracy} correct"
        )


def _names(runs: tuple[Run, ...]) -> list[str]:
    """The names of the folders; their paths if names are not unique."""
    names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]
