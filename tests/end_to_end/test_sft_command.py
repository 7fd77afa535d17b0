"""``start-agent sft`` as users run it: killed and resumed, in several processes, with invalid input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import start_agent
from start_agent.training.options import SftOptions
from start_agent.training.sft import train
from tests.support.sft_worker import HASHES
from tests.support.tiny_models import rows, tiny_model
from tests.support.waiting import wait_until

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

ROOT = Path(__file__).parents[2]
ROWS = rows(16)
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-2,
    "num_train_epochs": 20,
    "batch_size": 8,
    "per_device_train_batch_size": 2,
    "max_length": 64,
    "device": "cpu",
    "threads": 1,
    "save_steps": 5,
}
SWITCHES = {"bf16": False, "gradient_checkpointing": False}


def flags(**changes: Any) -> list[str]:
    values = SETTINGS | changes
    switches = [f"--{'' if value else 'no-'}{name.replace('_', '-')}" for name, value in SWITCHES.items()]
    return [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), str(value))] + switches


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "start_agent", "sft", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_killed_at_any_moment_the_same_command_ends_in_the_same_weights(base: Path, data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["--model", base, "--data", data, "--output-dir", cut, *flags()]
    running = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, env=environment())
    alive = wait_until(lambda: bool(list(cut.glob("training/checkpoint-*/whole.json"))), running.pid)
    assert alive, running.communicate()[1]
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    assert not (cut / "config.json").exists()
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=100, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{cut}\n"
    assert "40 steps over 16 rows" in done.stderr
    assert "row row 0, tokens per span: 12 masked | 25 trained\n" in done.stderr
    assert str(data) in (cut / "README.md").read_text()

    train(str(base), ROWS, SftOptions(**SETTINGS, **SWITCHES), whole)
    one, other = weights(whole), weights(cut)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_train_as_one(base: Path, data: Path, tmp_path: Path) -> None:
    """The code path of the 32B recipe, on a tiny model of its architecture: packed, checkpointed, two processes."""
    changes = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 1,
        "max_length": 64,
        "batch_size": 4,
    }  # 16 rows make 8 packed sequences
    one, two = tmp_path / "one", tmp_path / "two"
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    worker = [str(ROOT / "tests" / "support" / "sft_worker.py"), str(tmp_path)]
    arguments = ["--model", base, "--data", data, "--output-dir", two, *flags(**changes)]
    modern = [word for word in map(str, arguments) if word != "--no-gradient-checkpointing"]
    done = subprocess.run(
        [*launched, *worker, *modern, "--gradient-checkpointing", "--packing"],
        capture_output=True, text=True, timeout=100, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    hashes = [path.read_text() for path in sorted(tmp_path.glob(HASHES))]
    assert len(hashes) == 2 and hashes[0] == hashes[1]

    settings = SETTINGS | changes | {"packing": True, "bf16": False, "gradient_checkpointing": True}
    alone = train(str(base), ROWS, SftOptions(**settings), one)
    report = json.loads((two / "training" / "report.json").read_text())
    assert (report["processes"], alone.processes) == (2, 1)
    assert report["steps"] == alone.steps == 4
    assert report["first_loss"] == pytest.approx(alone.first_loss, rel=1e-6)
    assert report["last_loss"] == pytest.approx(alone.last_loss, rel=1e-5)
    first, second = weights(one), weights(two)
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


@pytest.mark.skipif(
    "START_AGENT_DEEPSPEED" not in os.environ, reason="see docs/how-to/scale.md: DeepSpeed is not installed"
)
def test_zero3_trains_as_one_process(base: Path, data: Path, tmp_path: Path) -> None:
    """The shipped configuration, in two processes on CPUs: the same losses, in bfloat16's precision."""
    text = (Path(start_agent.__file__).parent / "training/recipes/accelerate-zero3.yaml").read_text()
    for old, new in (
        ("num_machines: 4", "num_machines: 1"),
        ("num_processes: 32", "num_processes: 2"),
        ("use_cpu: false", "use_cpu: true"),
        ("  deepspeed_multinode_launcher: standard\n", ""),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "zero3.yaml").write_text(text)
    recipe = ["--config", "start-32b", "--attn-implementation", "sdpa", "--batch-size", "4", "--max-length", "64"]
    recipe += ["--learning-rate", "1e-3", "--num-train-epochs", "2", "--device", "cpu"]
    path = f"{ROOT}{os.pathsep}{os.environ['START_AGENT_DEEPSPEED']}"
    launched = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "zero3.yaml")]
    done = subprocess.run(
        [*launched, "-m", "start_agent", "sft", *recipe, "--model", str(base), "--data", str(data),
         "--output-dir", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=110, env=environment(PYTHONPATH=path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = SETTINGS | {
        "batch_size": 4, "per_device_train_batch_size": 1, "max_length": 64, "learning_rate": 1e-3,
        "num_train_epochs": 2, "packing": True,
    }  # fmt: skip
    alone = train(str(base), ROWS, SftOptions(**settings), tmp_path / "one")
    report = json.loads((tmp_path / "two" / "training" / "report.json").read_text())
    assert (report["processes"], report["steps"]) == (2, alone.steps)
    assert report["first_loss"] == pytest.approx(alone.first_loss, rel=1e-3)
    assert report["last_loss"] == pytest.approx(alone.last_loss, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "start-33b"], "no recipe 'start-33b'"),
        (["--max-length", "20"], "rows are longer than 20 tokens, the longest 39"),
        (["--per-device-train-batch-size", "3"], "not a multiple of per_device_train_batch_size 3"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    base: Path, data: Path, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from start_agent.cli.main import main

    given = ["sft", "--model", str(base), "--data", str(data), "--output-dir", str(tmp_path / "out"), *arguments]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("config.json"))
