"""Options: fields of pydantic models, each defined once for the command line, YAML and the Python API.

The command line overrides the YAML file, which overrides the defaults. Unknown keys are errors.
"""

from __future__ import annotations

import json
import logging
import types
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo

from start_agent.errors import ConfigError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

logger = logging.getLogger(__name__)

_RUNTIME, _MAY_GROW = object(), object()

Runtime = Annotated[T, _RUNTIME]
"""The type of an option that affects how a run is carried out, not its results: it may change when resumed."""

MayGrow = Annotated[T, _MAY_GROW]
"""The type of an option for the amount of work: it may grow when resumed, and finished work is kept."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """Annotation of an option with its old name, which still works for one release, with a warning.

    Stored folders keep the names of the version that wrote them: ``stored`` and ``ResumeRules`` accept old names.
    """

    old: str


def _pairs(value: object) -> object:
    """Merge ``key=value`` words or JSON objects into one mapping; a value that is not JSON is taken as text."""
    if isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for word in (value,) if isinstance(value, str) else value if isinstance(value, list | tuple) else ():
        if str(word).lstrip().startswith("{"):
            found |= _json(word, {})
            continue
        key, sign, text = str(word).partition("=")
        if not key or not sign:
            raise ValueError(f"expected key=value, not {word!r}")
        found[key] = _json(text, text)
    return found or value


def _json(text: str, otherwise: T) -> Any | T:
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


_PAIRS = BeforeValidator(_pairs)

Pairs = Annotated[dict[str, Any], _PAIRS]
"""The type of an option whose settings are passed to a library: repeated ``key=value`` with JSON or text as the value;
in YAML and Python a mapping."""


def flag_of(name: str) -> str:
    """The flag of an option."""
    return "--" + name.replace("_", "-")


def is_pairs(field: FieldInfo) -> bool:
    """Whether an option is of the type ``Pairs``."""
    return any(mark is _PAIRS for mark in field.metadata)


def pairs_fault(option: str, given: Iterable[str], known: Collection[str], own: Mapping[str, str], what: str) -> str:
    """The error message for the keys of a ``Pairs`` option; empty if all are valid.

    Args:
        option: the option's name.
        given: the keys.
        known: keys that the library accepts.
        own: keys that have their own option or must not be set, with the message for each.
        what: the library's object that takes the keys.
    """
    flag = flag_of(option)
    for key in given:
        if key in own:
            return f"{flag} {key}: {own[key]}"
        if key not in known:
            return f"{flag} {key}: {what} has no such argument" + (
                f": {hint}" if (hint := did_you_mean(key, known)) else ""
            )
    return ""


def old_names_of(field: FieldInfo) -> list[str]:
    """The old names of an option."""
    return [mark.old for mark in field.metadata if isinstance(mark, Renamed)]


def old_names(*models: type[BaseModel]) -> dict[str, str]:
    """Old name → current name, for the renamed options of the models."""
    return {old: name for model in models for name, field in model.model_fields.items() for old in old_names_of(field)}


def option_names(*models: type[BaseModel]) -> set[str]:
    """The names of the models' options, including old names."""
    return {name for model in models for name in model.model_fields} | set(old_names(*models))


def with_new_names(model: type[BaseModel], values: Mapping[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """The values with old option names replaced by the current ones.

    Raises:
        ConfigError: an option is given under both names.
    """
    found = dict(values)
    for old, new in old_names(model).items():
        if old not in values or old in model.model_fields:
            continue
        if new in values:
            raise ConfigError(f"the option {old!r} is now {new!r}: give only the latter")
        found[new] = found.pop(old)
        if warn:
            _warn_renamed(old, new)
    return found


@cache
def _warn_renamed(old: str, new: str) -> None:
    logger.warning(renaming(old, new))


def renaming(old: str, new: str) -> str:
    """The warning for an old name."""
    return f"the option {old} is now {new}; the old name will be removed in the next release"


def stored(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Load options stored by this or an older version. Raises pydantic's ValidationError."""
    return model.model_validate(with_new_names(model, values, warn=False))


def runtime_names(*models: type[BaseModel]) -> frozenset[str]:
    """The options of the models that are ``Runtime``."""
    return _marked(_RUNTIME, models)


def growing_names(*models: type[BaseModel]) -> frozenset[str]:
    """The options of the models that are ``MayGrow``."""
    return _marked(_MAY_GROW, models)


def deciding(options: BaseModel) -> dict[str, Any]:
    """The options that affect results, as JSON: all that are not ``Runtime``."""
    return options.model_dump(mode="json", exclude=set(runtime_names(type(options))))


def _marked(mark: object, models: Sequence[type[BaseModel]]) -> frozenset[str]:
    return frozenset(
        name for model in models for name, field in model.model_fields.items() if any(m is mark for m in field.metadata)
    )


def read_yaml(path: Path | None) -> dict[str, Any]:
    """Read a configuration file; empty if ``path`` is None.

    Raises:
        ConfigError: the file cannot be read, is not a mapping, or has a duplicate key.
    """
    if path is None:
        return {}
    try:
        content = load_yaml(path)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of options, found a {type(content).__name__}")
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name in values:
            raise ConfigError(f"{path}: duplicate option {name!r}: remove one")
        values[name] = value
    return values


def load_yaml(path: Path) -> Any:
    """Load a YAML file.

    Raises:
        ConfigError: it is not valid YAML or has a duplicate key; the message names the line.
        OSError: it cannot be read.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: it is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_yaml_fault(error)}") from error


def _yaml_fault(error: yaml.YAMLError) -> str:
    """PyYAML's multi-line message in one line, with its line numbers."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    parts = [(error.context, error.context_mark), (error.problem, error.problem_mark)]
    return ", ".join(f"{text} in line {mark.line + 1}" if mark else text for text, mark in parts if text)


_MERGE = "tag:yaml.org,2002:merge"  # "<<", which may be repeated


class _UniqueKeys(yaml.SafeLoader):
    """Refuses duplicate keys, of which PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """See ``SafeConstructor``."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"duplicate key {key.value!r}: remove one", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def refuse_unknown(keys: Mapping[str, Any], models: Sequence[type[BaseModel]], source: object) -> None:
    """Raise ``ConfigError`` for a key that no model has; the message suggests similar names."""
    known = {name for model in models for name in model.model_fields}
    unknown = sorted(set(keys) - option_names(*models))
    if unknown:
        hint = did_you_mean(unknown[0], known) or "see --help for the options"
        raise ConfigError(f"{source}: unknown option {unknown[0]!r}: {hint}")


def build(model: type[Model], *layers: Mapping[str, Any]) -> Model:
    """Build a model from layers of values: later layers override earlier ones, keys of other models are ignored.

    A single value for a list option becomes a list of one; ``none`` unsets an option that has a default.

    Raises:
        ConfigError: a value has the wrong type or is out of range; the message is one line that names the option.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values |= {name: value for name, value in with_new_names(model, layer).items() if name in model.model_fields}
    for name, value in values.items():
        field = model.model_fields[name]
        kind = plain_type(field.annotation)
        if get_origin(kind) is tuple and isinstance(value, str | int | Path):
            values[name] = (value,)
        elif value == "none" and kind is not field.annotation and field.default is not None:
            values[name] = None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # about several options: the message names them
            raise ConfigError(message) from error
        flag = flag_of(str(first["loc"][0]))
        if first["type"] == "missing":
            raise ConfigError(f"{flag} is missing") from error
        raise ConfigError(f"{flag}: {message[:1].lower()}{message[1:]} (given: {first['input']!r})") from error


def coerce(model: type[Model], given: Model | Mapping[str, Any] | None) -> Model:
    """Options as users pass them in Python: a model, a mapping of its fields, or None for the defaults.

    Raises:
        ConfigError: an unknown key, an invalid value, or neither a model nor a mapping.
    """
    if given is None or isinstance(given, Mapping):
        refuse_unknown(given or {}, [model], model.__name__)
        return build(model, given or {})
    if not isinstance(given, model):
        raise ConfigError(f"expected {model.__name__} or a mapping of its options, found {given!r:.80}")
    return given


def changed(options: BaseModel, *, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The options that differ from their defaults, by name, as JSON."""
    values = options.model_dump(mode="json", exclude=set(leave_out))
    return {
        name: values[name]
        for name, field in type(options).model_fields.items()
        if name in values and (field.is_required() or getattr(options, name) != field.default)
    }


def command_words(options: Mapping[str, Any]) -> list[str]:
    """The command-line words that set these options."""
    words: list[str] = []
    for name, value in options.items():
        flag = flag_of(name)
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag.removeprefix("--"))
        elif isinstance(value, list | tuple):
            words += [word for one in value or ("",) for word in words_of(flag, str(one).replace(",", "\\,"))]
        else:
            words += words_of(flag, "none" if value is None else value)
    return words


def parsed_words(words: Sequence[str]) -> dict[str, Any]:
    """The inverse of ``command_words``, with all values as text."""
    found: dict[str, Any] = {}
    for place, word in enumerate(words):
        if not word.startswith("--"):
            continue
        flag, given, value = word.removeprefix("--").partition("=")
        name = flag.replace("-", "_")
        following = words[place + 1] if place + 1 < len(words) else "--"
        if given or not following.startswith("--"):
            one = value if given else following
            found[name] = (*found[name], one) if name in found else (one,)
        elif name.startswith("no_"):
            found[name.removeprefix("no_")] = (False,)
        else:
            found[name] = (True,)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def words_of(flag: str, value: object) -> list[str]:
    """A flag with its value; as one word if the value would look like a flag."""
    text = json.dumps(value) if isinstance(value, Mapping) else str(getattr(value, "value", value))
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def plain_type(annotation: Any) -> Any:
    """The type without None in an optional annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(option for option in get_args(annotation) if option is not type(None))
    return annotation
