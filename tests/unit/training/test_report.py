"""The report from made-up records: every figure can be checked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from start_agent.papers import report as module
from start_agent.papers.report import Check, build_report, measure
from start_agent.papers.report_text import markdown, write_report
from start_agent.papers.reproduce import ReproduceOptions, parts_of
from start_agent.recipes.stages import StageStates

PROBLEMS = 20
RIGHT = {
    "base": 8,
    "base-sampled": 9,
    "base-hint": 16,
    "rft": 9,
    "start-0": 12,
    "start": 18,
    "start-hint": 18,
    "start-2": 15,
}
TOOLS = {"base-hint": 20, "start-0": 10, "start": 19, "start-hint": 20, "start-2": 20}


def write_run(folder: Path, name: str, right: int, tools: int, samples: int = 1) -> None:
    """The first problems are correct, and the first have an unhinted tool call."""
    run = folder / f"eval-{name}"
    run.mkdir(parents=True)
    with (run / "records.jsonl").open("w") as file:
        for problem in range(PROBLEMS):
            for sample in range(samples):
                calls = int(problem < tools)
                record = {
                    "key": f"{problem:032x}{sample:032x}",
                    "problem": f"{problem:064x}",
                    "sample": sample,
                    "question": f"What is {problem}?",
                    "kind": "math",
                    "correct": problem < right,
                    "verdict": {"parsed": "1" if problem < right else "2", "reason": "equal"},
                    "outcome": "answered",
                    "counts": {
                        "tokens": 100,
                        "prompt_tokens": 10,
                        "model_tokens": 90,
                        "tool_calls": calls,
                        "unhinted_tool_calls": calls,
                        "hints": 0,
                    },
                    "meta": {"level": 1 + problem % 2},
                    "course": {"seconds": 1.0, "kernel_seconds": 0.0, "wait_seconds": 0.0, "tries": 1},
                }
                file.write(json.dumps(record) + "\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, right in RIGHT.items():
        write_run(tmp_path, name, right, TOOLS.get(name, 0), samples=4 if name == "base-sampled" else 1)
    for name, tools in (("start-0", 12), ("start", 20), ("start-2", 20)):
        write_run(tmp_path, f"{name}-sampled", 10, tools)
    for model in ("base", "start"):
        for rounds in (1, 2, 3, 4):
            write_run(tmp_path, f"{model}-rounds-{rounds}", min(RIGHT[model] + 2 * rounds, 20), 20)
    monkeypatch.setattr(module, "_data", lambda path: {"rows": 1})
    return tmp_path


def build(folder: Path, *parts: Any) -> dict[str, Any]:
    options = ReproduceOptions(output_dir=folder, parts=parts)
    return build_report(folder, options, parts_of(options), StageStates(folder))


def test_an_evaluation(folder: Path) -> None:
    found = measure(folder, "start-0", "START-0")
    assert (found.problems, found.accuracy, found.unhinted_rate) == (20, 0.6, 0.5)
    assert found.sampled_tool_rate == 0.6
    assert found.levels == {"1": 0.6, "2": 0.6}


def test_several_samples_are_a_vote_and_their_tokens_a_sum(folder: Path) -> None:
    found = measure(folder, "base-sampled", "a vote")
    assert (found.problems, found.accuracy, found.tokens) == (20, 9 / 20, 400)


def test_the_checks(folder: Path) -> None:
    checks = {check["name"]: check for check in build(folder, "table", "rounds")["checks"]}
    assert {name: round(check["value"], 6) for name, check in checks.items() if name != "hint_p_value"} == {
        "start_unhinted_tool_rate": 0.95,
        "start_minus_base_hint": 0.1,
        "start_minus_rft_without_tools": 0.45,
        "start_0_minus_base": 0.2,
        "start_minus_start_0": 0.3,
        "base_round_3_minus_round_0": 0.3,
        "base_hint_minus_base": 0.4,
        "majority_tokens_over_start_tokens": 4.0,
    }
    assert checks["hint_p_value"]["value"] == pytest.approx(2 / 2**8)  # eight problems, all to one side
    assert all(check["met"] for check in checks.values())


def test_a_third_round(folder: Path) -> None:
    report = build(folder, "third-round")
    assert {check["name"]: round(check["value"], 6) for check in report["checks"][-2:]} == {
        "start_2_unhinted_tool_rate": 1.0,
        "start_2_minus_base_hint": -0.05,
    }
    text = markdown(report, {})
    assert "| START-2, from samples of START | 1 | **75.0%** |" in text
    assert "| START → START-2, from samples of START | -15.0% |" in text
    assert "START-2" not in markdown(build(folder, "table"), {})


@pytest.mark.parametrize(
    ("check", "met"),
    [
        (Check("a", 0.8, ">=", 0.8), True),
        (Check("a", 0.79, ">=", 0.8), False),
        (Check("a", 0.01, "<", 0.01), False),
        (Check("a", 0.009, "<", 0.01), True),
    ],
)
def test_a_check(check: Check, met: bool) -> None:
    assert check.met is met


def test_what_is_written(folder: Path) -> None:
    report = build(folder, "table", "rounds")
    write_report(folder, report)
    text = (folder / "report.md").read_text()
    assert "| START | **90.0%** |" in text and "| base | 40.0% | 50.0% | 60.0% | 70.0% | 80.0% |" in text
    assert "![rounds](rounds.png)" in text and "ablation" not in text
    assert json.loads((folder / "report.json").read_text())["table"]["start"]["accuracy"] == 0.9
    for name in ("table.png", "rounds.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_a_quick_report_says_so(folder: Path) -> None:
    report = build(folder, "table")
    assert "too little data" not in markdown(report, {})
    report["settings"]["quick"] = True
    assert "too little data" in markdown(report, {})
