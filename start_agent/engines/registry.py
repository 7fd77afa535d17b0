"""The registry of engines, for ``--engine``.

A package adds an engine by an entry point of the group ``start_agent.engines`` whose value is an ``EngineEntry``; see
``start_agent.plugins``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from start_agent.engines.base import Engine
from start_agent.engines.http import HTTPEngine, HTTPOptions
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.plugins import OptionsRegistry

DEFAULT = "transformers"


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """An engine as the registry knows it.

    Attributes:
        name: for ``--engine``.
        options: the model of its options. An option of several engines must mean the same in all of them.
        make: (model, options) → the engine, not yet open.
        packages: package → the extra of start-agent that installs it; a plug-in's own packages have no extra.
        gpus: options → the number of GPUs that one engine uses, on a machine with GPUs.
        local: whether it loads models from local folders, such as a model that was just trained.
    """

    name: str
    options: type[BaseModel]
    make: Callable[[str, Any], Engine]
    packages: Mapping[str, str]
    gpus: Callable[[Any], int] = lambda options: 0
    local: bool = False


BUILT_IN = (
    EngineEntry(
        "transformers",
        TransformersOptions,
        TransformersEngine,
        {"torch": "transformers", "transformers": "transformers"},
        gpus=lambda options: int(options.device != "cpu"),
        local=True,
    ),
    EngineEntry(
        "vllm",
        VLLMOptions,
        VLLMEngine,
        {"vllm": "vllm"},
        gpus=lambda options: options.tensor_parallel_size,
        local=True,
    ),
    EngineEntry(
        "http", HTTPOptions, lambda model, options: HTTPEngine(options.base_url, model, options), {"httpx": "http"}
    ),
)

ENGINES = OptionsRegistry("engine", "start_agent.engines", EngineEntry, lambda: BUILT_IN)
"""The engines that ``--engine`` can choose."""


class EngineChoice(BaseModel):
    """The choice of an engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str = Field(DEFAULT, description="the engine that runs the model: transformers, vllm, http, or a plug-in's")


def create(engine: str, model: str, *layers: Mapping[str, Any]) -> Engine:
    """Create an engine, not yet open, from layers of options as for ``fields.build``.

    Raises:
        ConfigError: there is no such engine, or an option has an invalid value or belongs to other engines only.
    """
    options = ENGINES.choose(engine, *layers).options
    return ENGINES.find(engine).make(model, options)
