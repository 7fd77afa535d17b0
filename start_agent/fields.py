"""Options: defined once as fields of pydantic models, they make the command line, the YAML file and the Python API.

The command line overrides the YAML file, which overrides the defaults. A key that nobody knows is an error.
"""

from __future__ import annotations

import difflib
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

from start_agent.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

logger = logging.getLogger(__name__)

_RUNTIME, _MAY_GROW = object(), object()

Runtime = Annotated[T, _RUNTIME]
"""The type of an option that says how a run is carried out, not what it finds: it may change from start to start."""

MayGrow = Annotated[T, _MAY_GROW]
"""The type of an option that says how much is done: a later start may do more, and keeps what is there."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """In the annotation of an option: a name that it had, which still works, with a warning, for one release.

    Folders keep the names of the version that wrote them: ``stored`` reads those, and ``ResumeRules`` compares them.
    """

    old: str


def _pairs(value: object) -> object:
    """Words like ``key=value``, or JSON objects, as one mapping; a value that is no JSON is text."""
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
"""The type of an option that hands settings on to a library: ``key=value`` as often as wanted, the value JSON or text;
in YAML and Python a mapping."""


def flag_of(name: str) -> str:
    """The flag of an option."""
    return "--" + name.replace("_", "-")


def is_pairs(field: FieldInfo) -> bool:
    """Whether an option is of the type ``Pairs``."""
    return any(mark is _PAIRS for mark in field.metadata)


def pairs_fault(option: str, given: Iterable[str], known: Collection[str], own: Mapping[str, str], what: str) -> str:
    """What is wrong with the keys of a ``Pairs`` option; empty where all can be handed on.

    Args:
        option: its name.
        given: the keys.
        known: those that the library takes.
        own: keys that have an option of their own, or must stay as they are, with what to say instead.
        what: the library's object that takes them.
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
    """The names that an option had."""
    return [mark.old for mark in field.metadata if isinstance(mark, Renamed)]


def old_names(*models: type[BaseModel]) -> dict[str, str]:
    """The names that options of the models had, and have now."""
    return {old: name for model in models for name, field in model.model_fields.items() for old in old_names_of(field)}


def option_names(*models: type[BaseModel]) -> set[str]:
    """The names of the models' options, those that they had among them."""
    return {name for model in models for name in model.model_fields} | set(old_names(*models))


def with_new_names(model: type[BaseModel], values: Mapping[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """Values by name, with the present names for options of the model that had another.

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
    """What to tell somebody who uses an old name."""
    return f"the option {old} is now {new}; the old name goes with the next release"


def stored(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Options as this version or an older one has stored them. Raises pydantic's ValidationError."""
    return model.model_validate(with_new_names(model, values, warn=False))


def runtime_names(*models: type[BaseModel]) -> frozenset[str]:
    """The options of the models that are ``Runtime``."""
    return _marked(_RUNTIME, models)


def growing_names(*models: type[BaseModel]) -> frozenset[str]:
    """The options of the models that are ``MayGrow``."""
    return _marked(_MAY_GROW, models)


def deciding(options: BaseModel) -> dict[str, Any]:
    """What decides the results, JSON-able: all options that are not ``Runtime``."""
    return options.model_dump(mode="json", exclude=set(runtime_names(type(options))))


def _marked(mark: object, models: Sequence[type[BaseModel]]) -> frozenset[str]:
    return frozenset(
        name for model in models for name, field in model.model_fields.items() if any(m is mark for m in field.metadata)
    )


def read_yaml(path: Path | None) -> dict[str, Any]:
    """The keys of a configuration file; none where there is no file.

    Raises:
        ConfigError: it cannot be read, is no mapping, or has a key twice, of which one would be lost.
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
            raise ConfigError(f"{path}: the option {name!r} is there twice: remove one")
        values[name] = value
    return values


def load_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigError: it is no YAML, or has a key twice; names the line.
        OSError: it cannot be read.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no valid YAML: it is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML: {_yaml_fault(error)}") from error


def _yaml_fault(error: yaml.YAMLError) -> str:
    """What PyYAML says in several lines, in one, with its line numbers."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    parts = [(error.context, error.context_mark), (error.problem, error.problem_mark)]
    return ", ".join(f"{text} in line {mark.line + 1}" if mark else text for text, mark in parts if text)


_MERGE = "tag:yaml.org,2002:merge"  # "<<", which may stand several times


class _UniqueKeys(yaml.SafeLoader):
    """YAML says that a key stands once in a mapping; PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """See ``SafeConstructor``."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} is there twice: remove one", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def refuse_unknown(keys: Mapping[str, Any], models: Sequence[type[BaseModel]], source: object) -> None:
    """Raise ``ConfigError`` for a key that no model has; it names the options that are spelled alike."""
    known = {name for model in models for name in model.model_fields}
    unknown = sorted(set(keys) - option_names(*models))
    if unknown:
        hint = did_you_mean(unknown[0], known) or "see --help for the options"
        raise ConfigError(f"{source}: unknown option {unknown[0]!r}: {hint}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the known words that are spelled nearly so; empty where there are none."""
    close = difflib.get_close_matches(word, list(known), n=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def build(model: type[Model], *layers: Mapping[str, Any]) -> Model:
    """Build a model from layers of values: later layers override earlier ones, keys of other models are ignored.

    A single value where a list is wanted is a list of one; ``none`` unsets an option that has a default.

    Raises:
        ConfigError: a value is of the wrong type or out of range; one line that names the option.
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
        if not first["loc"]:  # of several options together: the message names them
            raise ConfigError(message) from error
        flag = flag_of(str(first["loc"][0]))
        if first["type"] == "missing":
            raise ConfigError(f"{flag} is missing") from error
        raise ConfigError(f"{flag}: {message[:1].lower()}{message[1:]} (given: {first['input']!r})") from error


def coerce(model: type[Model], given: Model | Mapping[str, Any] | None) -> Model:
    """Options as users pass them in Python: a model, a mapping of its fields, or None for the defaults.

    Raises:
        ConfigError: an unknown key, a wrong value, or neither a model nor a mapping.
    """
    if given is None or isinstance(given, Mapping):
        refuse_unknown(given or {}, [model], model.__name__)
        return build(model, given or {})
    if not isinstance(given, model):
        raise ConfigError(f"expected {model.__name__} or a mapping of its options, found {given!r:.80}")
    return given


def changed(options: BaseModel, *, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The options that are not at their defaults, by name, JSON-able."""
    values = options.model_dump(mode="json", exclude=set(leave_out))
    return {
        name: values[name]
        for name, field in type(options).model_fields.items()
        if name in values and (field.is_required() or getattr(options, name) != field.default)
    }


def command_words(options: Mapping[str, Any]) -> list[str]:
    """The flags by which a person would give these options on a command line."""
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
    """The options of a command line that ``command_words`` made: the inverse, with all values as text."""
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
    """A flag with its value, in one word where the value would be taken for a flag."""
    text = json.dumps(value) if isinstance(value, Mapping) else str(getattr(value, "value", value))
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def plain_type(annotation: Any) -> Any:
    """The type beside None in an optional annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(option for option in get_args(annotation) if option is not type(None))
    return annotation
