"""Verdicts on programs equal those of plain Python, given the same input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox import Sandbox, isolation
from sandbox.inside import landlock
from start_agent.grading import grade_code
from start_agent.grading.code import LIMITS
from start_agent.problem import CodeTests
from tests.support.programs import INPUTS, OUTPUTS, PROGRAMS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

_TESTS = CodeTests(
    json.dumps([{"input": i, "output": o, "testtype": "stdin"} for i, o in zip(INPUTS, OUTPUTS, strict=True)])
)

# Without processes some of them cannot be; what one dies of cannot be told from how the session ends; and where the
# kernel itself is the program, its wire is closed with all else.
_NOT_IN_TIER_3 = {
    *("write-subprocess", "write-system", "write-fork", "write-pool", "read-dev-stdin", "write-dev-stdout"),
    *("write-child-fails", "write-child-exits", "write-child-ends-well", "write-child-ends-well-first"),
    *("write-all-closed", "write-all-closed-and-opened"),
}


def _is_right(program: str, folder: Path) -> bool:
    """Whether it ends well and prints what it should, in plain Python, test by test."""
    for given, expected in zip(INPUTS, OUTPUTS, strict=True):
        place = folder / str(len(list(folder.iterdir())))
        place.mkdir()
        file, stdin_file = folder / "program.py", folder / "input"
        file.write_text(program)
        stdin_file.write_text(given)
        command = [sys.executable, str(file)]
        with stdin_file.open() as stdin:
            done = subprocess.run(
                command, cwd=place, stdin=stdin, env={"LANG": "C.UTF-8"}, capture_output=True, timeout=60, check=False
            )
        lines = [line.strip() for line in done.stdout.decode("utf-8", "replace").strip().split("\n")]
        if done.returncode != 0 or lines != expected.strip().split("\n"):
            return False
    return True


_TIERS = [
    pytest.param(1, id="tier1"),
    pytest.param(2, id="tier2", marks=pytest.mark.nightly),
    pytest.param(3, id="tier3"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=_TIERS)
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    if request.param == 3 and (landlock.abi() < landlock.LEAST_ABI or isolation.hidden_from_others() is not None):
        pytest.skip("tier 3 cannot be had here")
    async with Sandbox(LIMITS, size=2, tier=request.param) as box:
        yield box


@pytest.mark.parametrize("name", PROGRAMS)
async def test_verdicts_are_plain_pythons(box: Sandbox, name: str, tmp_path: Path) -> None:
    if box.tier == 3 and name in _NOT_IN_TIER_3:
        pytest.skip("needs processes or /proc")
    right = _is_right(PROGRAMS[name], tmp_path)
    verdict = await grade_code(PROGRAMS[name], _TESTS, box)
    assert verdict.correct is right, verdict


async def test_both_kinds_are_there(tmp_path: Path) -> None:
    verdicts = [_is_right(PROGRAMS[f"write-{name}"], tmp_path) for name in ("print", "twice", "exit-1", "exit")]
    assert verdicts == [True, False, False, True]
