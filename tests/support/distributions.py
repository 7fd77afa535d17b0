"""Temporary packages with entry points."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from start_agent.plugins import NoOptions


class Loud(BaseModel):
    """Options of a thing."""

    loudness: int = Field(3, ge=1)


@dataclass(frozen=True)
class Thing:
    """An entry that does nothing."""

    name: str
    options: type[BaseModel] = NoOptions


def install(
    folder: Path,
    patch: pytest.MonkeyPatch,
    *,
    name: str,
    modules: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
) -> None:
    """Put a package on the path of this process, as pip would leave it.

    Args:
        folder: where; made where it does not exist.
        patch: takes it off again.
        name: of the package.
        modules: their sources by name.
        entry_points: by group, names and what is behind them.
    """
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines: list[str] = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{entry} = {place}" for entry, place in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
        patch.setitem(sys.modules, module, None)  # so that it is forgotten afterwards
        del sys.modules[module]
    patch.syspath_prepend(folder)
