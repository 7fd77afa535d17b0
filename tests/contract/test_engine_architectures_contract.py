"""The engine contract on the transformers engine, with the pocket reasoner in six architectures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from start_agent.engines.testing import EngineContract
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.pocket import weights_path
from tests.support.pocket_architectures import ARCHITECTURES, pocket_as

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pocket_as(request.param, tmp_path_factory.mktemp(request.param))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path) -> AsyncIterator[TransformersEngine]:
    async with TransformersEngine(str(folder), TransformersOptions(device="cpu", max_num_seqs=32)) as engine:
        yield engine


def test_it_is_another_model_with_the_same_logits(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    pocket = AutoModelForCausalLM.from_pretrained(weights_path(), dtype="float32")
    other = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    assert folder.name.startswith(other.config.model_type)
    assert type(other) is not type(pocket) or other.config.num_attention_heads != pocket.config.num_attention_heads
    ids = torch.randint(3, 1024, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(pocket(ids).logits, other(ids).logits, atol=1e-3)


@pytest.mark.asyncio(loop_scope="module")
class TestArchitectures(EngineContract):
    """The shared tests."""
