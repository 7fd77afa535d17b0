from __future__ import annotations

import argparse
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from benchmarks.report import Report, Target, met, new_parser, rounded, run
from start_agent.errors import ModelError

ROOT = Path(__file__).resolve().parents[3]
TARGETS: dict[str, Target] = {"speed": (">=", 0.9), "waste": ("<=", 0.02)}


def report(**figures: float) -> Report:
    return Report("test", figures, TARGETS, {"quick": True})


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"speed": 1.0, "waste": 0.0}, []),
        ({"speed": 0.9, "waste": 0.02}, []),
        ({"speed": 0.89, "waste": 0.03}, ["speed", "waste"]),
        ({"speed": 2.0, "waste": 0.5}, ["waste"]),
        ({"waste": 0.0}, ["speed"]),
        ({"speed": 1.0, "waste": 0.0, "other": -1.0}, []),
    ],
)
def test_missed_names_the_figures_beyond_their_bounds(figures: dict[str, float], missed: list[str]) -> None:
    assert report(**figures).missed == missed


def test_what_is_no_number_meets_no_target() -> None:
    assert not met(math.nan, ("<=", 1.0))
    assert not met(None, (">=", 0.0))


def test_the_last_line_is_the_json_object() -> None:
    found = report(speed=0.5, waste=0.0)
    found.tables.append(Table("a column", title="a table"))
    out = io.StringIO()
    found.print(out)
    lines = out.getvalue().splitlines()
    assert "a table" in lines[0]
    assert json.loads(lines[-1]) == {
        "benchmark": "test",
        "figures": {"speed": 0.5, "waste": 0.0},
        "targets": {"speed": [">=", 0.9], "waste": ["<=", 0.02]},
        "missed": ["speed"],
        "settings": {"quick": True},
    }


def test_a_figure_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        report(speed=math.inf).line()


def test_rounding_keeps_small_numbers() -> None:
    assert rounded({"rate": 1 / 3, "p": 1.23456789e-30, "count": 12.0}, 3) == {
        "rate": 0.333,
        "p": 1.23e-30,
        "count": 12,
    }


@pytest.mark.parametrize(
    ("speed", "argv", "code"), [(1.0, [], 0), (0.1, [], 0), (0.1, ["--strict"], 1), (1.0, ["--strict"], 0)]
)
def test_only_a_strict_run_fails_for_a_missed_target(
    speed: float, argv: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def measure(_: argparse.Namespace) -> Report:
        return report(speed=speed, waste=0.0)

    assert run(new_parser("a test"), measure, argv) == code
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["benchmark"] == "test"


def test_a_failed_run_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    async def measure(_: argparse.Namespace) -> Report:
        raise ModelError("no such model")

    assert run(new_parser("a test"), measure, []) == 1
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.endswith("no such model\n")


@pytest.mark.parametrize("name", ["pocket", "engine"])
def test_a_benchmark_runs_as_a_file_from_anywhere(name: str, tmp_path: Path) -> None:
    path = ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run([sys.executable, path, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout
