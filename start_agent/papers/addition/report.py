"""The report of the experiment: JSON, a Markdown section, and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from start_agent.analysis.stats import mcnemar_p_value, paired_interval, wilson_interval
from start_agent.data.dataset import read_jsonl
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
"""Number of digits from which a sum counts as long; the base can do shorter ones."""

_HALF = 0.5  # share of long sums from which a curve counts as risen


def build_report(
    output_dir: Path,
    options: AdditionOptions,
    held_out: Sequence[Problem],
    direct: Sequence[Mapping[str, Any]],
    learner: AdditionLearner,
) -> dict[str, Any]:
    """Compute the report from the files of the run.

    Args:
        output_dir: folder of the run.
        options: options of the run.
        held_out: the problems used for all accuracies.
        direct: the baseline's records, fewest steps first.
        learner: decodes training rows, to check their scratchpads.
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
    """Accuracy with its 95% interval, by number of digits, for long sums, and for all."""
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
    """Training rows of an iteration with an entirely correct scratchpad, and their total.

    The loop itself only checks answers, not scratchpads.
    """
    counts = {"generated": (0, 0), "rationalized": (0, 0)}
    if not iteration.number:
        return counts
    for row in read_jsonl(iteration_folder(variant, iteration.number) / ROWS):
        asked, written = learner.read_row(row)
        kind = "rationalized" if row["rationalized"] else "generated"
        counts[kind] = (counts[kind][0] + (written == rationale(asked)), counts[kind][1] + 1)
    return counts


def _compared(first: Mapping[str, bool], second: Mapping[str, bool], keys: set[str]) -> dict[str, Any]:
    """The second compared with the first on the same problems: difference of rates, interval, McNemar's test."""
    pairs = [(first[key], second[key]) for key in keys]
    difference = (sum(other for _, other in pairs) - sum(one for one, _ in pairs)) / len(pairs)
    return {"difference": difference, "interval": paired_interval(pairs), "p_value": mcnemar_p_value(pairs)}


def _checks(
    solved: Mapping[str, Sequence[Mapping[str, bool]]],
    last: Mapping[str, int],
    direct: Sequence[Mapping[str, Any]],
    long: set[str],
) -> dict[str, Any]:
    """The expected results, on the long sums of the held-out set.

    A model of the loop is compared with the baseline with the same training steps; the baseline with the steps of all
    iterations together is also reported.
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
    """Write the three files of the report."""
    write_json(output_dir / REPORT, report)
    draw_figure(report, output_dir / FIGURE)
    (output_dir / SECTION).write_text(section(report, FIGURE), encoding="utf-8")


def section(report: Mapping[str, Any], figure: str) -> str:
    """The report as a Markdown section.

    Args:
        report: the result of ``build_report``.
        figure: path of the figure, relative to the section's file.
    """
    options, checks = report["options"], report["checks"]
    mean, half = checks["mean_over_iterations"], checks["first_iteration_at_half"]
    lines = [
        "## STaR: addition with a scratchpad",
        "",
        f"{report['held_out']} held-out problems of 1 to 5 digits, greedy; {options['problems']} problems per "
        f"iteration; seed {options['seed']}. Accuracy in percent; for sums of {LONG} digits and more with the 95% "
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
            f"{mean['without']:.1%} without. Half of these sums correct: with it {_first(half['with'])}, without "
            f"{_first(half['without'])}.",
            f"- Gain by rationalization, last iteration: {_gain(report['with_against_without'][-1])}.",
            *(
                f"- Best model {name} rationalization (chosen on development problems) compared with no scratchpad, "
                f"{one['steps']} steps: {_gain(one['best_against'][name])}."
                for one in report["direct"]
                for name in report["variants"]
            ),
            f"- Correct scratchpads among the training rows, all iterations: {_sound_text(report)}.",
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
