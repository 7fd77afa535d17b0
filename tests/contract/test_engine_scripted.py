"""The engine contract on the scripted engine, whose script imitates a model with words and a hash."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from start_agent.engines.base import Engine, TurnRequest
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer, scripted_logprob
from start_agent.engines.testing import EngineContract

WORDS = b"Wait so the sum is 12 and 35 . Then I add , check it again \n for Alternatively what we know".split(b" ")


def babble(request: TurnRequest) -> list[int]:
    """Letters of words, each decided by its place, the letter before it and (where it is warm) the seed."""
    text = [*request.token_ids]
    warm = request.sampling.temperature > 0 and request.sampling.top_p > 0.5 and request.sampling.top_k != 1
    for place in range(len(text), len(text) + request.max_tokens + 8):
        seed = hash((text[-1], place, request.seed if warm else 0))
        word = random.Random(seed).choice(WORDS) + b" "
        text.append(BY_BYTE[word[place % len(word)]])
    return text[len(request.token_ids) :]


BY_BYTE = {byte_tokenizer().bytes_of([token_id])[0]: token_id for token_id in range(256)}


class TestScripted(EngineContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        async with ScriptedEngine(babble, context_length=600) as engine:
            yield engine

    async def test_log_probabilities_are_those_before_temperature_and_filters(self, engine: Engine) -> None:
        """It has no distribution: what it gives follows from the token that it says."""
        turn = await engine.generate(self.request(engine, self.prompt(engine), 9, num_logprobs=3))
        size = len(engine.tokenizer.pieces)
        assert turn.logprobs == tuple(scripted_logprob(token_id, 3, size) for token_id in turn.token_ids)
