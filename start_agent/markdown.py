"""Markdown tables, for cards and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

_NAMES_AND_VALUES = ("", "")


def table(rows: Mapping[str, object] | Iterable[Sequence[object]], header: Sequence[object] = _NAMES_AND_VALUES) -> str:
    """A table in GitHub's Markdown, a line break at its end.

    Args:
        rows: the cells of each row, or names with their values. A whole number gets thousands separators; what would
            end a cell, a ``|`` or a line break, is escaped.
        header: one cell for each column.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    lines = [_line(header), "|" + "---|" * len(header)]
    for row in rows.items() if isinstance(rows, Mapping) else rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(header)} columns")
        lines.append(_line(row))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[object]) -> str:
    # An empty cell has one blank: Markdown wants no more, and files stay as they were.
    return "|" + "|".join(f" {text} " if (text := _text(cell)) else " " for cell in cells) + "|"


def _text(cell: object) -> str:
    text = f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
    return " ".join(text.splitlines()).replace("|", r"\|")
