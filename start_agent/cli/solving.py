"""What the commands that solve share: their options as flags, and how a coroutine is run to its end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager

from pydantic import BaseModel

from start_agent import fields
from start_agent.build import GROUPS, SolverConfig, open_solver
from start_agent.cli import flags
from start_agent.cli.exit_codes import ExitCode
from start_agent.decoding.solver import Solver
from start_agent.engines import registry
from start_agent.models import EMBEDDED


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of everything that solves."""
    flags.add_config(parser)
    for title, model in GROUPS.items():
        flags.add_options(parser, model, title)
    known: set[str] = set()
    for name, model in registry.option_models().items():
        flags.add_options(parser, model, _title(name, model, known), known=known)
        known |= set(model.model_fields)


def solver_config(arguments: argparse.Namespace) -> SolverConfig:
    """The options of a solver: flags over the configuration file. Raises ConfigError."""
    file, given = fields.read_yaml(arguments.config), vars(arguments)
    fields.refuse_unknown(file, SolverConfig.models(file, given), arguments.config)
    return SolverConfig.from_layers(file, given)


@asynccontextmanager
async def opened(config: SolverConfig) -> AsyncGenerator[Solver, None]:
    """A solver for one question at a time; what the user should know goes to stderr."""
    hide_progress_bars(config)
    async with open_solver(config, on_notice=notice) as solver:
        yield solver


def notice(line: str) -> None:
    """Tell the user, on stderr."""
    print(f"start-agent: {line}", file=sys.stderr)


def hide_progress_bars(config: SolverConfig) -> None:
    """Those of transformers: of use where a person waits for a large model, noise elsewhere."""
    if config.solve.model not in EMBEDDED and sys.stderr.isatty():
        return
    os.environ.setdefault("TQDM_DISABLE", "1")  # read by tqdm when it is imported: GGUF's bar asks nobody else
    hide_transformers_bars()


def hide_transformers_bars() -> None:
    """Those that transformers draws as it loads a model."""
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
        return ExitCode.TERMINATED


def _title(engine: str, model: type[BaseModel], known: set[str]) -> str:
    """The head of an engine's options: those that it shares with the engines above, with its own defaults."""
    shared = [
        fields.flag_of(name) + (f" ({field.default})" if field.default is not None else "")
        for name, field in model.model_fields.items()
        if name in known
    ]
    return f"--engine {engine}" + (f", besides {', '.join(shared)}" if shared else "")
