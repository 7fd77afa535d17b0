"""The benchmark of the sandbox's speed against another checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sandbox import alternately, medians
from sandbox import SandboxError

ROOT = Path(__file__).resolve().parents[3]
FAKE = """
from contextlib import asynccontextmanager
class Session:
    async def execute(self, code): return type("Result", (), {"text": "2"})
class Sandbox:
    def __init__(self, **options): pass
    async def __aenter__(self): return self
    async def __aexit__(self, *of): pass
    @asynccontextmanager
    async def session(self): yield Session()
"""


def test_medians_are_named_for_the_checkout() -> None:
    runs = {"": [{"a": 3.0}, {"a": 1.0}, {"a": 2.0}], "_against": [{"a": 5.0}], "floor": [{"a": 0.5}]}
    assert medians(runs) == {"a": 2.0, "a_against": 5.0, "floor_a": 0.5}


def test_the_sandbox_that_is_measured_is_the_checkouts(tmp_path: Path) -> None:
    (tmp_path / "sandbox.py").write_text(FAKE)
    command = [sys.executable, "-P", str(ROOT / "benchmarks" / "sandbox_speed.py"), "--quick"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert set(figures) == {"first_reply_cold_ms_p50", "cell_ms_p50", "sessions_per_s", "cells_per_s_64"}
    assert figures["cells_per_s_64"] > 0


async def test_a_checkout_that_cannot_be_measured_is_said(tmp_path: Path) -> None:
    (tmp_path / "sandbox.py").write_text("Sandbox = None")
    with pytest.raises(SandboxError, match=str(tmp_path)):
        await alternately({"_against": tmp_path}, 1, True, None)
