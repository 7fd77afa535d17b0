"""Plots the figures of a reproduction's report, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from start_agent.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR, _TOOL = "#4c72b0", "#dd8452"
_DPI = 110

_BARS = {
    "table": "held-out problems",
    "ablation": "without hints, by treatment of hints in the loss",
    "third-round": "masked hints, by training round",
}
"""Title of each part that is plotted as bars; `rounds` is plotted as lines."""


def draw(folder: Path, report: Mapping[str, Any]) -> dict[str, str]:
    """Plot a figure for each part of the report. Returns file names by part. Raises MissingExtraError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    found = {}
    for part in ("rounds", *_BARS):
        if part in report:
            figure = Figure(figsize=(7.2, 3.8), layout="constrained")
            axes = figure.subplots()
            if part in _BARS:
                _bars(axes, list(report[part].values()), _BARS[part])
            else:
                _rounds(axes, report[part])
            found[part] = f"{part}.png"
            figure.savefig(folder / found[part], dpi=_DPI)
    return found


def _bars(axes: Axes, rows: list[Mapping[str, Any]], title: str) -> None:
    """Accuracy with its interval, and the rate of unhinted Python calls."""
    height = 0.38
    places = list(range(len(rows)))[::-1]
    right = [100 * row["accuracy"] for row in rows]
    errors = [[100 * abs(row["interval"][side] - row["accuracy"]) for row in rows] for side in (0, 1)]
    axes.barh(
        [place + height / 2 for place in places], right, height, xerr=errors, color=_BAR, label="correct", capsize=2
    )
    unhinted = [100 * row["unhinted_rate"] for row in rows]
    axes.barh(
        [place - height / 2 for place in places], unhinted, height, color=_TOOL, label="unhinted Python call (greedy)"
    )
    axes.set_yticks(places, [row["title"] for row in rows], fontsize=8)
    axes.set_xlim(0, 105)
    axes.set_xlabel("% of problems")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)  # below the axes, where no bar is


def _rounds(axes: Axes, found: Mapping[str, Any]) -> None:
    for model, rows in found.items():
        right = [100 * row["accuracy"] for row in rows]
        errors = [[100 * abs(row["interval"][side] - row["accuracy"]) for row in rows] for side in (0, 1)]
        axes.errorbar(range(len(rows)), right, yerr=errors, marker="o", capsize=3, label=model)
    axes.set_xticks(range(max(len(rows) for rows in found.values())))
    axes.set_xlabel("end-of-thinking hints")
    axes.set_ylabel("% correct")
    axes.grid(alpha=0.3)
    axes.legend()
