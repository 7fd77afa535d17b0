"""The HTTP engine under the engines' contract, on doubles that speak the wire of servers that cannot run here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from start_agent.engines.http import HTTPEngine
from start_agent.engines.testing import EngineContract
from start_agent.engines.transformers import TransformersEngine
from start_agent.pocket import weights_path
from tests.support.completions import ModelServer

pytestmark = pytest.mark.slow

POCKET = str(weights_path())


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sglang", "vllm-generate"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[HTTPEngine]:
    async with TransformersEngine(POCKET) as model, ModelServer(request.param, model) as server:
        options = {"base_url": server.url, "max_num_seqs": 32}
        async with HTTPEngine(server.url, POCKET, options) as engine:
            assert engine.kind == request.param
            yield engine


@pytest.mark.asyncio(loop_scope="module")
class TestDoubles(EngineContract):
    """SGLang's /generate, and vLLM's /inference/v1/generate."""
