"""The addition miniature, killed at up to three places, ends like an uninterrupted one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]
OPTIONS = ["--iterations", "1", "--problems", "40", "--first-steps", "3", "--evaluated", "20"]
# The kill comes once these are there: in the middle of an iteration, between two variants, in the baseline.
PLACES = ("with/iteration-01/rows.jsonl", "without/iteration-00/evaluation.jsonl", "direct-3/training/run.json")


def start(path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "start_agent", "star", "addition", "--output-dir", str(path), *OPTIONS]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def findings(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    report = json.loads((path / "report.json").read_text())
    del report["seconds_of_this_start"]
    rows = {str(file.relative_to(path)): file.read_bytes() for file in path.glob("*/iteration-*/*.jsonl")}
    return report, rows


@pytest.mark.parametrize("places", [PLACES[:1], pytest.param(PLACES, marks=pytest.mark.nightly)], ids=["one", "all"])
def test_killed_it_resumes_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: tuple[str, ...]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with start(tmp_path / "whole") as process:
        assert process.wait() == 0
    for place in places:
        with start(tmp_path / "killed") as process:
            alive = wait_until((tmp_path / "killed" / place).exists, process.pid)
            assert alive, f"it ended before {place} was there"
            process.send_signal(signal.SIGKILL)
    with start(tmp_path / "killed") as process:
        assert process.wait() == 0
    assert findings(tmp_path / "killed") == findings(tmp_path / "whole")
    weights = "with/iteration-01/model/model.safetensors"
    assert (tmp_path / "killed" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
