"""Arguments passed to vLLM and to transformers: known ones are used, others are refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from start_agent.engines.transformers import TransformersEngine
from start_agent.engines.vllm import VLLMOptions
from start_agent.engines.vllm.options import check_engine_args, engine_args
from start_agent.errors import ConfigError
from start_agent.fields import deciding
from start_agent.models import resolve

POCKET = resolve("pocket").location


@dataclass
class Arguments:
    """As ``AsyncEngineArgs``: a dataclass of all that vLLM takes."""

    model: str = ""
    max_model_len: int = 0
    quantization: str | None = None
    scheduling_policy: str = ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quantisation", "'quantization'"),
        ("max_model_len", "--context-length"),
        ("scheduling_policy", "depends"),
        ("model", "--model"),
    ],
)
def test_vllm_gets_no_argument_that_it_does_not_know_or_that_is_not_ours_to_change(name: str, said: str) -> None:
    options = VLLMOptions(engine_arg={name: "x"})
    with pytest.raises(ConfigError, match=rf"^--engine-arg {name}") as refused:
        check_engine_args(options, Arguments, engine_args("m", options, on_cpu=True))
    assert said in str(refused.value)


def test_vllm_gets_what_it_knows() -> None:
    options = VLLMOptions(engine_arg={"quantization": "fp8"})
    check_engine_args(options, Arguments, engine_args("m", options, on_cpu=True))
    assert deciding(options)["engine_arg"] == {"quantization": "fp8"}


async def loaded(**options: Any) -> Any:
    async with TransformersEngine(POCKET, {"device": "cpu", "engine_arg": options}) as engine:
        return engine._batch.passes.model.config


async def test_transformers_gets_arguments_and_values_of_the_configuration() -> None:
    config = await loaded(local_files_only=True, max_position_embeddings=512)
    assert config.max_position_embeddings == 512


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trust_remotecode", "'trust_remote_code'"),
        ("max_position_embedding", "'max_position_embeddings'"),
        ("dtype", "--dtype"),
        ("attn_implementation", "sdpa"),
    ],
)
async def test_transformers_gets_no_other(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--engine-arg {name}") as refused:
        await loaded(**{name: "x"})
    assert said in str(refused.value)


async def test_a_value_that_the_model_cannot_be_loaded_with_is_the_users_fault(tmp_path: Path) -> None:
    from start_agent.errors import InputError

    with pytest.raises(InputError):
        await loaded(num_attention_heads=7)
