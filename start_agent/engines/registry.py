"""The engines by name: the one table of what ``--engine`` chooses from, and how others add to it.

A package adds an engine by an entry point of the group ``start_agent.engines`` whose value is an ``EngineEntry``::

    [project.entry-points."start_agent.engines"]
    mine = "my_package.engine:ENTRY"

Without an installed package, ``--engine my_package.engine:ENTRY`` names one as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from start_agent.engines.base import Engine
from start_agent.engines.http import HTTPEngine, HTTPOptions
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.errors import ConfigError
from start_agent.fields import build, did_you_mean, flag_of, option_names
from start_agent.plugins import find_plugin, plugins

GROUP = "start_agent.engines"

DEFAULT = "transformers"


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """An engine as the registry knows it.

    Attributes:
        name: for ``--engine``.
        options: the model of its options. An option that several engines have means the same in all of them.
        make: model, options → the engine, not yet open.
        packages: package → the extra of start-agent that installs it; a plug-in's own packages have no extra.
        gpus: options → how many GPUs one engine takes, on a machine that has some.
        local: whether it loads models from folders of this machine, such as one that was just trained.
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


@cache
def known_engines() -> dict[str, EngineEntry]:
    """The engines that ship with the package, and those of installed plug-ins; by name.

    Raises:
        ConfigError: a plug-in cannot be imported, or is no ``EngineEntry``.
    """
    return {entry.name: entry for entry in (*BUILT_IN, *plugins(GROUP, EngineEntry))}


def find_engine(name: str) -> EngineEntry:
    """The engine of this name, or at ``module:object``. Raises ``ConfigError``."""
    if ":" in name:
        return find_plugin(name, EngineEntry)
    known = known_engines()
    if name not in known:
        hint = did_you_mean(name, known) or f"there are {', '.join(known)}, or module:object"
        raise ConfigError(f"--engine: no engine {name!r}: {hint}")
    return known[name]


class EngineChoice(BaseModel):
    """Which engine it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str = Field(DEFAULT, description="what runs the model: transformers, vllm, http, or a plug-in's")


def create(engine: str, model: str, *layers: Mapping[str, Any]) -> Engine:
    """An engine, not yet open; layers of options as for ``fields.build``.

    Raises:
        ConfigError: there is no such engine, an option has a wrong value, or it is one that only other engines have.
    """
    entry = find_engine(engine)
    refuse_foreign(entry, *layers)
    return entry.make(model, build(entry.options, *layers))


def refuse_foreign(entry: EngineEntry, *layers: Mapping[str, Any]) -> None:
    """Raise ConfigError where an option is given that only other engines have."""
    own, engines = option_names(entry.options), known_engines()
    for name in sorted({name for layer in layers for name in layer} - own):
        owners = [other.name for other in engines.values() if name in option_names(other.options)]
        if owners:
            raise ConfigError(f"{flag_of(name)} is an option of --engine {' and '.join(owners)}, not of {entry.name}")


def option_models() -> dict[str, type[BaseModel]]:
    """The options of the engines, by the engine's name."""
    return {name: entry.options for name, entry in known_engines().items()}
