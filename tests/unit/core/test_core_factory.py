"""Engines by name: each takes its own options and no other engine's."""

from __future__ import annotations

import pytest

from start_agent.engines import registry
from start_agent.engines.http import HTTPEngine
from start_agent.engines.http.client import address
from start_agent.engines.transformers import TransformersEngine
from start_agent.engines.vllm import VLLMEngine
from start_agent.errors import ConfigError


def test_each_name_makes_its_engine() -> None:
    kinds = {"transformers": TransformersEngine, "vllm": VLLMEngine, "http": HTTPEngine}
    assert {name: type(registry.create(name, "m")) for name in registry.ENGINES.known()} == kinds


def test_options_reach_the_engine_later_layers_first() -> None:
    engine = registry.create("vllm", "m", {"max_num_seqs": 3, "rounds": 2}, {"max_num_seqs": 4})
    assert isinstance(engine, VLLMEngine)
    assert engine.options.max_num_seqs == 4


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_address_may_end_in_v1(url: str) -> None:
    engine = registry.create("http", "m", {"base_url": url})
    assert isinstance(engine, HTTPEngine)
    assert address(engine.base_url) == "http://h:1"


def test_another_engines_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--device is an option of --engine transformers, not of vllm"):
        registry.create("vllm", "m", {"device": "cpu"})
    with pytest.raises(ConfigError, match="no engine 'tgi'"):
        registry.create("tgi", "m")
