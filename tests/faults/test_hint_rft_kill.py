"""Hint-RFT killed in each of its stages ends with the data sets of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from start_agent.batch.store import RECORDS, read_records
from start_agent.data.dataset import ROWS, need_data
from tests.support.processes import naming
from tests.support.waiting import wait_for_exits, wait_until

ROOT = Path(__file__).parents[2]
STAGES = ["greedy", "hinted", "seed-data", "start-0", "sampled-1", "sampled-2", "start-data", "start"]

RECIPE = """
task: pocket
split: train
limit: 21
held_out: [pocket]
hint_probability: 1.0
seed_sft: {sft}
sft: {sft}
samples: 2
sampling_runs: {sampling_runs}
start_choice: random
max_length: 1024
max_tokens: 300
kernels: 8
threads: 1
workers: 1
"""
SFT = """
learning_rate: 1.0e-4
max_steps: 3
batch_size: 4
per_device_train_batch_size: 4
max_length: 1024
gradient_checkpointing: false
device: cpu
save_steps: 1
"""

pytestmark = pytest.mark.timeout(600)


def recipe(folder: Path, sampling_runs: int) -> Path:
    (folder / "sft.yaml").write_text(SFT)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(sft=folder / "sft.yaml", sampling_runs=sampling_runs))
    return path


def command(recipe: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "start_agent", "hint-rft", "--config", str(recipe), "--output-dir", str(folder)]


def run(recipe: Path, folder: Path) -> None:
    done = subprocess.run(command(recipe, folder), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def has_started(folder: Path, stage: str) -> bool:
    """Whether a stage has said its first word."""
    return (folder / "logs" / f"{stage}.log").exists()


def under_way(folder: Path, stage: str) -> bool:
    """Whether a stage has something that is worth keeping: a record, or a checkpoint."""
    records = folder / stage / RECORDS
    return any(folder.glob(f"{stage}/training/checkpoint-*")) or (records.exists() and records.stat().st_size > 0)


def killed_in(stage: str, recipe: Path, folder: Path, when: Callable[[Path, str], bool]) -> None:
    """Start it, wait until the stage is that far, kill the recipe; its commands must end by themselves."""
    with subprocess.Popen(command(recipe, folder), cwd=ROOT, stderr=subprocess.PIPE, text=True) as host:
        assert wait_until(lambda: when(folder, stage), host.pid), host.stderr and host.stderr.read()
        os.kill(host.pid, signal.SIGKILL)
    wait_for_exits(lambda: naming(folder))  # its commands end with it, at their own pace
    assert not (folder / "stages" / f"{stage}.json").exists()


def data_sets(folder: Path) -> dict[str, str]:
    """The hash of the ids and labels of each data set; where a row comes from names the folder, which differs."""
    found = {}
    for name in ("seed-data", "start-data"):
        assert need_data(folder / name).rows
        rows = (folder / name / ROWS).read_text().replace(str(folder), "")
        found[name] = sha256(rows.encode()).hexdigest()
    return found


@pytest.mark.parametrize(
    ("killed", "stages"),
    [
        pytest.param(
            ["hinted", "start"],
            [one for one in STAGES if one != "sampled-2"],
            id="two",
            marks=pytest.mark.nightly,
        ),
        pytest.param(STAGES, STAGES, id="all", marks=pytest.mark.nightly),
    ],
)
def test_killed_in_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: list[str], stages: list[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sampled = [stage for stage in stages if stage.startswith("sampled")]
    options = recipe(tmp_path, len(sampled))
    run(options, tmp_path / "whole")
    for stage in killed:
        killed_in(stage, options, tmp_path / "cut", has_started if stage.endswith("-data") else under_way)
    run(options, tmp_path / "cut")
    assert data_sets(tmp_path / "cut") == data_sets(tmp_path / "whole")
    for name in ("greedy", "hinted", *sampled):
        cut, whole = (
            sorted(record["key"] for record in read_records(tmp_path / folder / name, traces=False))
            for folder in ("cut", "whole")
        )
        assert cut == whole and len(set(cut)) == len(cut) >= 21
    marks = {path.name for path in (tmp_path / "cut" / "stages").iterdir()}
    assert marks == {f"{stage}{end}" for stage in stages for end in (".json", ".options.json")}
