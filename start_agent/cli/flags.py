"""Flags: one for each field of a pydantic model, described as the field is."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from start_agent.fields import plain_type


def add_options(
    parser: argparse.ArgumentParser, model: type[BaseModel], title: str, *, known: Collection[str] = ()
) -> None:
    """A flag for each field of the model, described as the field is; not for those that are ``known`` already."""
    group = parser.add_argument_group(title)
    for name, field in model.model_fields.items():
        if name in known:
            continue
        flag = "--" + name.replace("_", "-")
        help_text = (field.description or "").replace("%", "%%") + _default_text(field)
        kind = plain_type(field.annotation)
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_text)
            continue
        several = get_origin(kind) is tuple
        action = "append" if several else "store"
        more = "; may be given several times" if several else ""
        group.add_argument(
            flag, action=action, default=argparse.SUPPRESS, help=help_text + more, metavar=_metavar(kind)
        )


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        return "WORD"
    if hasattr(kind, "__members__"):
        return "{" + ",".join(str(member.value) for member in kind) + "}"
    if get_origin(kind) is dict:
        return "JSON"
    return {int: "N", float: "X", Path: "PATH", date: "DATE"}.get(kind, "TEXT")


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    default = field.default
    if default is None or default in ("", (), {}):
        return ""
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    return f" (default: {getattr(default, 'value', default)})"
