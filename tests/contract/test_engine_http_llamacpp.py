"""The engine contract on the HTTP engine with a real llama.cpp server of the pocket reasoner."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

from start_agent.engines.base import Sampling
from start_agent.engines.http import HTTPEngine, HTTPOptions
from start_agent.engines.testing import EngineContract
from start_agent.errors import ModelError
from start_agent.pocket import weights_path
from start_agent.tokens.stopping import StopConditions, StopKind
from tests.support.gguf_files import write_gguf
from tests.support.llama_server import SLOTS
from tests.support.ports import free_port
from tests.support.servers import STARTS, llama_server

POCKET = str(weights_path())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model, port = tmp_path_factory.mktemp("gguf") / "pocket.gguf", free_port()
    write_gguf(Path(POCKET), model)
    with llama_server(model, port, context=1024):
        yield f"http://127.0.0.1:{port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(server: str) -> AsyncIterator[HTTPEngine]:
    async with HTTPEngine(server, POCKET, HTTPOptions(base_url=server)) as engine:
        yield engine


@pytest.mark.server
@pytest.mark.timeout(STARTS + 100)
@pytest.mark.asyncio(loop_scope="module")
class TestLlamaCpp(EngineContract):
    """The shared tests; and llama.cpp's own habits."""

    async def test_the_cache_is_notified_even_if_the_checker_stops(self, engine: HTTPEngine) -> None:
        ids = self.prompt(engine)
        first = await engine.generate(self.request(engine, ids, 40, trace_id="cached"))
        wanted = first.token_ids[20]
        request = self.request(
            engine, ids, 40, conditions=StopConditions(frozenset({wanted}), code=False), trace_id="cached"
        )
        second = await engine.generate(request)
        assert second.stop is StopKind.EOS
        assert second.usage.cached_tokens == len(ids) - 1  # the last is always fed again, for its logits

    async def test_characters_of_several_tokens_keep_all_their_ids(self, engine: HTTPEngine) -> None:
        """Its stream leaves such ids out; greedy and sampled turns have them all the same."""
        ids = self.prompt(engine)
        model = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32).eval()
        hot = Sampling(temperature=50.0)  # nearly uniform: about every second token is a byte of no whole character
        for seed in range(3):
            turn = await engine.generate(self.request(engine, ids, 60, sampling=hot, seed=seed))
            again = await engine.generate(self.request(engine, ids, 60, sampling=hot, seed=seed, num_logprobs=1))
            assert len(turn.token_ids) == 60
            assert turn.token_ids == again.token_ids
            assert again.logprobs is not None
            with torch.inference_mode():
                logits = model(torch.tensor([[*ids, *again.token_ids]])).logits[0, len(ids) - 1 : -1]
            expected = logits.log_softmax(dim=-1)
            for row, token_id, found in zip(expected, again.token_ids, again.logprobs, strict=True):
                assert found.logprob == pytest.approx(float(row[token_id]), abs=1e-2)
                assert [value for _, value in found.top] == pytest.approx(row.topk(1).values.tolist(), abs=1e-2)
            text = engine.tokenizer.bytes_of(turn.token_ids)
            assert text.decode(errors="replace") != text.decode(errors="ignore")

    async def test_more_traces_than_slots_wait(self, engine: HTTPEngine) -> None:
        ids = self.prompt(engine)
        open_traces = [self.request(engine, ids, 2, trace_id=f"open {n}") for n in range(SLOTS)]
        await asyncio.gather(*(engine.generate(request) for request in open_traces))
        waiting = asyncio.create_task(engine.generate(self.request(engine, ids, 2)))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        await engine.release("open 0")
        assert len((await waiting).token_ids) == 2

    async def test_the_model_must_have_the_tokenizer_s_vocabulary(
        self, server: str, engine: HTTPEngine, tmp_path: Path
    ) -> None:
        shutil.copytree(POCKET, tmp_path, dirs_exist_ok=True)
        described = (tmp_path / "tokenizer.json").read_text()
        ids = engine.tokenizer.backend.get_vocab()
        one, other = f'"e": {ids["e"]}', f'"a": {ids["a"]}'
        assert one in described and other in described
        swapped = described.replace(one, '"e": @').replace(other, f'"a": {ids["e"]}').replace("@", str(ids["a"]))
        (tmp_path / "tokenizer.json").write_text(swapped)
        with pytest.raises(ModelError, match="another vocabulary"):
            await HTTPEngine(server, str(tmp_path)).__aenter__()
