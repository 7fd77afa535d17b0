"""Writes the report of a reproduction as JSON, Markdown and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from start_agent.files import write_json
from start_agent.markdown import table
from start_agent.papers.report import TABLE, THIRD_TITLE, variants
from start_agent.papers.reproduce import THIRD


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``report.json``, ``report.md`` and the figures into the folder."""
    from start_agent.papers.figures import draw

    write_json(folder / "report.json", report)
    figures = draw(folder, report)
    (folder / "report.md").write_text(markdown(report, figures), encoding="utf-8")


def markdown(report: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """The report as Markdown; ``figures`` are file names by part."""
    text = ["# The papers at small scale, on the pocket reasoner", ""]
    if report["settings"]["quick"]:
        text += ["**Made with `--quick`: all stages ran, but with too little data for meaningful figures.**", ""]
    if "table" in report:
        text += ["## START's table", "", *_table_text(report), *_figure(figures, "table")]
    if "rounds" in report:
        text += ["## Sequential test-time scaling: hints at the end of thinking", ""]
        text += [*_rounds_text(report), *_figure(figures, "rounds")]
    if "ablation" in report:
        text += ["## Treatment of hints in the loss", "", *_ablation_text(report)]
        text += _figure(figures, "ablation")
    if "third-round" in report:
        text += ["## A third round: sampling START and training again", ""]
        text += [*_third_text(report), *_figure(figures, "third-round")]
    if "star" in report:
        text += ["## STaR: addition with a scratchpad", "", "See [star/report.md](star/report.md).", ""]
    if report["checks"]:
        checks = (
            (
                check["name"],
                f"{check['value']:.4g}",
                f"{check['wanted']} {check['bound']}",
                "met" if check["met"] else "**missed**",
            )
            for check in report["checks"]
        )
        text += ["## Targets", "", table(checks, ("figure", "value", "target", ""))]
    minutes = sum(report["seconds"].values()) / 60
    text.append(f"Stages took {minutes:.0f} minutes in total. Settings, seeds and versions are in `report.json`.")
    return "\n".join(text) + "\n"


def _table_text(report: Mapping[str, Any]) -> list[str]:
    calls = ("calls Python", "unhinted, greedy", "unhinted, sampled")
    header = ("", "correct", "95%", "level 1 / 2 / 3", *calls, "tokens")
    rows = (
        (
            row["title"],
            f"**{row['accuracy']:.1%}**",
            _range(row["interval"]),
            " / ".join(f"{value:.0%}" for value in (row["levels"] or {}).values()),
            f"{row['tool_rate']:.1%}",
            f"{row['unhinted_rate']:.1%}",
            "" if row["sampled_tool_rate"] is None else f"{row['sampled_tool_rate']:.1%}",
            f"{row['tokens']:.0f}",
        )
        for row in report["table"].values()
    )
    return [table(rows, header), *_pairs_text(report["pairs"], TABLE)]


def _pairs_text(pairs: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[str]:
    rows = (
        (
            f"{titles[pair['first']]} → {titles[pair['second']]}",
            f"{pair['difference']:+.1%}",
            _range(pair["interval"]),
            f"{pair['p_value']:.2g}",
        )
        for pair in pairs
    )
    return [table(rows, ("pair", "difference", "95%", "McNemar's p"))]


def _rounds_text(report: Mapping[str, Any]) -> list[str]:
    header = ("end-of-thinking hints", *range(len(report["rounds"]["base"])))
    rows = ((model, *(f"{row['accuracy']:.1%}" for row in found)) for model, found in report["rounds"].items())
    return [table(rows, header)]


def _ablation_text(report: Mapping[str, Any]) -> list[str]:
    rows = (
        (
            row["title"],
            f"{row['accuracy']:.1%}",
            _range(row["interval"]),
            f"{row['unhinted_rate']:.1%}",
            f"{row['sampled_tool_rate']:.1%}",
            f"{row['tokens']:.0f}",
        )
        for row in report["ablation"].values()
    )
    titles = TABLE | dict(variants().values())
    header = ("", "correct", "95%", "calls Python, greedy", "sampled", "tokens")
    return [table(rows, header), *_pairs_text(report["ablation_pairs"], titles)]


def _third_text(report: Mapping[str, Any]) -> list[str]:
    rows = (
        (
            row["title"],
            row["data"]["rows"],
            f"**{row['accuracy']:.1%}**",
            _range(row["interval"]),
            f"{row['unhinted_rate']:.1%}",
            f"{row['sampled_tool_rate']:.1%}",
            f"{row['tokens']:.0f}",
        )
        for row in report["third-round"].values()
    )
    header = ("", "training rows", "correct", "95%", "unhinted, greedy", "unhinted, sampled", "tokens")
    return [table(rows, header), *_pairs_text(report["third-round_pairs"], TABLE | {THIRD: THIRD_TITLE})]


def _range(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{low:.1%} to {high:.1%}"


def _figure(figures: Mapping[str, str], part: str) -> list[str]:
    return [f"![{part}]({figures[part]})", ""] if part in figures else []
