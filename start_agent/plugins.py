"""Plug-ins: objects of other packages, found by entry points or at ``module:object``.

A ``Registry`` is the table behind an option that chooses by name (``--engine``, ``--grader``, ``--strategy``, ...). It
has the built-in entries, and those that installed packages add by a group of entry points::

    [project.entry-points."start_agent.engines"]
    mine = "my_package.engine:ENTRY"

``--engine my_package.engine:ENTRY`` works without an installed package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from start_agent.errors import ConfigError, did_you_mean, first_line
from start_agent.fields import build, flag_of, option_names

T = TypeVar("T")


class Named(Protocol):
    """An entry with a name by which an option chooses it."""

    @property
    def name(self) -> str:
        """The name on the command line."""


class NamedWithOptions(Named, Protocol):
    """An entry that also has its own options, which become flags."""

    @property
    def options(self) -> type[BaseModel]:
        """The model of the options. An option that several entries share must mean the same in all of them."""


Entry = TypeVar("Entry", bound=Named)
OptionsEntry = TypeVar("OptionsEntry", bound=NamedWithOptions)


class NoOptions(BaseModel):
    """The options model of an entry without options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A chosen entry and its options, as data that can be pickled.

    Attributes:
        name: the name as given: a name, or ``module:object``.
        options: an instance of the entry's options model.
    """

    name: str
    options: BaseModel = NoOptions()  # noqa: RUF009 - frozen


class Registry(Generic[Entry]):
    """The entries of one kind, by name.

    Args:
        option: the option that chooses an entry, for messages, such as ``engine``.
        group: the entry point group.
        kind: the type of an entry.
        built_in: returns the built-in entries; called on first use.
        listed: formats the known names for the message that there is no such entry.
    """

    def __init__(
        self,
        option: str,
        group: str,
        kind: type[Entry],
        built_in: Callable[[], Iterable[Entry]],
        listed: Callable[[Iterable[str]], str] = ", ".join,
    ) -> None:
        self.option, self.group, self.kind = option, group, kind
        self._built_in, self._listed = built_in, listed
        self._known: dict[str, Entry] | None = None

    def known(self) -> dict[str, Entry]:
        """The built-in entries and those of installed packages, by name.

        Raises:
            ConfigError: a plug-in cannot be imported, has the wrong type, or a name that is already taken.
        """
        if self._known is None:
            found = {entry.name: entry for entry in self._built_in()}
            for source, entry in plugins(self.group, self.kind):
                if entry.name in found:
                    raise ConfigError(f"{source}, is named {entry.name!r}, which is taken: it needs another name")
                found[entry.name] = entry
            self._known = found
        return self._known

    def find(self, name: str) -> Entry:
        """The entry with this name, or at ``module:object``. Raises ConfigError."""
        if ":" in name:
            return find_plugin(name, self.kind)
        known = self.known()
        if name not in known:
            hint = did_you_mean(name, known) or f"known are {self._listed(known)}; or module:object"
            raise ConfigError(f"{flag_of(self.option)}: no {self.option} {name!r}: {hint}")
        return known[name]


class OptionsRegistry(Registry[OptionsEntry]):
    """A registry of entries that have options."""

    def option_models(self) -> dict[str, type[BaseModel]]:
        """The options of all known entries, by the entry's name. Raises ConfigError."""
        return {name: entry.options for name, entry in self.known().items()}

    def refuse_foreign(self, entry: OptionsEntry, *layers: Mapping[str, Any]) -> None:
        """Raise ConfigError if an option is given that only other entries have."""
        own, known = option_names(entry.options), self.known()
        for name in sorted({name for layer in layers for name in layer} - own):
            owners = [other.name for other in known.values() if name in option_names(other.options)]
            if owners:
                chosen = f"{flag_of(self.option)} {' and '.join(owners)}"
                raise ConfigError(f"{flag_of(name)} is an option of {chosen}, not of {entry.name}")

    def choose(self, name: str, *layers: Mapping[str, Any]) -> Chosen:
        """Choose an entry by name, with its options built from layers as by ``fields.build``.

        Raises:
            ConfigError: there is no such entry, an option has an invalid value, or only other entries have it.
        """
        entry = self.find(name)
        self.refuse_foreign(entry, *layers)
        return Chosen(name, build(entry.options, *layers))


def plugins(group: str, kind: type[T]) -> list[tuple[str, T]]:
    """The objects of an entry point group, sorted by name; each as a pair of a description of its source and itself.

    Raises:
        ConfigError: one cannot be imported or has the wrong type; the message names its package.
    """
    found = []
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        source, value = load_entry(entry)
        if not isinstance(value, kind):
            raise ConfigError(f"{source}, is a {type(value).__name__}: expected {kind.__name__}")
        found.append((source, value))
    return found


def load_entry(entry: EntryPoint) -> tuple[str, Any]:
    """A description of an entry point, and its object. Raises ConfigError if it cannot be imported."""
    package = entry.dist.name if entry.dist else "?"
    source = f"the entry point {entry.name!r} of {entry.group}, of the package {package!r}"
    try:
        return source, entry.load()
    except Exception as error:  # third-party code may raise anything
        raise ConfigError(f"{source}, cannot be imported: {_described(error)}") from error


def find_plugin(place: str, kind: type[T]) -> T:
    """The object at ``module:object``.

    Raises:
        ConfigError: there is no such module or object, or it has the wrong type.
    """
    module, _, name = place.partition(":")
    try:
        value = import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except Exception as error:  # third-party code may raise anything
        raise ConfigError(f"cannot import {place!r}: {_described(error)}") from error
    if not isinstance(value, kind):
        raise ConfigError(f"{place!r} is a {type(value).__name__}: expected {kind.__name__}")
    return value


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
