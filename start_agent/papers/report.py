"""Computes the report of a reproduction from its runs; `start_agent.papers.report_text` writes it.

All figures are computed from the records in the folder each time.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from start_agent.analysis.compare import Pair, compare_runs, read_run
from start_agent.analysis.summary import summarize
from start_agent.data.dataset import need_data
from start_agent.papers.reproduce import BOTH_ROUNDS, MAJORITY, THIRD, VARIANTS, ReproduceOptions
from start_agent.recipes.hint_rft import Parts
from start_agent.recipes.stages import StageStates
from start_agent.versions import versions

TABLE: dict[str, str] = {
    "base": "base, greedy",
    "base-sampled": f"base, majority of {MAJORITY} at the sampling temperature",
    "base-hint": "base + Hint-infer",
    "rft": "RFT without tools",
    "start-0": "START-0",
    "start": "START",
    "start-hint": "START + Hint-infer",
}
"""Evaluation → title; unhinted and greedy unless the title says otherwise."""

PAIRS: tuple[tuple[str, str], ...] = (
    ("base", "base-hint"),
    ("base", "rft"),
    ("base", "start-0"),
    ("start-0", "start"),
    ("base-sampled", "start"),
    ("base-hint", "start"),
    ("rft", "start"),
    ("start", "start-hint"),
)

THIRD_TITLE = "START-2, from samples of START"

TRAINED_ON = {"start-0": "seed-data", "start": "start-data", THIRD: "start-data-2"}
"""The models of all training rounds with the recipe's mask, each with its data."""

SAMPLED = {"base": "base-sampled", **{name: f"{name}-sampled" for name in TRAINED_ON}}
"""For each model, the run that measures how often it calls Python when sampled."""

_SAMPLES = {"base-sampled": MAJORITY}

OPERATORS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation. ``interval`` is 95%, Wilson's; ``tokens`` and ``tool_calls`` are means over problems."""

    title: str
    problems: int
    accuracy: float
    interval: tuple[float, float]
    tool_rate: float
    unhinted_rate: float
    tool_calls: float
    tokens: float
    sampled_tool_rate: float | None = None
    levels: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A figure and its target."""

    name: str
    value: float
    wanted: str
    bound: float

    @property
    def met(self) -> bool:
        """Whether the figure meets its target."""
        return OPERATORS[self.wanted](self.value, self.bound)


def build_report(folder: Path, options: ReproduceOptions, parts: Parts, states: StageStates) -> dict[str, Any]:
    """The report, JSON-able. Raises RunDirectoryError if a run cannot be read."""
    report: dict[str, Any] = {"settings": _settings(options, parts), "checks": []}
    checks: list[Check] = []
    if set(options.parts) - {"star"}:
        report["table"] = {name: asdict(measure(folder, name, title)) for name, title in TABLE.items()}
        report["pairs"] = [_pair(folder, *names) for names in PAIRS]
        report["data"] = {name: _data(folder / name) for name in ("seed-data", "plain-data", "start-data")}
        checks += _table_checks(report)
    if "rounds" in options.parts:
        report["rounds"] = {
            model: [asdict(measure(folder, _round_name(model, rounds), str(rounds))) for rounds in (0, *options.rounds)]
            for model in ("base", "start")
        }
        base = [row["accuracy"] for row in report["rounds"]["base"]]
        last = min(3, len(base) - 1)  # three as in the papers; fewer in a quick run
        checks.append(Check(f"base_round_{last}_minus_round_0", base[last] - base[0], ">=", 0.0))
    if "ablation" in options.parts:
        report["ablation"] = {
            name: asdict(measure(folder, model, title, sampled=f"{model}-sampled"))
            for name, (model, title) in variants().items()
        }
        report["ablation_pairs"] = [_pair(folder, first, f"start-{BOTH_ROUNDS}") for first in ("base-hint", "start")]
    if "third-round" in options.parts:
        rows = report["table"] | {THIRD: asdict(measure(folder, THIRD, THIRD_TITLE))}
        report["third-round"] = {name: rows[name] | {"data": _data(folder / data)} for name, data in TRAINED_ON.items()}
        report["third-round_pairs"] = [_pair(folder, first, THIRD) for first in ("base-hint", "start")]
        third = report["third-round"][THIRD]
        checks.append(Check("start_2_unhinted_tool_rate", third["unhinted_rate"], ">=", 0.8))
        checks.append(Check("start_2_minus_base_hint", report["third-round_pairs"][0]["difference"], ">=", 0.0))
    if "star" in options.parts:
        report["star"] = json.loads((folder / "star" / "report.json").read_bytes())
    report["checks"] = [asdict(check) | {"met": check.met} for check in checks]
    report["seconds"] = {name: round(state.seconds, 1) for name, state in states.stages.items()}
    return report


def measure(folder: Path, name: str, title: str, *, sampled: str | None = None) -> Measured:
    """The results of an evaluation. With several samples per problem, their majority vote is graded."""
    found = summarize(folder / f"eval-{name}", _SAMPLES.get(name, 1))
    sampled = sampled or SAMPLED.get(name)
    majority = found.majority is not None
    accuracy = found.majority if found.majority is not None else found.accuracy
    interval = found.majority_interval if majority else found.interval
    assert accuracy is not None and interval is not None, "a finished run has records"
    return Measured(
        title,
        found.problems,
        accuracy,
        interval,
        found.tool_rate,
        found.unhinted_rate,
        found.tool_calls * found.samples,
        found.tokens * found.samples,
        None if sampled is None else summarize(folder / f"eval-{sampled}").unhinted_rate,
        # Levels are computed for single samples, not for the majority.
        {} if majority else {level: row["accuracy"] for level, row in found.groups.get("level", {}).items()},
    )


def variants() -> dict[str, tuple[str, str]]:
    """The rows of the ablation: name → evaluation and title, the recipe's setting first, START after START-0."""
    rows = {"mask": ("start-0", "START-0, hints masked, trained from the first hint on (the recipe)")}
    rows |= {name: (f"start-0-{name}", f"START-0, hints {title}") for name, (title, _, _) in VARIANTS.items()}
    rows["start-mask"] = ("start", "START, from the recipe's START-0")
    rows[f"start-{BOTH_ROUNDS}"] = (f"start-{BOTH_ROUNDS}", f"START, from hints {VARIANTS[BOTH_ROUNDS][0]}")
    return rows


def _round_name(model: str, rounds: int) -> str:
    return f"{model}-rounds-{rounds}" if rounds else model


def _pair(folder: Path, first: str, second: str) -> dict[str, Any]:
    """A paired comparison of two evaluations of the same problems, with majority votes as in ``measure``."""
    runs = {name: read_run(folder / f"eval-{name}", majority=name in _SAMPLES) for name in (first, second)}
    found = compare_runs(runs)
    pair: Pair = found.pairs[0]
    return {
        "first": first,
        "second": second,
        "difference": pair.difference,
        "interval": pair.interval,
        "test": pair.test,
        "p_value": pair.p_value,
        "only_first": len(pair.only_first),
        "only_second": len(pair.only_second),
        "token_ratio": pair.token_ratio,
    }


def _data(path: Path) -> dict[str, Any]:
    manifest = need_data(path).to_json()
    return {name: manifest[name] for name in ("rows", "tokens", "trained", "hint_loss", "digest", "report")}


def _table_checks(report: Mapping[str, Any]) -> list[Check]:
    table = report["table"]
    hinted = next(pair for pair in report["pairs"] if (pair["first"], pair["second"]) == ("base", "base-hint"))
    start = table["start"]["accuracy"]
    return [
        Check("start_unhinted_tool_rate", table["start"]["unhinted_rate"], ">=", 0.8),
        Check("start_minus_base_hint", start - table["base-hint"]["accuracy"], ">=", 0.0),
        Check("start_minus_rft_without_tools", start - table["rft"]["accuracy"], ">=", 0.15),
        Check("start_0_minus_base", table["start-0"]["accuracy"] - table["base"]["accuracy"], ">=", 0.0),
        Check("start_minus_start_0", start - table["start-0"]["accuracy"], ">=", 0.0),
        Check("base_hint_minus_base", hinted["difference"], ">=", 0.0),  # the test below is two-sided
        Check(
            "majority_tokens_over_start_tokens", table["base-sampled"]["tokens"] / table["start"]["tokens"], ">=", 1.0
        ),
        Check("hint_p_value", hinted["p_value"], "<", 0.01),
    ]


def _settings(options: ReproduceOptions, parts: Parts) -> dict[str, Any]:
    return {
        **options.model_dump(mode="json", exclude={"output_dir"}),
        "recipe": parts.recipe.model_dump(mode="json", exclude={"output_dir"}),
        "decoding": parts.decoding.model_dump(mode="json"),
        "loss": parts.loss.model_dump(mode="json"),
        "filters": parts.filters.model_dump(mode="json"),
        "problems": parts.problems.model_dump(mode="json"),
        "cpus": os.cpu_count(),
        "versions": versions(),
    }
