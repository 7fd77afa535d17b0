"""Common parts of all benchmarks: options, and the report as tables followed by one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.table import Table

from sandbox import SandboxError
from start_agent.errors import StartAgentError

Target = tuple[Literal["<=", ">="], float]
"""The comparison and the bound that a figure should satisfy."""

_PACKAGES = ("start-agent", "torch", "transformers", "tokenizers", "ipykernel")
_PIPED_WIDTH = 160  # columns without a terminal, wide enough that tables are not cut


@dataclass(slots=True)
class Report:
    """The results of a benchmark.

    Attributes:
        benchmark: its name.
        figures: finite numbers by name; rates are fractions.
        targets: the targets of some of the figures.
        settings: settings for reproducing the run, and the machine.
        tables: tables to print besides the targets.
    """

    benchmark: str
    figures: dict[str, float]
    targets: dict[str, Target]
    settings: dict[str, Any]
    tables: list[Table] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        """The figures that miss their targets, including those that were not measured."""
        return [name for name, target in self.targets.items() if not met(self.figures.get(name), target)]

    def line(self) -> str:
        """The report as one line of JSON. Raises ``ValueError`` for a figure that is not finite."""
        content = {
            "benchmark": self.benchmark,
            "figures": self.figures,
            "targets": self.targets,
            "missed": self.missed,
            "settings": self.settings,
        }
        return json.dumps(content, allow_nan=False)

    def print(self, file: TextIO | None = None) -> None:
        """Print the tables, then the JSON line."""
        file = file or sys.stdout
        console = Console(file=file, width=None if file.isatty() else _PIPED_WIDTH, highlight=False)
        for table in [*self.tables, *([self._verdicts()] if self.targets else [])]:
            console.print(table)
            console.print()
        print(self.line(), file=file, flush=True)

    def _verdicts(self) -> Table:
        table = Table("figure", "measured", "target", "", title=f"{self.benchmark}: targets", title_justify="left")
        for name, (side, bound) in self.targets.items():
            figure = self.figures.get(name)
            verdict = "[red]missed[/red]" if name in self.missed else "[green]met[/green]"
            table.add_row(name, "not measured" if figure is None else f"{figure:.3f}", f"{side} {bound:g}", verdict)
        return table


def met(figure: float | None, target: Target) -> bool:
    """Whether a figure meets its target."""
    if figure is None or math.isnan(figure):
        return False
    side, bound = target
    return figure <= bound if side == "<=" else figure >= bound


def positive(text: str) -> int:
    """Parse a positive integer. Raises ValueError, which argparse reports."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def new_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the common options of all benchmarks."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a small run of about a minute, as a smoke test")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of the engine (default: its own)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    return parser


def common_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings included in all reports. Call after the first turn, in which the engine sets torch's threads."""
    import torch

    return {
        "quick": arguments.quick,
        "seed": arguments.seed,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    }


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], Coroutine[None, None, Report]],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, measure and report. Returns the exit code.

    It is 1 if the run failed, or with ``--strict`` if a target was missed; 130 after Ctrl-C.
    """
    arguments = parser.parse_args(argv)
    try:
        report = asyncio.run(measure(arguments))
    except (StartAgentError, SandboxError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report.print()
    return 1 if arguments.strict and report.missed else 0


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def rounded(figures: Mapping[str, float], digits: int = 5) -> dict[str, float]:
    """The figures rounded to this many significant digits."""
    return {name: float(f"{figure:.{digits}g}") for name, figure in figures.items()}
