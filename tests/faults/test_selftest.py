"""``python -m sandbox selftest`` as users and CI run it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.probes import PROBES

ROOT = Path(__file__).parents[2]


def _selftest(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "sandbox", "selftest", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_every_probe_is_contained_in_tier_1() -> None:
    status, text = _selftest("--expect-tier", "1")
    assert status == 0 and text.startswith("isolation: bubblewrap (tier 1)\n"), text
    assert text.count("contained  ") == len([probe for probe in PROBES if 1 in probe.tiers]) + 1
    assert text.endswith("all probes contained\n")


def test_a_lesser_tier_than_expected_fails() -> None:
    status, text = _selftest("--tier", "2", "--expect-tier", "1")
    assert status == 1 and "tier 1 was expected, this is namespaces (tier 2)" in text
    assert "ESCAPED" not in text


@pytest.mark.parametrize("argument", ["--expect-tier=4", "--tier=0"])
def test_tiers_that_are_none(argument: str) -> None:
    assert _selftest(argument)[0] == 2


def test_an_interrupt_ends_it_in_one_line() -> None:
    command = [sys.executable, "-u", "-m", "sandbox", "selftest"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        running.stdout.readline()  # it has opened
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (130, "sandbox: interrupted\n")
