"""What other packages add: objects behind entry points, or at ``module:object``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TypeVar

from start_agent.errors import ConfigError

T = TypeVar("T")


def plugins(group: str, kind: type[T]) -> list[T]:
    """The objects of a group of entry points, in the order of their names.

    Raises:
        ConfigError: one cannot be imported, or is not of this kind; it names the package.
    """
    found = []
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        source = f"the entry point {entry.name!r} of {group}, of the package {entry.dist.name if entry.dist else '?'!r}"
        try:
            value = entry.load()
        except Exception as error:  # code of other packages: whatever it raises is theirs
            raise ConfigError(f"{source}, cannot be imported: {type(error).__name__}: {error}") from error
        if not isinstance(value, kind):
            raise ConfigError(f"{source}, is a {type(value).__name__}: expected {kind.__name__}")
        found.append(value)
    return found


def find_plugin(place: str, kind: type[T]) -> T:
    """The object at ``module:object``.

    Raises:
        ConfigError: there is no such module or object, or it is not of this kind.
    """
    module, _, name = place.partition(":")
    try:
        value = import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except Exception as error:  # code of other packages: whatever it raises is theirs
        raise ConfigError(f"cannot import {place!r}: {type(error).__name__}: {error}") from error
    if not isinstance(value, kind):
        raise ConfigError(f"{place!r} is a {type(value).__name__}: expected {kind.__name__}")
    return value
