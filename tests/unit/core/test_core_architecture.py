"""Reading a model's configuration before its weights: kinds of layers, the longest context, refusals."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from start_agent.engines.transformers.architecture import FULL, SLIDING, examine
from start_agent.errors import ConfigError, ModelError


@pytest.mark.parametrize(
    "kind", ["mamba", "jamba", "qwen3_next", "qwen3_5", "falcon_h1", "bamba", "lfm2", "llama4", "t5", "rwkv", "blt"]
)
def test_what_cannot_be_run_is_refused_in_one_line(kind: str) -> None:
    config = AutoConfig.for_model(kind, **({"layer_types": ["conv", FULL] * 16} if kind == "lfm2" else {}))
    with pytest.raises(ModelError) as caught:
        examine("some/model", config)
    assert kind in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mixed_layers_are_read() -> None:
    found = examine("gpt-oss", AutoConfig.for_model("gpt_oss"))
    assert set(found.kinds) == {FULL, SLIDING}
    assert found.window == 128
    assert examine("llama", AutoConfig.for_model("llama")).window is None


def test_yarn_allows_a_longer_context_and_nothing_else_does() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6}
    stretched = examine("qwen3", AutoConfig.for_model("qwen3", max_position_embeddings=40960, rope_parameters=yarn))
    assert stretched.context_length(None) == 40960
    assert stretched.context_length(131072) == 131072
    plain = examine("qwen3", AutoConfig.for_model("qwen3", max_position_embeddings=40960))
    assert plain.context_length(4096) == 4096
    for architecture, wanted in ((stretched, 131073), (plain, 40961)):
        with pytest.raises(ConfigError, match="--context-length"):
            architecture.context_length(wanted)


def test_a_configuration_without_a_limit_asks_for_one() -> None:
    architecture = examine("bloom", AutoConfig.for_model("bloom"))
    assert architecture.context_length(500) == 500
    with pytest.raises(ConfigError, match="--context-length"):
        architecture.context_length(None)
