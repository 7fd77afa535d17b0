"""Shared by the commands that use a solver: their flags, notices, and how a command's coroutine is run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from start_agent import fields
from start_agent.build import GROUPS, AnswerConfig, SolverConfig, open_solver
from start_agent.cli import flags
from start_agent.cli.exit_codes import ExitCode
from start_agent.decoding.solver import Solver
from start_agent.engines import registry
from start_agent.models import EMBEDDED
from start_agent.plugins import OptionsRegistry


def add_options(
    parser: argparse.ArgumentParser,
    groups: Mapping[str, type[BaseModel]] = MappingProxyType({}),
    *registries: OptionsRegistry[Any],
    leave_out: Collection[str] = (),
) -> None:
    """Add the options of a solver and further options of a command.

    Args:
        parser: the command's parser.
        groups: the command's own options, by title; they come first.
        registries: the registries that the command uses besides engines; each entry's options have their own title.
        leave_out: options to omit.
    """
    for title, model in groups.items():
        flags.add_options(parser, model, title)
    flags.add_config(parser)
    for title, model in GROUPS.items():
        flags.add_options(parser, model, title, known=leave_out)
    # A plug-in's option with the name of an existing flag shares that flag.
    known = {name for model in (*groups.values(), *GROUPS.values()) for name in model.model_fields}
    for entries in (registry.ENGINES, *registries):
        for name, model in (entries.option_models() | _placed(parser, entries)).items():
            if set(model.model_fields) - known:
                title = _title(f"{fields.flag_of(entries.option)} {name}", model, known)
                flags.add_options(parser, model, title, known=known)
                known |= set(model.model_fields)


def _placed(parser: argparse.ArgumentParser, entries: OptionsRegistry[Any]) -> dict[str, type[BaseModel]]:
    """The options of entries that the command line chooses by ``module:object``. Raises ConfigError."""
    flag, words = fields.flag_of(entries.option), getattr(parser, "words", ())
    chosen = [word.partition("=")[2] for word in words if word.startswith(f"{flag}=")]
    chosen += [word for option, word in pairwise(words) if option == flag]
    return {name: entries.find(name).options for name in chosen if ":" in name}


def solver_config(arguments: argparse.Namespace) -> SolverConfig:
    """The options of a solver; flags override the configuration file. Raises ConfigError."""
    file, given = fields.read_yaml(arguments.config), vars(arguments)
    fields.refuse_unknown(file, SolverConfig.models(file, given), arguments.config)
    return SolverConfig.from_layers(file, given)


def answer_config(arguments: argparse.Namespace) -> AnswerConfig:
    """The options of a solver and its strategy; flags override the configuration file. Raises ConfigError."""
    file, given = fields.read_yaml(arguments.config), vars(arguments)
    fields.refuse_unknown(file, AnswerConfig.models(file, given), arguments.config)
    return AnswerConfig.from_layers(file, given)


@asynccontextmanager
async def opened(config: SolverConfig, *, quiet: bool = False) -> AsyncGenerator[Solver, None]:
    """An open solver for one question at a time; notices are printed on stderr, progress bars only if not ``quiet``."""
    hide_progress_bars(config, always=quiet)
    async with open_solver(config, on_notice=notice) as solver:
        yield solver


def notice(line: str) -> None:
    """Print a notice for the user on stderr."""
    print(f"start-agent: {line}", file=sys.stderr)


def hide_progress_bars(config: SolverConfig, *, always: bool = False) -> None:
    """Hide the progress bars of transformers, unless a user at a terminal waits for a large model."""
    if config.solve.model not in EMBEDDED and sys.stderr.isatty() and not always:
        return
    os.environ.setdefault("TQDM_DISABLE", "1")  # read by tqdm when it is imported; for the bar of GGUF
    hide_transformers_bars()


def hide_transformers_bars() -> None:
    """Hide the progress bars that transformers shows while it loads a model."""
    with contextlib.suppress(ImportError):  # the engine reports what is missing
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()


def run_to_end(
    work: Coroutine[None, None, int], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> int:
    """Run a command's coroutine. Ctrl-C and SIGTERM cancel it, so that everything it opened is closed."""

    async def cancellable() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(cancellable())
    except asyncio.CancelledError:
        print("start-agent: terminated", file=sys.stderr)
        return ExitCode.TERMINATED


def _title(chosen: str, model: type[BaseModel], known: Collection[str]) -> str:
    """The title of an entry's options, which also lists the options it shares with others, with its own defaults."""
    shared = [
        fields.flag_of(name) + (f" ({field.default})" if field.default is not None else "")
        for name, field in model.model_fields.items()
        if name in known
    ]
    return chosen + (f", also {', '.join(shared)}" if shared else "")
