"""Options: defined once as fields of pydantic models, they make the command line, the YAML file and the Python API.

The command line overrides the YAML file, which overrides the defaults. A key that nobody knows is an error.
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from start_agent.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


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
        kind = _plain_type(field.annotation)
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_text)
            continue
        several = get_origin(kind) is tuple
        action = "append" if several else "store"
        more = "; may be given several times" if several else ""
        group.add_argument(
            flag, action=action, default=argparse.SUPPRESS, help=help_text + more, metavar=_metavar(kind)
        )


def read_yaml(path: Path | None) -> dict[str, Any]:
    """The keys of a configuration file; none where there is no file. Raises ``ConfigError``."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of options, found a {type(content).__name__}")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def refuse_unknown(keys: Mapping[str, Any], models: Sequence[type[BaseModel]], source: object) -> None:
    """Raise ``ConfigError`` for a key that no model has."""
    known = {name for model in models for name in model.model_fields}
    unknown = sorted(set(keys) - known)
    if unknown:
        raise ConfigError(f"{source}: unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")


def build(model: type[Model], *layers: Mapping[str, Any]) -> Model:
    """A model from layers of values, later ones first in rank; keys of other models are passed over.

    Raises:
        ConfigError: a value is of the wrong type or out of range; one line that names the option.
    """
    values = {name: layer[name] for layer in layers for name in model.model_fields if name in layer}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of several options together: the message names them
            raise ConfigError(message) from error
        name = str(first["loc"][0]).replace("_", "-")
        given = "" if first["type"] == "missing" else f" (given: {first['input']!r})"
        raise ConfigError(f"--{name}: {message[:1].lower()}{message[1:]}{given}") from error


def of_type(kind: type[Model], groups: Mapping[str, BaseModel]) -> Model:
    """Of groups of options by their titles, the one of this type."""
    return next(group for group in groups.values() if isinstance(group, kind))


def flags(options: BaseModel, *, leave_out: Collection[str] = ()) -> list[str]:
    """The command line that gives these options: flags for those that are not at their defaults.

    Raises:
        ConfigError: no command line gives them: a list is empty that is not so by default.
    """
    words: list[str] = []
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if name in leave_out or (not field.is_required() and value == field.default):
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag.removeprefix("--"))
        elif isinstance(value, tuple):
            if not value and not field.is_required():
                raise ConfigError(f"{flag}: an empty list cannot be handed on to a command")
            for one in value:
                words += words_of(flag, one)
        elif value is not None:
            words += words_of(flag, value)
    return words


def words_of(flag: str, value: object) -> list[str]:
    """A flag with its value, in one word where the value would be taken for a flag."""
    text = str(getattr(value, "value", value))
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def _plain_type(annotation: Any) -> Any:
    """The type beside None in an optional annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(option for option in get_args(annotation) if option is not type(None))
    return annotation


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        return "WORD"
    if hasattr(kind, "__members__"):
        return "{" + ",".join(str(member.value) for member in kind) + "}"
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    default = field.default
    if default is None or default in ("", ()):
        return ""
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    return f" (default: {getattr(default, 'value', default)})"
