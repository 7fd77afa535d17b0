"""Plots accuracy by iteration, with a panel for each number of digits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from start_agent.errors import MissingExtraError
from start_agent.papers.addition.text import DIGITS

_COLOURS = {"with": "#0b6fb8", "without": "#d1661a", "direct": "#777777"}


def draw_figure(report: Mapping[str, Any], path: Path) -> None:
    """Plot the curves of a report, with 95% intervals, as a PNG. Raises MissingExtraError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(11, 2.9), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(DIGITS), sharey=True)
    for size, axes in zip(DIGITS, panels, strict=True):
        for name, iterations in report["variants"].items():
            points = [(one["number"], one["held_out"][str(size)]) for one in iterations if str(size) in one["held_out"]]
            numbers = [number for number, _ in points]
            rates, lows, highs = ([100 * found[key] for _, found in points] for key in ("rate", "low", "high"))
            axes.fill_between(numbers, lows, highs, color=_COLOURS[name], alpha=0.15, linewidth=0)
            label = f"STaR, {name} rationalization"
            axes.plot(numbers, rates, color=_COLOURS[name], marker="o", markersize=3, label=label)
        for one, style in zip(report["direct"], ("--", ":"), strict=False):
            if str(size) in one["held_out"]:
                rate, label = 100 * one["held_out"][str(size)]["rate"], f"no scratchpad, {one['steps']:,} steps"
                axes.axhline(rate, color=_COLOURS["direct"], linestyle=style, label=label)
        axes.set_title(f"{size} digit{'s' if size > 1 else ''}", fontsize=10)
        axes.set_xlabel("iteration (0: the base)", fontsize=8)
        axes.set_ylim(-4, 104)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("held-out problems correct, %", fontsize=9)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(path)
