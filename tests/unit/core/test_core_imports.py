"""The import contracts fail for an upward import; `make check` checks that they hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import start_agent

ROOT = Path(start_agent.__file__).parents[1]
CONTRACTS = ROOT / ".importlinter"
LINTER = Path(sys.executable).with_name("lint-imports")

PLANTED = {
    "start_agent/trace.py": "from start_agent.decoding import solver",
    "start_agent/engines/base.py": "import sandbox",
    "start_agent/decoding/solver.py": "from start_agent.engines.scripted import ScriptedEngine",
    "sandbox/limits.py": "from start_agent import trace",
    "start_agent/training/sft.py": "from start_agent import papers",
    "start_agent/tasks/task.py": "from start_agent import pocket",
    "start_agent/fields.py": "import argparse",
}


@pytest.mark.skipif(not CONTRACTS.is_file(), reason="the contracts are in the repository, not in the wheel")
def test_a_planted_import_breaks_each_contract(tmp_path: Path) -> None:
    for package in ("start_agent", "sandbox", "hints"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
        )
    for module, upward in PLANTED.items():
        path = tmp_path / module
        path.write_text(f"{path.read_text()}\n{upward}\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    words = [str(LINTER), "--config", str(CONTRACTS), "--no-cache"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "KEPT" not in done.stdout, done.stdout
    assert "0 kept, 7 broken" in done.stdout
