"""``start-agent step``: runs one step of a recipe in its own process; used by recipes, not by people."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from start_agent.errors import ConfigError
from start_agent.recipes.steps import find_step

_SHOWN = {("batch",): "batch", ("select",): "select", ("sft",): "sft", ("star", "addition"): "star"}
"""The step's command → the module in ``start_agent.cli`` whose ``run_config`` runs it and shows its progress."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "step", description="Run one step of a recipe with options from a JSON file, as the recipe itself does."
    )
    parser.add_argument("step", help="batch, select, sft, or module:object")
    parser.add_argument("options", type=Path, help="JSON file of the step's options, with the names of the flags")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the step; returns the exit code of its command."""
    try:
        options = json.loads(arguments.options.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the options {arguments.options}: {error}") from error
    step = find_step(arguments.step)
    config = step.config(options)
    if step.command in _SHOWN:
        return int(import_module(f"start_agent.cli.{_SHOWN[step.command]}").run_config(config))
    step.run(config)
    return 0
