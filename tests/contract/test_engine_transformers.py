"""The engine contract on the transformers engine with the pocket reasoner, and its own guarantees."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

from start_agent.engines.base import Engine, Sampling, Tokens, Turn, TurnRequest
from start_agent.engines.testing import EngineContract
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.engines.transformers.sampling import sample
from start_agent.errors import EngineError
from start_agent.pocket import weights_path

POCKET = str(weights_path())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[TransformersEngine]:
    async with TransformersEngine(POCKET, TransformersOptions(device="cpu", max_num_seqs=32)) as engine:
        yield engine


@pytest.mark.asyncio(loop_scope="module")
class TestTransformers(EngineContract):
    """The shared tests, and one for each promise about the cache."""

    async def test_each_token_of_a_trace_is_fed_once(self, engine: TransformersEngine) -> None:
        """Whatever is inserted or dropped: counted where the model's first layer sees them, padding aside."""
        fed, shared = list[int](), 0

        def count(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
            fed.append(sum(engine._batch.cache.counts))

        ids = self.prompt(engine)
        handle = engine._batch.passes.model.register_forward_pre_hook(count, with_kwargs=True)
        try:
            for turn_number in range(4):
                turn = await engine.generate(self.request(engine, ids, 20, trace_id="counted"))
                shared = shared if turn_number else turn.usage.cached_tokens  # of another test's trace
                assert (
                    turn.usage.computed_tokens + turn.usage.cached_tokens == len(ids) + 19
                )  # the last token is fed in the next turn
                ids += turn.token_ids
                ids += engine.tokenizer.encode(f" And insertion {turn_number}\n")
            before_drop = sum(fed)
            assert before_drop == len(ids) - shared - 1 - len(engine.tokenizer.encode(" And insertion 3\n"))
            shorter = ids[:-30]
            await engine.generate(self.request(engine, shorter, 5, trace_id="counted"))
            assert sum(fed) == before_drop + 1 + 4  # one token, to know what follows it, then four of the five
        finally:
            handle.remove()
            await engine.release("counted")

    async def test_tokens_of_a_stream_wait_for_one_another(
        self, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a pause that never ends there are two runs: the first tokens, and the rest at the end of the turn."""
        monkeypatch.setattr("start_agent.engines.transformers.engine.stream_pause", lambda streams: 1e9)
        request = self.request(engine, self.prompt(engine), 30)
        *runs, turn = [item async for item in engine.stream(request)]
        assert isinstance(turn, Turn) and len(runs) == 2
        assert sum((run.token_ids for run in runs if isinstance(run, Tokens)), ()) == turn.token_ids

    async def test_what_the_layers_see_is_what_was_counted(self, engine: TransformersEngine) -> None:
        """The ids that go into the embedding, padding aside, are the trace's own, in order."""
        seen: list[int] = []

        def look(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            seen.extend(arguments[0][0].tolist())

        ids = self.prompt(engine)
        handle = engine._batch.passes.model.get_input_embeddings().register_forward_pre_hook(look)
        try:
            first = await engine.generate(self.request(engine, ids, 12, trace_id="seen"))
            ids += [*first.token_ids, *engine.tokenizer.encode(" Alternatively, no.\n")]
            second = await engine.generate(self.request(engine, ids, 12, trace_id="seen"))
        finally:
            handle.remove()
            await engine.release("seen")
        assert seen == [*ids, *second.token_ids[:-1]][first.usage.cached_tokens :]

    async def test_log_probabilities_are_those_of_a_forward_pass(self, engine: TransformersEngine) -> None:
        """For a trace that was prefilled and decoded in turns, with an insertion, in a batch with different ones."""
        model = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32).eval()

        async def one(number: int) -> None:
            ids, name = self.prompt(engine, number), f"recomputed {number}"
            sampling = Sampling(temperature=0.4 * number, top_k=40)
            for length in (30 + 5 * number, 40):
                request = self.request(
                    engine, ids, length, trace_id=name, sampling=sampling, seed=number, num_logprobs=4
                )
                turn = await engine.generate(request)
                with torch.inference_mode():
                    logits = model(torch.tensor([[*ids, *turn.token_ids]])).logits[0, len(ids) - 1 : -1]
                expected = logits.double().log_softmax(dim=-1)
                assert turn.logprobs is not None
                for row, token_id, found in zip(expected, turn.token_ids, turn.logprobs, strict=True):
                    assert found.logprob == pytest.approx(float(row[token_id]), abs=1e-4)
                    assert [value for _, value in found.top] == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)
                    for candidate, value in found.top:
                        assert value == pytest.approx(float(row[candidate]), abs=1e-4)
                ids = [*ids, *turn.token_ids, *engine.tokenizer.encode(" Wait, I should check that.\n")]

        await asyncio.gather(*map(one, range(4)))

    async def test_more_traces_than_slots_wait_their_turn(self, engine: TransformersEngine) -> None:
        async def one(number: int) -> int:
            name = f"queued {number}"
            turn = await engine.generate(self.request(engine, self.prompt(engine), 5 + number, trace_id=name))
            await engine.release(name)
            return len(turn.token_ids)

        assert await asyncio.gather(*map(one, range(30))) == list(range(5, 35))

    async def test_a_trace_has_one_turn_at_a_time(self, engine: TransformersEngine) -> None:
        ids = self.prompt(engine)
        turns = [engine.generate(self.request(engine, ids, 30, trace_id="twice")) for _ in range(2)]
        results = await asyncio.gather(*turns, return_exceptions=True)
        await engine.release("twice")
        assert [isinstance(result, EngineError) for result in results] == [False, True]


class TestFailure:
    def request(self, engine: Engine) -> TurnRequest:
        return EngineContract().request(engine, [1, 2, 3], 50)

    async def test_a_model_that_fails_fails_every_turn_and_all_later_ones(self) -> None:
        def fail(*arguments: Any) -> None:
            raise RuntimeError("no kernel for this")

        async with TransformersEngine(POCKET) as engine:
            assert engine.failure is None
            engine._batch.passes.model.register_forward_pre_hook(fail)
            turns = [engine.generate(self.request(engine)) for _ in range(5)]
            for result in await asyncio.gather(*turns, return_exceptions=True):
                assert isinstance(result, EngineError)
                assert "no kernel for this" in str(result)
            assert engine.failure is not None
            with pytest.raises(EngineError, match="no kernel for this"):
                await engine.generate(self.request(engine))

    async def test_closing_ends_the_turns_under_way(self) -> None:
        async with TransformersEngine(POCKET) as engine:
            turn = asyncio.create_task(engine.generate(self.request(engine)))
            async for _ in engine.stream(EngineContract().request(engine, [4, 5, 6], 1)):
                pass
            thread = engine._thread
        assert thread is not None
        assert not thread.is_alive()
        with pytest.raises(EngineError, match="closed"):
            await turn

    async def test_outside_its_block_it_is_not_running(self) -> None:
        engine = TransformersEngine(POCKET)
        async with engine:
            request = self.request(engine)
        with pytest.raises(EngineError, match="not running"):
            await engine.generate(request)


class TestSampling:
    """The filters, on a distribution small enough to compute by hand."""

    PROBABILITIES = (0.5, 0.25, 0.15, 0.07, 0.03)

    def frequencies(self, sampling: Sampling) -> list[float]:
        logits = torch.tensor([self.PROBABILITIES]).log()
        source = random.Random(0)
        draws = [sample(logits, [sampling], [source])[0] for _ in range(4000)]
        return [draws.count(token) / len(draws) for token in range(5)]

    @pytest.mark.parametrize(
        ("sampling", "weights"),
        [
            (Sampling(temperature=1), (0.5, 0.25, 0.15, 0.07, 0.03)),
            (Sampling(temperature=0.5), (0.25, 0.0625, 0.0225, 0.0049, 0.0009)),
            (Sampling(temperature=1, top_k=2), (0.5, 0.25, 0, 0, 0)),
            (Sampling(temperature=1, top_p=0.76), (0.5, 0.25, 0.15, 0, 0)),
            (Sampling(temperature=1, top_p=0.74), (0.5, 0.25, 0, 0, 0)),
            (Sampling(temperature=1, min_p=0.29), (0.5, 0.25, 0.15, 0, 0)),
            (Sampling(temperature=1, min_p=0.29, top_k=2), (0.5, 0.25, 0, 0, 0)),
        ],
    )
    def test_filters(self, sampling: Sampling, weights: tuple[float, ...]) -> None:
        expected = [weight / sum(weights) for weight in weights]
        for found, wanted in zip(self.frequencies(sampling), expected, strict=True):
            assert found == pytest.approx(wanted, abs=0.03)
            assert (found == 0) == (wanted == 0) or wanted < 0.002

    def test_rows_do_not_share_their_numbers(self) -> None:
        logits = torch.zeros(2, 1000)
        warm = Sampling(temperature=1)
        pair = sample(logits, [warm, warm], [random.Random(1), random.Random(2)])
        assert pair[0] == sample(logits[:1], [warm], [random.Random(1)])[0]
        assert pair[1] == sample(logits[1:], [warm], [random.Random(2)])[0]
        assert pair[0] != pair[1]
