"""The engine contract on the HTTP engine with imitations of servers that cannot run here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from start_agent.engines.base import Sampling
from start_agent.engines.http import HTTPEngine
from start_agent.engines.testing import EngineContract
from start_agent.engines.transformers import TransformersEngine
from start_agent.errors import ConfigError
from start_agent.pocket import weights_path
from tests.support.completions import ModelServer

pytestmark = pytest.mark.slow

POCKET = str(weights_path())


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["sglang", "sglang incremental", "vllm-generate", "vllm-generate 0.27"]
)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[HTTPEngine]:
    kind, _, variant = request.param.partition(" ")
    forms = {"cumulative": variant != "incremental", "numbered": variant != "0.27"}
    async with TransformersEngine(POCKET) as model, ModelServer(kind, model, **forms) as server:
        options = {"base_url": server.url, "max_num_seqs": 32}
        async with HTTPEngine(server.url, POCKET, options) as engine:
            assert engine.kind == kind
            yield engine


@pytest.mark.asyncio(loop_scope="module")
class TestDoubles(EngineContract):
    """SGLang's /generate, and vLLM's /inference/v1/generate."""


async def test_log_probabilities_behind_the_temperature_are_refused() -> None:
    """SGLang returns those before the temperature only if it is configured to; at temperature 0 both are the same."""
    contract = EngineContract()
    async with (
        TransformersEngine(POCKET) as model,
        ModelServer("sglang", model, raw=False) as server,
        HTTPEngine(server.url, POCKET, {"base_url": server.url}) as engine,
    ):
        ids = contract.prompt(engine)
        for temperature in (0.0, 1.0):
            request = contract.request(
                engine, ids, 5, sampling=Sampling(temperature=temperature), seed=1, num_logprobs=2
            )
            turn = await engine.generate(request)
            assert turn.logprobs is not None and len(turn.logprobs) == 5
        warm = Sampling(temperature=0.6)
        with pytest.raises(ConfigError, match="SGLANG_RETURN_ORIGINAL_LOGPROB"):
            await engine.generate(contract.request(engine, ids, 5, sampling=warm, num_logprobs=0))
        assert len((await engine.generate(contract.request(engine, ids, 5, sampling=warm))).token_ids) == 5
