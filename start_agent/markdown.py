"""Markdown tables for model cards and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

_NAMES_AND_VALUES = ("", "")


def table(rows: Mapping[str, object] | Iterable[Sequence[object]], header: Sequence[object] = _NAMES_AND_VALUES) -> str:
    """A table in GitHub's Markdown, with a trailing line break.

    Args:
        rows: the cells of each row, or a mapping of names to values. Integers get thousands separators; ``|`` is
            escaped and line breaks become blanks.
        header: one cell per column.

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
    # An empty cell has one blank, so that files written by earlier versions do not change.
    return "|" + "|".join(f" {text} " if (text := _text(cell)) else " " for cell in cells) + "|"


def _text(cell: object) -> str:
    text = f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
    return " ".join(text.splitlines()).replace("|", r"\|")
