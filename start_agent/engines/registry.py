"""The engines by name, with their options: what ``--engine`` chooses from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.engines.base import Engine
from start_agent.engines.http import HTTPEngine, HTTPOptions
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.errors import ConfigError

OPTIONS: dict[str, type[BaseModel]] = {
    "transformers": TransformersOptions,
    "vllm": VLLMOptions,
    "http": HTTPOptions,
}
"""The options of each engine. An option of several engines means the same in all of them."""


class EngineChoice(BaseModel):
    """Which engine it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["transformers", "vllm", "http"] = Field("transformers", description="what runs the model")


def create(engine: str, model: str, *layers: Mapping[str, Any]) -> Engine:
    """An engine, not yet open; layers of options as for ``config.build``.

    Raises:
        ConfigError: there is no such engine, an option has a wrong value, or it is one that only other engines have.
    """
    refuse_foreign(engine, *layers)
    return make(model, fields.build(OPTIONS[engine], *layers))


def make(model: str, options: BaseModel) -> Engine:
    """An engine, not yet open: the one whose options these are."""
    match options:
        case TransformersOptions():
            return TransformersEngine(model, options)
        case VLLMOptions():
            return VLLMEngine(model, options)
        case HTTPOptions():
            return HTTPEngine(options.base_url, model, options)
    raise TypeError(f"{type(options).__name__} are no engine's options")


def refuse_foreign(engine: str, *layers: Mapping[str, Any]) -> None:
    """Raise ConfigError where there is no such engine, or an option is given that only other engines have."""
    if engine not in OPTIONS:
        raise ConfigError(f"--engine: there is no {engine!r}; there are {', '.join(OPTIONS)}")
    own = OPTIONS[engine].model_fields
    for name in {name for layer in layers for name in layer} - set(own):
        owners = [other for other, options in OPTIONS.items() if name in options.model_fields]
        if owners:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} is an option of --engine {' and '.join(owners)}, not of {engine}")
