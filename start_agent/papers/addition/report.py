"""What the experiment found: a report as JSON, a section in Markdown, and the figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from start_agent.analysis.stats import mcnemar_p_value, paired_interval, wilson_interval
from start_agent.files import write_json
from start_agent.markdown import table
from start_agent.papers.addition.figure import draw_figure
from start_agent.papers.addition.learner import AdditionLearner
from start_agent.papers.addition.options import AdditionOptions
from start_agent.papers.addition.text import DIGITS, rationale
from start_agent.problem import Problem
from start_agent.recipes.star.store import ROWS, Iteration, best, iteration_folder, read_iterations, read_solved

REPORT, SECTION, FIGURE = "report.json", "report.md", "addition.png"

LONG = 3
"""Digits from which a sum is long: the base does shorter ones."""

_HALF = 0.5  # of the long sums: when a curve has climbed


def build_report(
    output_dir: Path,
    options: AdditionOptions,
    held_out: Sequence[Problem],
    direct: Sequence[Mapping[str, Any]],
    learner: AdditionLearner,
) -> dict[str, Any]:
    """Everything, from what the run has left in its folder.

    Args:
        output_dir: of the run.
        options: of the run.
        held_out: the problems that all accuracies are of.
        direct: the baseline's records, fewest steps first.
        learner: reads prompts and writes answers; tells the sound scratchpads.
    """
    long = {problem.key for problem in held_out if problem.meta["level"] >= LONG}
    digits = {problem.key: int(problem.meta["level"]) for problem in held_out}
    done = {name: read_iterations(output_dir / name) for name in ("with", "without")}
    solved = {name: [read_solved(output_dir / name, one.number) for one in found] for name, found in done.items()}
    last = {name: best(found).number for name, found in done.items()}
    return {
        "options": options.model_dump(mode="json"),
        "held_out": len(held_out),
        "variants": {
            name: [
                asdict(one)
                | {"held_out": _accuracies(found, digits, long), "sound": _sound(output_dir / name, one, learner)}
                for one, found in zip(done[name], solved[name], strict=True)
            ]
            for name in done
        },
        "direct": [
            {
                "steps": record["steps"],
                "held_out": _accuracies(record["solved"], digits, long),
                "best_against": {name: _compared(record["solved"], solved[name][last[name]], long) for name in done},
            }
            for record in direct
        ],
        "with_against_without": [
            _compared(one, other, long) for one, other in zip(solved["without"], solved["with"], strict=True)
        ],
        "checks": _checks(solved, last, direct, long),
    }


def _accuracies(solved: Mapping[str, bool], digits: Mapping[str, int], long: set[str]) -> dict[str, dict[str, float]]:
    """By digits, of the long ones, and of all: how many are right, of how many, with the 95% interval."""
    groups: dict[str, Iterable[str]] = {str(size): [key for key in digits if digits[key] == size] for size in DIGITS}
    groups |= {"long": long, "all": digits}
    found = {}
    for name, keys in groups.items():
        outcomes = [solved[key] for key in keys]
        if outcomes:
            low, high = wilson_interval(sum(outcomes), len(outcomes))
            rate = sum(outcomes) / len(outcomes)
            found[name] = {"right": sum(outcomes), "of": len(outcomes), "rate": rate, "low": low, "high": high}
    return found


def _sound(variant: Path, iteration: Iteration, learner: AdditionLearner) -> dict[str, tuple[int, int]]:
    """Of the rows that an iteration trained on, how many have a scratchpad that is right in every line, of how many.

    The loop does not know this: it keeps what has the right answer, whatever led to it.
    """
    counts = {"generated": (0, 0), "rationalized": (0, 0)}
    if not iteration.number:
        return counts
    with (iteration_folder(variant, iteration.number) / ROWS).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        asked, written = learner.read_row(row)
        kind = "rationalized" if row["rationalized"] else "generated"
        counts[kind] = (counts[kind][0] + (written == rationale(asked)), counts[kind][1] + 1)
    return counts


def _compared(first: Mapping[str, bool], second: Mapping[str, bool], keys: set[str]) -> dict[str, Any]:
    """The second against the first on the same long problems: difference of rates, its interval, McNemar's test."""
    pairs = [(first[key], second[key]) for key in keys]
    difference = (sum(other for _, other in pairs) - sum(one for one, _ in pairs)) / len(pairs)
    return {"difference": difference, "interval": paired_interval(pairs), "p_value": mcnemar_p_value(pairs)}


def _checks(
    solved: Mapping[str, Sequence[Mapping[str, bool]]],
    last: Mapping[str, int],
    direct: Sequence[Mapping[str, Any]],
    long: set[str],
) -> dict[str, Any]:
    """What was to be shown, on the long sums of the held-out set.

    A model of the loop is compared with the baseline of the same training steps; the one with the steps of all
    iterations together is reported beside it.
    """

    def rate(found: Mapping[str, bool]) -> float:
        return sum(found[key] for key in long) / len(long)

    curves = {name: [rate(found) for found in curve] for name, curve in solved.items()}
    mean = {name: sum(curve[1:]) / (len(curve) - 1) for name, curve in curves.items()}
    half = {
        name: next((number for number, value in enumerate(curve) if value >= _HALF), None)
        for name, curve in curves.items()
    }
    same_steps, all_steps = (rate(record["solved"]) for record in (direct[0], direct[-1]))
    return {
        "mean_over_iterations": mean,
        "first_iteration_at_half": half,
        "best": {name: curves[name][last[name]] for name in curves},
        "direct_same_steps": same_steps,
        "direct_all_steps": all_steps,
        "rationalization_climbs_faster": mean["with"] > mean["without"],
        "with_beats_direct": curves["with"][last["with"]] > same_steps,
        "without_beats_direct": curves["without"][last["without"]] > same_steps,
    }


def write_report(report: Mapping[str, Any], output_dir: Path) -> None:
    """Write the report's three files."""
    write_json(output_dir / REPORT, report)
    draw_figure(report, output_dir / FIGURE)
    (output_dir / SECTION).write_text(section(report, FIGURE), encoding="utf-8")


def section(report: Mapping[str, Any], figure: str) -> str:
    """A section of a report in Markdown.

    Args:
        report: of ``build_report``.
        figure: where the figure is, as the section's place sees it.
    """
    options, checks = report["options"], report["checks"]
    mean, half = checks["mean_over_iterations"], checks["first_iteration_at_half"]
    lines = [
        "## STaR: addition with a scratchpad",
        "",
        f"{report['held_out']} held-out problems of 1 to 5 digits, greedy; {options['problems']} problems an "
        f"iteration; seed {options['seed']}. Right, in percent, of the sums of {LONG} digits and more with the 95% "
        "interval:",
        "",
    ]
    header = ("", "steps", "kept: generated", "kept: rationalized", *DIGITS, "3 to 5")
    rows = []
    for name, iterations in report["variants"].items():
        for one in iterations:
            title = "base" if not one["number"] else f"{name} rationalization, iteration {one['number']}"
            if one["number"] or name == "with":
                kept = (f"{one['generated']} of {one['tried']}", str(one["rationalized"])) if one["tried"] else ("", "")
                rows.append(_cells(title, one["steps"], *kept, one["held_out"]))
    rows += [_cells("no scratchpad", one["steps"], "", "", one["held_out"]) for one in report["direct"]]
    return "\n".join(
        [
            *lines,
            table(rows, header),
            f"- Mean over the iterations, {LONG} digits and more: {mean['with']:.1%} with rationalization, "
            f"{mean['without']:.1%} without. Half of these sums right: with it {_first(half['with'])}, without "
            f"{_first(half['without'])}.",
            f"- With against without rationalization, last iteration: {_gain(report['with_against_without'][-1])}.",
            *(
                f"- The best model {name} rationalization (chosen on development problems) against no scratchpad, "
                f"{one['steps']} steps: {_gain(one['best_against'][name])}."
                for one in report["direct"]
                for name in report["variants"]
            ),
            f"- Scratchpads without an error among the rows trained on, all iterations: {_sound_text(report)}.",
            "",
            f"![Accuracy by iteration and digits]({figure})",
            "",
        ]
    )


def _cells(
    title: str, steps: int, generated: str, rationalized: str, found: Mapping[str, Mapping[str, float]]
) -> list[str]:
    rates = [f"{100 * found[str(size)]['rate']:.0f}" if str(size) in found else "" for size in DIGITS]
    long = found["long"]
    rates.append(f"{100 * long['rate']:.1f} ({100 * long['low']:.1f}–{100 * long['high']:.1f})")
    return [title, str(steps or ""), generated, rationalized, *rates]


def _gain(compared: Mapping[str, Any]) -> str:
    low, high = compared["interval"]
    return (
        f"{100 * compared['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), exact McNemar test "
        f"p = {compared['p_value']:.1g}"
    )


def _first(number: int | None) -> str:
    return "never" if number is None else f"first at iteration {number}"


def _sound_text(report: Mapping[str, Any]) -> str:
    parts = []
    for name, iterations in report["variants"].items():
        kinds = []
        for kind in ("generated", "rationalized"):
            sound, of = (sum(one["sound"][kind][place] for one in iterations) for place in (0, 1))
            kinds += [f"{sound:,} of {of:,} {kind}"] if of else []
        parts.append(f"{name} rationalization {' and '.join(kinds)}")
    return "; ".join(parts)
