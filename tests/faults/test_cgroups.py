"""The limits of cgroups if they are available; without them everything works, and says so."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox import Outcome, Sandbox, cgroups, isolation, memory
from sandbox.cgroups import Group, Groups
from tests.support.processes import groups
from tests.support.small import LIMITS
from tests.support.waiting import wait_for_exits

_BURST = """
import os, time
for n in range(8):
    if os.fork() == 0:
        x = bytearray(os.urandom(1 << 20) * 200)
        time.sleep(99)
"""


_TIER_0 = pytest.param(
    0,
    id="tier0",
    marks=pytest.mark.skipif(isolation.hidden_from_others() is not None, reason="a Python that only root can reach"),
)


@pytest_asyncio.fixture(params=[_TIER_0, pytest.param(1, id="tier1"), pytest.param(2, id="tier2")])
async def grouped(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    how = {"tier": request.param} if request.param else {"unsafe_no_isolation": True}
    async with Sandbox(LIMITS, size=2, prestart=0, **how) as box:
        if box.cgroups.startswith("not used"):
            pytest.skip(f"this user can make no cgroups here ({box.cgroups})")
        assert box._folder is not None
        name = box._folder.name
        assert len(groups([name])) == 2
        yield box
        assert box.stats.kernels_grouped == box.stats.kernels_started > 0
        # All that is left of the sessions is one kernel's place, if one was started ahead.
        assert all(len([path for path in home.iterdir() if path.is_dir()]) <= 1 for home in groups([name]))
    assert groups([name]) == []


@pytest.mark.parametrize("cell", [_BURST + "time.sleep(99)", _BURST + "os._exit(0)"], ids=["waits", "dies"])
async def test_a_burst_meets_a_bound(grouped: Sandbox, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Family, "exceeds", lambda *_: False)  # it has not seen it yet
    async with grouped.session() as session, grouped.session() as sibling:
        await sibling.execute("x = 1")
        result = await session.execute(cell, timeout=60)
        if "os._exit" in cell and result.outcome is Outcome.DIED:
            return  # it was gone before its children had used up anything
        assert (result.outcome, result.state_lost) == (Outcome.MEMORY, True)
        assert "used more than 700 MB together. All variables are lost." in result.text
        assert (await session.execute("6 * 7")).text == "42"
        assert (await sibling.execute("x")).text == "1"


async def test_processes_are_counted_and_end(grouped: Sandbox) -> None:
    async with grouped.session() as session:
        daemon = "    if os.fork() == 0:\n        os.setsid()\n        time.sleep(1000)"
        result = await session.execute(f"import os, time\nfor n in range(100):\n{daemon}")
        assert "BlockingIOError" in result.text
        assert grouped._pool is not None
        (kernel,) = grouped._pool.kernels
        assert kernel._group is not None
        members = (kernel._group.folders[0] / "cgroup.procs").read_text().split()
        assert LIMITS.processes - 2 <= len(members) <= LIMITS.processes  # threads count too, and are not listed
    # Daemons end with their session even without isolation; their guardian notices it a moment later.
    wait_for_exits(lambda: [int(member) for member in members if os.access(f"/proc/{member}", os.F_OK)])


async def test_none_can_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroups, "_places", lambda *_: (1, [tmp_path / "nowhere"]))
    async with Sandbox(LIMITS, size=1, prestart=0) as box, box.session() as session:
        assert (await session.execute("1")).text == "1"
        assert box.cgroups == f"not used: No such file or directory ({tmp_path}/nowhere/{box._folder.name})"  # type: ignore[union-attr]
        assert (box.stats.kernels_started, box.stats.kernels_grouped) == (2, 0)


async def test_one_cannot_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(groups: Groups, limits: object) -> Group:
        return Group(1, 1, [], [os.open("/dev/full", os.O_WRONLY)])

    monkeypatch.setattr(Groups, "_make", closed)
    async with Sandbox(LIMITS, size=1, prestart=0) as box, box.session() as session:
        if "No space left" not in box.cgroups:
            assert box.cgroups.startswith("not used")  # for another reason: there can be none anyway
        assert (await session.execute("1")).text == "1"
        assert box.stats.kernels_grouped == 0
