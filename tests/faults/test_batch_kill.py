"""A run that is killed repeatedly ends with the records of an uninterrupted one.

``START_AGENT_KILLS`` and ``START_AGENT_KILL_PROBLEMS`` make it longer: 20 kills of 300 problems every night.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from start_agent.batch.store import RECORDS
from tests.support.batches import stable
from tests.support.processes import naming
from tests.support.waiting import wait_for_exits, wait_until

KILLS = int(os.environ.get("START_AGENT_KILLS", "2"))
PROBLEMS = int(os.environ.get("START_AGENT_KILL_PROBLEMS", "24"))
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120 + 20 * KILLS + PROBLEMS)


@pytest.fixture
def sandboxes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the kernels' folders are: a short path of its own, since sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        yield Path(name)


def command(path: Path) -> list[str]:
    options = f"--task pocket --limit {PROBLEMS} --concurrency 16 --kernels 3 --threads 1 --max-num-seqs 8 --seed 3"
    return [sys.executable, "-m", "start_agent", "batch", "--output-dir", str(path), *options.split()]


def run(path: Path) -> str:
    done = subprocess.run(command(path), cwd=ROOT, capture_output=True, text=True, timeout=100 + PROBLEMS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start_and_kill(path: Path, more: int) -> None:
    """Let a run write so many bytes more, then kill it: a moment that hangs on no clock, often within a line."""
    records = path / RECORDS
    goal = (records.stat().st_size if records.exists() else 0) + more
    with subprocess.Popen(command(path), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_until(lambda: records.exists() and records.stat().st_size >= goal, process.pid)
        process.send_signal(signal.SIGKILL)


def test_killed_again_and_again(tmp_path: Path, sandboxes: Path) -> None:
    source = random.Random(f"kills {KILLS}")
    run(tmp_path / "whole")
    whole = stable(tmp_path / "whole")
    assert len(whole) == PROBLEMS
    size = (tmp_path / "whole" / RECORDS).stat().st_size
    cut = tmp_path / "cut"
    for kill in range(KILLS):
        start_and_kill(cut, source.randrange(2 * size // (KILLS + 1)) if kill else 1)
        wait_for_exits(lambda: naming(sandboxes))  # they die with their host, at their own pace
        if source.random() < 0.5 and (cut / RECORDS).exists():  # and the disk may lose an end that was not yet forced
            lost = source.randrange(1, 400)
            content = (cut / RECORDS).read_bytes()
            (cut / RECORDS).write_bytes(content[: max(len(content) - lost, 0)])
        for folder in sandboxes.iterdir():  # a host that is killed before it has a guardian cannot tidy up
            shutil.rmtree(folder)
    output = run(cut)
    assert f"{PROBLEMS} problems" in output
    again = stable(cut)
    assert again.keys() == whole.keys()
    assert {key: differing(again[key], whole[key]) for key in whole if again[key] != whole[key]} == {}
    assert naming(sandboxes) == {}
    summaries = [json.loads((path / "summary.json").read_text()) for path in (cut, tmp_path / "whole")]
    untimed = [{k: v for k, v in one.items() if "seconds" not in k and k != "this_start"} for one in summaries]
    assert untimed[0] == untimed[1]


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in one if one[name] != other[name]]
