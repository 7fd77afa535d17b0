"""Hint files by name, which ``--hint-files`` takes besides paths; and hints translated to a dialect.

A package adds a hint file by an entry point of the group ``start_agent.hints`` whose value is the file's path: a
string, a ``Path``, or a package resource (``importlib.resources.files("my_package") / "hints.yaml"``)::

    [project.entry-points."start_agent.hints"]
    mine = "my_package:HINTS"

then ``--hint-files mine``. ``--hint-files my_package:HINTS`` works without an installed package.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

from hints import OPENING_FENCE, Hint
from start_agent.errors import ConfigError, did_you_mean
from start_agent.plugins import find_plugin, load_entry
from start_agent.tokens.dialects import Dialect

GROUP = "start_agent.hints"


def hint_paths(given: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The paths of the hint files that ``--hint-files`` names. Raises ConfigError."""
    return [_hint_path(os.fspath(one)) for one in given]


def _hint_path(given: str) -> Path:
    """An existing file wins over a plug-in's name; anything else is taken as a path, which loading will not find."""
    path = Path(given)
    if path.exists():
        return path
    if ":" in given:
        return _path(find_plugin(given, object), f"{given!r}")
    named = {entry.name: entry for entry in entry_points(group=GROUP)}
    if given in named:
        source, value = load_entry(named[given])
        return _path(value, source)
    if path.suffix or len(path.parts) != 1:
        return path
    hint = did_you_mean(given, named) or f"known are {', '.join(sorted(named)) or 'none'}; or module:object, or a file"
    raise ConfigError(f"--hint-files: no hint file {given!r}: {hint}")


def in_dialect(hint: Hint, dialect: Dialect) -> Hint:
    """The hint with the library's opening fence replaced by the dialect's."""
    return replace(hint, text=hint.text.replace(OPENING_FENCE, dialect.opening))


def _path(value: object, source: str) -> Path:
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise ConfigError(f"{source} is a {type(value).__name__}: expected the path of a hint file")
