"""``python -m sandbox soak`` as operators run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _soak(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "sandbox", "soak", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_two_rounds_lose_nothing() -> None:
    status, text = _soak("--minutes", "0", "--sessions", "4", "--size", "3", "--seed", "11")
    assert status == 0, text
    assert "seed 11\n" in text and "2 rounds of 4 sessions at once" in text
    assert "round 2: 6 sessions" in text or "round 1: 3 sessions" in text


def test_one_session_again() -> None:
    status, text = _soak("--replay", "11.0.1")
    assert status == 0, text
    assert text.startswith("--- cell 0 of 11.0.1, ") and text.endswith("--- 0 faults; left: nothing\n")


@pytest.mark.parametrize("options", ["--minutes nan", "--minutes -1", "--minutes x", "--sessions 1", "--size 1"])
def test_options_that_are_wrong_are_named(options: str) -> None:
    status, text = _soak(*options.split())
    assert status == 2 and f"argument {options.split()[0]}: must be a " in text and text.endswith("\n")
    assert f"not {options.split()[1]!r}" in text
