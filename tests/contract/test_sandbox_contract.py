"""The sandbox contract on all sandboxes. Fails where bubblewrap or namespaces are missing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandbox import BaseSandbox, FakeSandbox, Sandbox
from sandbox.testing import PythonContract, SandboxContract

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[1, 2], ids=["tier1", "tier2"])
async def real(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with Sandbox(size=2, tier=request.param) as box:
        yield box


@pytest_asyncio.fixture(loop_scope="module")
async def fake() -> AsyncIterator[FakeSandbox]:
    async with FakeSandbox({"1 + 1": "2"}, size=2) as box:
        yield box


class TestSandbox(SandboxContract, PythonContract):
    @pytest.fixture
    def box(self, real: Sandbox) -> BaseSandbox:
        return real


class TestFakeSandbox(SandboxContract):
    @pytest.fixture
    def box(self, fake: FakeSandbox) -> BaseSandbox:
        return fake
