"""What the commands that solve share: their options, and an open solver made from them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hints import HintLibrary
from sandbox import Sandbox
from start_agent import fields
from start_agent.cli import flags
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines import registry
from start_agent.engines.base import Sampling, SamplingOptions
from start_agent.models import EMBEDDED, read_configs, resolve
from start_agent.tokens.templates import ChatOptions, read_template
from start_agent.tokens.thinking import read_families


class SolveOptions(ChatOptions):
    """Who is asked, and how the question is put."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "pocket", description="a model of the hub, a local folder, or the embedded 'pocket' or 'pocket-start'"
    )
    seed: int | None = Field(
        0, ge=0, description="decides the hints and the sampling; 'none' samples without seeds, which vLLM does faster"
    )
    system: str = Field("", description="system message")
    instruction: str | None = Field(
        None, description="sentence after the question; unset, it asks for a boxed answer (of 'pocket': nothing)"
    )
    hint_files: tuple[Path, ...] = Field((), description="hint file that extends or replaces the built-in library")
    unsafe_no_isolation: bool = Field(
        False, description="DANGEROUS: run the model's code as your own user, with nothing in between"
    )


_OPTIONS: dict[str, type[BaseModel]] = {
    "engine": registry.EngineChoice,
    "model": SolveOptions,
    "decoding": DecodingSettings,
    "sampling": SamplingOptions,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of everything that solves."""
    parser.add_argument("--config", type=Path, metavar="PATH", help="YAML file of options, named as the flags are")
    for title, model in _OPTIONS.items():
        flags.add_options(parser, model, title)
    known: set[str] = set()
    for name, model in registry.OPTIONS.items():
        flags.add_options(parser, model, _title(name, model, known), known=known)
        known |= set(model.model_fields)


def resolved(arguments: argparse.Namespace, more: Mapping[str, type[BaseModel]] | None = None) -> dict[str, BaseModel]:
    """All options with their values, by the titles of their groups; without those of engines that are not chosen.

    Args:
        arguments: parsed.
        more: the command's own options, which the configuration file may also hold.

    Raises:
        ConfigError: an unknown key in the configuration file, a value of the wrong type, or an option that only
            other engines have.
    """
    own = dict(more or {})
    given, file = vars(arguments), fields.read_yaml(arguments.config)
    known = [*_OPTIONS.values(), *registry.OPTIONS.values(), *own.values()]
    fields.refuse_unknown(file, known, arguments.config)
    engine = fields.build(registry.EngineChoice, file, given).engine
    registry.refuse_foreign(engine, file, given)
    models = _OPTIONS | {f"{engine} engine": registry.OPTIONS[engine]} | own
    return {title: fields.build(model, file, given) for title, model in models.items()}


def sampling_of(groups: Mapping[str, BaseModel]) -> Sampling:
    """The sampling that the options come to with their model. Raises ``ModelError``."""
    options = fields.of_type(SolveOptions, groups)
    revision = revision_of(groups)
    generation = read_configs(resolve(options.model, revision).location, revision).generation
    return fields.of_type(SamplingOptions, groups).resolved(generation)


def chat_options(options: SolveOptions) -> ChatOptions:
    """Those of the options that say how a question becomes a prompt."""
    return ChatOptions(**{name: getattr(options, name) for name in ChatOptions.model_fields})


def revision_of(groups: Mapping[str, BaseModel]) -> str | None:
    """The model's revision, which is an option of its engine."""
    revision: str | None = _engine_options(groups).revision
    return revision


def _engine_options(groups: Mapping[str, BaseModel]) -> Any:
    return fields.of_type(registry.OPTIONS[fields.of_type(registry.EngineChoice, groups).engine], groups)


def _title(engine: str, model: type[BaseModel], known: set[str]) -> str:
    """The head of an engine's options: those that it shares with the engines above, with its own defaults."""
    shared = [
        "--" + name.replace("_", "-") + (f" ({field.default})" if field.default is not None else "")
        for name, field in model.model_fields.items()
        if name in known
    ]
    return f"--engine {engine}" + (f", besides {', '.join(shared)}" if shared else "")


@asynccontextmanager
async def open_solver(
    arguments: argparse.Namespace, *, sessions: int = 1, more: Mapping[str, type[BaseModel]] | None = None
) -> AsyncGenerator[tuple[Solver, SolveOptions], None]:
    """A solver over an open engine and an open sandbox of this many sessions; ``arguments`` and ``more`` as above.

    Raises what ``resolved`` raises, and what opening the two raises.
    """
    groups = resolved(arguments, more)
    options, settings = fields.of_type(SolveOptions, groups), fields.of_type(DecodingSettings, groups)
    engine_options = _engine_options(groups)
    choice = resolve(options.model, revision_of(groups))
    hints = HintLibrary.load(*options.hint_files)
    if options.chat_template is not None:  # read before a model is loaded in vain
        read_template(options.chat_template)
    if options.think_markers is not None:
        read_families(options.think_markers)
    engine = registry.make(choice.location, engine_options)
    if options.model in EMBEDDED or not sys.stderr.isatty():
        _hide_progress_bars()
    async with AsyncExitStack() as stack:
        box = None
        if settings.tools:
            box = Sandbox(size=sessions, prestart=1, unsafe_no_isolation=options.unsafe_no_isolation)
            await stack.enter_async_context(box)
        await stack.enter_async_context(engine)
        instruction = choice.instruction if options.instruction is None else options.instruction
        solver = Solver(
            engine,
            box,
            settings=settings,
            sampling=fields.of_type(SamplingOptions, groups),
            hints=hints,
            instruction=instruction,
            system=options.system,
            chat=chat_options(options),
        )
        for line in solver.notices():
            print(f"start-agent: {line}", file=sys.stderr)
        yield solver, options


def _hide_progress_bars() -> None:
    """Those of transformers: of use where a person waits for a large model, noise elsewhere."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read by tqdm when it is imported: GGUF's bar asks nobody else
    with contextlib.suppress(ImportError):  # the engine will say what is missing
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()


def run_to_end(work: Coroutine[None, None, int]) -> int:
    """Run a command's coroutine. Ctrl-C and a termination signal cancel it, so that what it opened is closed."""

    async def cancellable() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        print("start-agent: terminated", file=sys.stderr)
        return 128 + signal.SIGTERM
