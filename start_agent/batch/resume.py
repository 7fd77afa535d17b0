"""Whether a run may go on in a directory: what its stored configuration and the one of this start have in common.

What decides a record must be the same. How a run is carried out (``fields.Runtime``) may change, how much is done
(``fields.MayGrow``) may grow, and a file may lie elsewhere as long as its content is the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from start_agent.fields import growing_names, old_names, runtime_names


@dataclass(frozen=True, slots=True)
class ResumeRules:
    """What of a stored configuration may differ from the one of a later start.

    Attributes:
        runtime: names of options that decide nothing; older versions stored some of them.
        growing: by group, names of numbers that may grow; null is unlimited.
        defaults: by group, the defaults of options, for those that an older version did not have.
        renamed: by group, the names that options had, and have now.
    """

    runtime: Collection[str] = frozenset()
    growing: Mapping[str, Collection[str]] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, groups: Mapping[str, type[BaseModel]]) -> Self:
        """The rules for a configuration that has, by their titles, the options of these models."""
        return cls(
            runtime=runtime_names(*groups.values()),
            growing={title: growing_names(model) for title, model in groups.items()},
            defaults={title: _defaults(model) for title, model in groups.items()},
            renamed={title: old_names(model) for title, model in groups.items()},
        )

    def differences(self, stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        """What keeps a run from going on: an entry for each option, as ``differences`` gives it; empty if nothing."""
        old, new = dict(stored), dict(now)
        if sorted(_files(stored).values()) == sorted(_files(now).values()):
            new = _named_as(stored, now, _files(stored), _files(now))
            for config in (old, new):
                config.pop("files", None)
        for title, defaults in self.defaults.items():
            if defaults and title in new:
                old.setdefault(title, {})  # a group that an older version did not have
        for title, group in old.items():
            if isinstance(group, dict) and isinstance(new.get(title), dict):
                old[title] = self._brought_up(title, group, new[title])
        return differences(old, new)

    def _brought_up(self, title: str, old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        """A stored group by the present names, without what decides nothing, with the later defaults, and grown."""
        names = self.renamed.get(title, {})
        found = {names.get(name, name): value for name, value in old.items()}
        found = {name: value for name, value in found.items() if name not in self.runtime}
        defaults = self.defaults.get(title, {})
        found |= {name: defaults[name] for name in new if name not in found and name in defaults}
        for name in self.growing.get(title, ()):
            before, after = found.get(name), new.get(name)
            if name in found and (after is None or (before is not None and before <= after)):
                found[name] = after
        return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations, an entry an option: ``decoding.rounds: 1 there, 2 now``."""
    found: list[str] = []
    for name in sorted({*old, *new}):
        one, other = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{name}.")
        elif one != other or (name in old) != (name in new):
            there, now = (json.dumps(side[name]) if name in side else "unset" for side in (old, new))
            found.append(f"{prefix}{name}: {there} there, {now} now")
    return found


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a model's options, as JSON has them."""
    fields = {name: info.default for name, info in model.model_fields.items() if info.default is not PydanticUndefined}
    return model.model_construct(**fields).model_dump(mode="json", include=set(fields))


def _files(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The digests of the files and models that a configuration names, by their paths."""
    files = config.get("files")
    return files if isinstance(files, Mapping) else {}


def _named_as(old: Any, new: Any, there: Mapping[str, str], here: Mapping[str, str]) -> Any:
    """A configuration with the names that another one has for files of the same content."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {name: _named_as(old.get(name), value, there, here) for name, value in new.items()}
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return [_named_as(one, other, there, here) for one, other in zip(old, new, strict=True)]
    if isinstance(old, str) and isinstance(new, str) and (held := _held(old, there)):
        return old if held == _held(new, here) else new
    return new


def _held(path: str, digests: Mapping[str, str]) -> list[str]:
    """The digests of the file or of the files in the folder of a name."""
    whole = str(Path(path))  # as the names of files are, without "./" and a slash at the end
    return sorted(digest for file, digest in digests.items() if file == whole or file.startswith(f"{whole}/"))
