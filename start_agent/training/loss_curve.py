"""Writes the loss curve as a table and as a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from start_agent.training.callbacks import Step
    from start_agent.training.evaluation import Evaluation

TABLE, EVALUATIONS, PICTURE = "loss.csv", "eval.csv", "loss.png"
_COLUMNS = ("step", "loss", "learning_rate", "gradient_norm")


def write_curve(curve: Sequence[Step], evaluations: Sequence[Evaluation], folder: Path) -> None:
    """Write ``loss.csv`` with a line per point, ``eval.csv`` if there are evaluations, and ``loss.png``."""
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(step) for step in curve)
    if evaluations:
        with (folder / EVALUATIONS).open("w", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, list(asdict(evaluations[0])), lineterminator="\n")
            rows.writeheader()
            rows.writerows(map(asdict, evaluations))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([step.step for step in curve], [step.loss for step in curve], color="tab:blue", linewidth=1.2)
    if evaluations:
        steps, losses = [found.step for found in evaluations], [found.loss for found in evaluations]
        axes.plot(steps, losses, "o-", color="tab:orange", linewidth=1.2, label="held-out rows")
        axes.legend(loc="upper right", frameon=False)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss, nats per trained token", color="tab:blue")
    axes.set_ylim(bottom=0)
    rate = axes.twinx()
    rate.plot([step.step for step in curve], [step.learning_rate for step in curve], color="tab:gray", linewidth=0.8)
    rate.set_ylabel("learning rate", color="tab:gray")
    rate.set_ylim(bottom=0)
    figure.savefig(folder / PICTURE, dpi=120, metadata={"Software": None})
