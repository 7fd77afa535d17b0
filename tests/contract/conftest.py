"""One shared vLLM engine for all tests that can use it: vLLM takes half a minute to start."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.pocket import weights_path

SHARED = VLLMOptions(context_length=512, kv_cache_gib=0.5, max_num_seqs=32, threads=1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pocket_on_vllm() -> AsyncIterator[VLLMEngine]:
    """The pocket reasoner on vLLM. Who uses it needs the session's event loop, and the group ``vllm`` of xdist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_COMPILE_DISABLE", "1")  # else some of vLLM's helpers are compiled when they are first used
        async with VLLMEngine(str(weights_path()), SHARED) as engine:
            yield engine
