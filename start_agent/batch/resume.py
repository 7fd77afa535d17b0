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

from start_agent.fields import flag_of, growing_names, old_names, runtime_names

_CONTENTS = {
    "files": "content of {}",
    "records": "records of {}",
    "held_out": "problems of --held-out {}",
    "rows": "{} of --data",
    "eval_rows": "{} of --eval-data",
    "prompt": "prompt {}",
}
"""How to show the entries of groups that are not groups of options, but of what the options name."""

_FLAGS = {"base": "--model", "base_digest": "content of --model"}
"""How to show what a training stores under other names than those of its options."""


@dataclass(frozen=True, slots=True)
class ResumeRules:
    """Permitted differences between a stored configuration and that of a later start.

    Attributes:
        runtime: names of options that do not affect records; older versions stored some of them.
        growing: names of numbers that may grow, by group; null is unlimited.
        defaults: defaults of options by group, for options that an older version did not have.
        renamed: old and new names of options, by group.
        flags: as in ``differences``.
    """

    runtime: Collection[str] = frozenset()
    growing: Mapping[str, Collection[str]] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=lambda: _FLAGS)

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
        return differences(old, new, self.flags)

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


def differences(old: Mapping[str, Any], new: Mapping[str, Any], flags: Mapping[str, str] = _FLAGS) -> list[str]:
    """The differences between two configurations, one entry per option: ``--max-hints: 1 there, 2 now``.

    Args:
        old, new: JSON objects, with options at the top and in groups; the content of files and runs is in groups, too.
        flags: names to show in place of the flag of an entry's name, by ``name`` or ``group.name``.
    """
    found: list[str] = []
    for title in sorted({*old, *new}):
        one, other = old.get(title, _ABSENT), new.get(title, _ABSENT)
        if {type(one), type(other)} <= {dict, _Absent}:  # a group that only one side has is compared, too
            there, here = (dict(side) if isinstance(side, dict) else {} for side in (one, other))
            for name in sorted({*there, *here}):
                shown = flags.get(f"{title}.{name}") or _CONTENTS.get(title, "{flag}").format(name, flag=flag_of(name))
                found += _difference(shown, there.get(name, _ABSENT), here.get(name, _ABSENT))
        else:
            found += _difference(flags.get(title, flag_of(title)), one, other)
    return found


class _Absent:
    """Stands for a value that a configuration does not have, which is another one than null."""


_ABSENT = _Absent()


def _difference(shown: str, old: object, new: object) -> list[str]:
    """The difference between two values as a list of one entry; an empty list if they are equal."""
    if old == new:
        return []
    there, now = ("unset" if value is _ABSENT else json.dumps(value) for value in (old, new))
    return [f"{shown}: {there} there, {now} now"]


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
