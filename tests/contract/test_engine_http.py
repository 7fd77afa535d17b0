"""The engine contract on the HTTP engine with a real vLLM server, on both of its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from start_agent.engines.http import API_KEY, HTTPEngine, HTTPOptions
from start_agent.engines.testing import EngineContract
from start_agent.errors import ConfigError, ModelError
from start_agent.pocket import weights_path
from tests.support.ports import free_port
from tests.support.servers import STARTS, serving

POCKET = str(weights_path())
KEY = "the key of the test"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of the pocket reasoner. Not ``vllm serve``, which the CPU build lacks, but what it runs."""
    port = free_port()
    arguments = ["--model", POCKET, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    arguments += ["--enforce-eager", "--block-size", "32", "--kv-cache-memory-bytes", str(1 << 28)]
    arguments += ["--enable-prompt-tokens-details", "--scheduling-policy", "priority", "--enable-scale-out"]
    environment = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_API_KEY": KEY,
        "TORCH_COMPILE_DISABLE": "1",  # else it compiles half a minute for the first log-probabilities
    }
    with serving("vllm.entrypoints.openai.api_server", *arguments, port=port, environment=environment):
        yield f"http://127.0.0.1:{port}/v1"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["vllm", "auto"])
async def engine(request: pytest.FixtureRequest, server: str) -> AsyncIterator[HTTPEngine]:
    """On both routes; the second is the one that is found where the server has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(API_KEY, KEY)
        options = HTTPOptions(max_num_seqs=32, server_priority=True, server_kind=request.param)
        async with HTTPEngine(server, POCKET, options) as engine:
            assert engine.kind == {"vllm": "vllm", "auto": "vllm-generate"}[request.param]
            yield engine


@pytest.mark.server
@pytest.mark.timeout(STARTS + 100)
@pytest.mark.asyncio(loop_scope="module")
class TestHTTP(EngineContract):
    """The shared tests; and what a real server says of its cache, and of what it does not like."""

    async def test_the_cache_is_notified_of_turns_that_end_by_themselves(self, engine: HTTPEngine) -> None:
        ids = self.prompt(engine) * 4
        await engine.generate(self.request(engine, ids, 10))
        usage = (await engine.generate(self.request(engine, ids, 10))).usage
        assert usage.cached_tokens == len(ids) // 32 * 32
        assert usage.cached_tokens + usage.computed_tokens == len(ids) + 9

    async def test_a_wrong_key_is_one_line_without_the_key(
        self, server: str, engine: HTTPEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(API_KEY, "a wrong secret")
        with pytest.raises(ConfigError, match=API_KEY) as caught:
            await HTTPEngine(server, POCKET).__aenter__()
        assert "secret" not in str(caught.value)

    async def test_a_model_that_is_not_served_is_one_line(
        self, server: str, engine: HTTPEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(API_KEY, KEY)
        with pytest.raises(ModelError, match="does not serve 'another'"):
            await HTTPEngine(server, POCKET, HTTPOptions(served_model="another")).__aenter__()
