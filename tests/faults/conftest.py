"""One sandbox for all attacks of a module; after each, checks that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from sandbox import Result, Sandbox, isolation
from sandbox.inside import landlock
from tests.support.processes import sandboxed
from tests.support.small import LIMITS
from tests.support.waiting import eventually

Attack = Callable[..., Awaitable[Result]]

_NOT_HERE = (
    pytest.mark.skipif(landlock.abi() < landlock.LEAST_ABI, reason=f"Linux has Landlock {landlock.abi()} here, not 6"),
    pytest.mark.skipif(
        isolation.hidden_from_others() is not None,
        reason="the kernels' users cannot read root's interpreter here; test_unprivileged runs these",
    ),
)


ROOT = os.geteuid() == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tier 2 is attacked by root's kernels; that an ordinary user's hold, too, is shown every night."""
    if not ROOT:
        for item in items:
            parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
            if 2 in (parameters.get("tier"), parameters.get("box")):
                item.add_marker("nightly")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try each attack in tiers 1 and 2, or in those that its module names in ``TIERS``."""
    if "box" in metafunc.fixturenames and (tiers := getattr(metafunc.module, "TIERS", (1, 2))):
        values = [pytest.param(tier, id=f"tier{tier}", marks=_NOT_HERE if tier == 3 else ()) for tier in tiers]
        metafunc.parametrize("box", values, indirect=True, scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """An open sandbox with three places; a tier that does not hold here is a failure."""
    assert sandboxed() == {}
    async with Sandbox(LIMITS, size=3, prestart=1, tier=request.param) as box:
        yield box
    assert sandboxed() == {}


@pytest_asyncio.fixture(loop_scope="module")
async def attack(box: Sandbox) -> AsyncIterator[Attack]:
    """Run one cell next to another session, which must keep its state and respond."""
    async with box.session() as sibling:
        await sibling.execute("secret = 'sibling'")

        async def attack(code: str, timeout: float = 5.0) -> Result:
            async with box.session() as session:
                return await session.execute(code, timeout=timeout)

        yield attack
        async with asyncio.timeout(5):
            assert (await sibling.execute("secret")).text == "'sibling'"
    # What is left are the one kernel kept ready and nothing else: no process, no folder, no socket.
    await eventually(lambda: (box.stats.kernels_live, box.stats.kernels_ready) == (1, 1))
    assert box.stats.faults == 0 and box.stats.zygote_restarts == 0
    assert box._folder is not None
    tier = box._folder / f"tier-{box.tier}"
    assert len([path for path in tier.iterdir() if path.name.isdigit()]) == int(box.tier == 3)
    assert [path for path in tier.rglob("*") if path.is_socket()] == []
    # The guardian, the zygote (with bubblewrap's two, or the one that waits for it), and the kernel.
    assert len(sandboxed()) == {1: 5, 2: 4, 3: 3}[box.tier]
