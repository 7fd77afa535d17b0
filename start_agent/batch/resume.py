"""Decides whether a run can be resumed in a directory, by comparing its stored configuration with the present one.

Options that affect records must be equal. Runtime options (``fields.Runtime``) may change, amounts (``fields.MayGrow``)
may grow, and files may have moved if their content is the same.
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
    """Permitted differences between a stored configuration and that of a later start.

    Attributes:
        runtime: names of options that do not affect records; older versions stored some of them.
        growing: names of numbers that may grow, by group; null is unlimited.
        defaults: defaults of options by group, for options that an older version did not have.
        renamed: old and new names of options, by group.
    """

    runtime: Collection[str] = frozenset()
    growing: Mapping[str, Collection[str]] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, groups: Mapping[str, type[BaseModel]]) -> Self:
        """The rules for a configuration with the options of these models, by their titles."""
        return cls(
            runtime=runtime_names(*groups.values()),
            growing={title: growing_names(model) for title, model in groups.items()},
            defaults={title: _defaults(model) for title, model in groups.items()},
            renamed={title: old_names(model) for title, model in groups.items()},
        )

    def differences(self, stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        """The differences that prevent resuming, one entry per option as in ``differences``; empty if none."""
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
                old[title] = self._migrated(title, group, new[title])
        return differences(old, new)

    def _migrated(self, title: str, old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        """A stored group with present names, without runtime options, with new defaults, and with grown numbers."""
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
    """The differences between two configurations, one entry per option: ``decoding.rounds: 1 there, 2 now``."""
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
    """The defaults of a model's options, JSON-able."""
    fields = {name: info.default for name, info in model.model_fields.items() if info.default is not PydanticUndefined}
    return model.model_construct(**fields).model_dump(mode="json", include=set(fields))


def _files(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The digests of the files and models in a configuration, by path."""
    files = config.get("files")
    return files if isinstance(files, Mapping) else {}


def _named_as(old: Any, new: Any, there: Mapping[str, str], here: Mapping[str, str]) -> Any:
    """A configuration with paths replaced by those of another configuration for files with the same content."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {name: _named_as(old.get(name), value, there, here) for name, value in new.items()}
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return [_named_as(one, other, there, here) for one, other in zip(old, new, strict=True)]
    if isinstance(old, str) and isinstance(new, str) and (content := _digests_at(old, there)):
        return old if content == _digests_at(new, here) else new
    return new


def _digests_at(path: str, digests: Mapping[str, str]) -> list[str]:
    """The digests of a file, or of the files in a folder."""
    plain = str(Path(path))  # without "./" and a trailing slash, like the paths in `digests`
    return sorted(digest for file, digest in digests.items() if file == plain or file.startswith(f"{plain}/"))
