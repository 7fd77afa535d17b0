"""Adds command-line flags for the fields of pydantic models."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from start_agent.fields import flag_of, is_pairs, old_names_of, plain_type, renaming

_COMMA = re.compile(r"(?<!\\),")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the flag for a configuration file."""
    parser.add_argument("--config", type=Path, metavar="PATH", help="YAML file of options, with the names of the flags")


def add_options(
    parser: argparse.ArgumentParser, model: type[BaseModel], title: str, *, known: Collection[str] = ()
) -> None:
    """Add a flag for each field of the model, except those already ``known``; the help is the field's description.

    A list is a flag with several words (one, if the command has positional arguments), words separated by commas, or
    the flag several times; ``\\,`` is a comma within a word. Former names of an option still work, with a warning.
    """
    group = parser.add_argument_group(title)
    several_words = not getattr(parser, "has_positionals", False)
    for name, field in model.model_fields.items():
        if name in known:
            continue
        flag = flag_of(name)
        settings = _settings(field, several_words=several_words)
        group.add_argument(flag, default=argparse.SUPPRESS, help=_help(field), **settings)
        for old in old_names_of(field):
            add_old_name(parser, flag_of(old), flag, **settings)


def add_old_name(
    parser: argparse.ArgumentParser, old: str, flag: str, *, action: Any = "store", **settings: Any
) -> None:
    """Add the old name of a renamed or replaced flag: it works with a warning on stderr, and is hidden from the help.

    Args:
        parser: the parser of a command.
        old: the old flag.
        flag: the flag to use instead.
        action: the action of the new flag; likewise the other settings.
    """
    base: Any = {"store": _Store}.get(action, action)

    class _Old(base):  # type: ignore[misc]
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            print(f"start-agent: {renaming(str(option_string), flag)}", file=sys.stderr)
            super().__call__(parser, namespace, values, option_string)

    settings.setdefault("dest", flag.removeprefix("--").replace("-", "_"))
    parser.add_argument(old, action=_Old, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **settings)


class _Store(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values)


class _Several(argparse.Action):
    """A list of the words from all occurrences of the flag. Empty words are dropped, so the list may be empty."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        words: Sequence[str] = [values] if isinstance(values, str) else values
        parts = [part.replace("\\,", ",") for word in words for part in _COMMA.split(word) if part]
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, []), *parts])


def _settings(field: FieldInfo, *, several_words: bool) -> dict[str, Any]:
    """The argparse settings of an option. Pydantic checks the value."""
    kind = plain_type(field.annotation)
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if is_pairs(field):
        return {"action": "append", "metavar": "KEY=VALUE"}
    if get_origin(kind) is tuple:
        one = get_args(kind)[0]
        return {"action": _Several, "metavar": _metavar(one), "nargs": "+" if several_words else None}
    choices = _choices(kind)
    if choices and kind is not field.annotation and field.default is not None:
        choices = (*choices, "none")
    return {"metavar": _metavar(kind), "choices": choices or None}


def _choices(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    if hasattr(kind, "__members__"):
        return tuple(str(member.value) for member in kind)
    return ()


def _metavar(kind: Any) -> str:
    if choices := _choices(kind):
        return "{" + ",".join(choices) + "}"
    if get_origin(kind) is dict:
        return "JSON"
    return {int: "N", float: "X", Path: "PATH", date: "DATE"}.get(kind, "TEXT")


def _help(field: FieldInfo) -> str:
    several = get_origin(plain_type(field.annotation)) is tuple
    more = "; several: a,b" if several else "; may be given several times" if is_pairs(field) else ""
    return (field.description or "").replace("%", "%%") + _default_text(field) + more


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    default = field.default
    if default is None or default in ("", (), {}):
        return ""
    if isinstance(default, tuple):
        default = ",".join(str(getattr(one, "value", one)) for one in default)
    return f" (default: {getattr(default, 'value', default)})"
