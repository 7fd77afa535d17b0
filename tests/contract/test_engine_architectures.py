"""The transformers engine on common architectures: token for token equal to transformers' ``generate``.

Contexts are several times the sliding windows; rows of unlike lengths run side by side.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch

from start_agent.engines.testing import EngineContract
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from tests.support.tiny_architectures import FAMILIES, VOCABULARY, WINDOW, architecture

pytestmark = pytest.mark.slow

_ask = EngineContract().request


def _ids(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(3, VOCABULARY) for _ in range(count)]


def _reference(model: Any, ids: list[int], count: int) -> list[int]:
    """Greedy, by transformers itself, with its own cache."""
    given = torch.tensor([ids])
    everything = torch.ones_like(given)  # else generate hides tokens that look like padding
    written = model.generate(given, attention_mask=everything, max_new_tokens=count, do_sample=False, eos_token_id=None)
    return [int(token_id) for token_id in written[0, len(ids) :]]


def _logprobs(model: Any, ids: list[int], written: tuple[int, ...]) -> list[float]:
    """Of what was written behind some ids, by one forward pass."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*ids, *written]])).logits[0, len(ids) - 1 : -1]
    logprobs = logits.double().log_softmax(dim=-1)
    return [float(row[token_id]) for row, token_id in zip(logprobs, written, strict=True)]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return architecture(tmp_path_factory.mktemp("model"), request.param)


@pytest_asyncio.fixture
async def engine(folder: Path) -> AsyncIterator[TransformersEngine]:
    async with TransformersEngine(str(folder), TransformersOptions(device="cpu")) as engine:
        yield engine


async def test_what_it_says_is_what_generate_says(engine: TransformersEngine, folder: Path) -> None:
    """Rows of unlike lengths side by side, which join at different times, with insertions, beyond the window."""
    from transformers import AutoModelForCausalLM

    implementation = engine._batch.passes.model.config.get_text_config()._attn_implementation
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", attn_implementation=implementation).eval()
    chance = random.Random(7)
    rows = [
        (_ids(chance, length), _ids(chance, insertion)) for length, insertion in ((3, 2), (30, 40), (70, 1), (9, 9))
    ]

    async def one(number: int) -> None:
        ids, insertion = list(rows[number][0]), rows[number][1]
        for turn in range(3):
            request = _ask(engine, ids, 11 + 5 * number, trace_id=f"{number}", num_logprobs=0)
            result = await engine.generate(request)
            assert list(result.token_ids) == _reference(model, ids, 11 + 5 * number), f"row {number}, turn {turn}"
            assert result.logprobs is not None
            assert [one.logprob for one in result.logprobs] == pytest.approx(
                _logprobs(model, ids, result.token_ids), abs=1e-4
            )
            kept = result.token_ids[: len(result.token_ids) - turn]  # what is dropped leaves no trace
            ids += [*kept, *insertion]
        assert len(ids) > (2 if number else 1) * WINDOW

    await asyncio.gather(*map(one, range(len(rows))))


async def test_bfloat16_picks_among_the_likeliest(folder: Path) -> None:
    """Rounding depends on the rest of the batch, and may select other experts: most tokens are near the likeliest."""
    from transformers import AutoModelForCausalLM

    chance = random.Random(3)
    prompts = [_ids(chance, length) for length in (5, 60, 31)]
    async with TransformersEngine(str(folder), TransformersOptions(device="cpu", dtype="bfloat16")) as engine:
        turns = await asyncio.gather(*(engine.generate(_ask(engine, ids, 60)) for ids in prompts))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", attn_implementation="eager").eval()
    for ids, turn in zip(prompts, turns, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([[*ids, *turn.token_ids]])).logits[0, len(ids) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(turn.token_ids)[:, None])[:, 0]
        missed = (logits.max(dim=1).values - chosen) / logits.std(dim=1)
        assert missed.quantile(0.9) < 0.5
