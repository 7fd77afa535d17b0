"""All of these tests again as an ordinary user, if root runs the suite; except killed runs and the server."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.unprivileged import ROOT

# To these it is one who runs them.
_LEFT_OUT = (
    "test_batch_kill",
    "test_hint_rft_kill",
    "test_star_kill",
    "test_ray_workers",
    "test_server_faults",
    "test_server_hostile",
)
_SUITE = ("tests/faults", "tests/contract/test_sandbox_contract.py", "tests/unit/sandbox/test_unavailable.py")


@pytest.mark.skipif(os.geteuid() != 0, reason="this run is an ordinary user's already")
@pytest.mark.timeout(2_400)
def test_the_suite_as_an_ordinary_user() -> None:
    # Most of the time these wait for limits: several at once.
    side_by_side = ["-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder"]
    left_out = [f"--ignore=tests/faults/{name}.py" for name in _LEFT_OUT]
    pytest_here = [sys.executable, "-m", "pytest", "-rs", *side_by_side, *left_out]
    command = [sys.executable, "tests/support/unprivileged.py", *pytest_here, *_SUITE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    # Nothing is left out but this, tier 3 where Linux has no Landlock for it, and what only root can try.
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    known = ("already", "Landlock", "no cgroups", "needs root", "no process can be forked")
    assert [line for line in skipped if not any(words in line for words in known)] == []
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 100
