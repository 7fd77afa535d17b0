"""Parses and validates hint files, with the line number of each error.

The file is composed into YAML nodes and never loaded into Python objects: nodes have line numbers, and only mappings,
lists, strings, integers and null are accepted. Everything else in YAML (tags, aliases, dates, merge keys) is rejected,
which is stricter than ``yaml.safe_load``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError

from hints.errors import HintFileError
from hints.hint import Hint
from hints.schema import ID_PATTERN, HintFileModel, HintModel, Mode

Location = tuple[int | str, ...]

_TAG = "tag:yaml.org,2002:"
_SCHEMA = "see hints/README.md for the format"


@dataclass(frozen=True, slots=True)
class HintFile:
    """A valid hint file."""

    mode: Mode
    hints: tuple[Hint, ...]


def parse(raw: bytes, path: str) -> HintFile:
    """Parse the content of one hint file. ``path`` is only used in messages. Raises ``HintFileError``."""
    reader = _Reader(path)
    data = reader.read(_decode(raw, path))
    try:
        model = HintFileModel.model_validate(data)
    except ValidationError as error:
        reader.refuse(error)
    first_lines: dict[str, int] = {}
    for index, hint in enumerate(model.hints):
        line = reader.line(("hints", index, "id"))
        if hint.id in first_lines:
            reason = f"the id is already used on line {first_lines[hint.id]}; give each hint its own id"
            raise HintFileError(path, line, reason, hint.id)
        first_lines[hint.id] = line
    return HintFile(model.mode, tuple(hint.to_hint() for hint in model.hints))


def _decode(raw: bytes, path: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise HintFileError(path, line, "not UTF-8 text; save the file as UTF-8") from None


class _AliasUsedError(Exception):
    """An alias is used on this line."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Composes nodes but rejects aliases, which can expand exponentially or contain themselves."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _AliasUsedError(event.start_mark.line + 1)
        return super().compose_node(parent, index)


@dataclass(slots=True)
class _Reader:
    """Converts YAML into plain data and records the line of each value and the id of each hint."""

    path: str
    lines: dict[Location, int] = field(default_factory=dict)
    ids: dict[int | str, str] = field(default_factory=dict)

    def read(self, text: str) -> dict[str, Any]:
        try:
            node = yaml.compose(text, Loader=_Loader)
            if node is None:
                self._fail(1, f"the file is empty; {_SCHEMA}")
            if not isinstance(node, yaml.MappingNode):
                self._fail(_line(node), f"not a mapping of `version` and `hints` but {_kind(node)}; {_SCHEMA}")
            return self._mapping(node, ())
        except _AliasUsedError as error:
            self._fail(error.line, "YAML aliases (`*name`) are not used in hint files; write the value out")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._fail(line, f"YAML forbids the character U+{error.character:04X}; remove it")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = f"not valid YAML: {error.problem or error.context}; check indentation and quotes"
            self._fail(1 if mark is None else mark.line + 1, reason)
        except RecursionError:
            self._fail(1, f"values are nested too deeply; {_SCHEMA}")

    def line(self, location: Location) -> int:
        """The line of a location or, if it is not in the file, of the innermost value around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def refuse(self, error: ValidationError) -> NoReturn:
        """Raise the first of pydantic's errors by line; the others are only counted, to keep the message short."""
        found = error.errors(include_url=False)
        first = min(found, key=lambda e: self.line(e["loc"]))
        more = "" if len(found) == 1 else f" (and {len(found) - 1} more in this file)"
        self._fail(self.line(first["loc"]), _reason(dict(first)) + more, first["loc"])

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        self._enter(node, location, "map")
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._fail(line, f"a key must be a plain word; {_SCHEMA}", location)
            key = key_node.value
            if key in values:
                self._fail(line, f"the key `{key}` is given twice; remove one", location)
            values[key] = self._value(value_node, (*location, key))
            # Report the line of the key, even if its value starts further down.
            self.lines[(*location, key)] = line
        return values

    def _value(self, node: yaml.Node, location: Location) -> object:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            self._enter(node, location, "seq")
            return [self._value(item, (*location, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, location)

    def _scalar(self, node: yaml.Node, location: Location) -> str | int | None:
        self._enter(node, location, "str", "int", "null")
        text = str(node.value)
        if node.tag == _TAG + "null":
            return None
        if node.tag == _TAG + "str":
            if location[:1] == ("hints",) and location[2:] == ("id",) and text:
                self.ids[location[1]] = text
            return text
        try:
            return int(text)
        except ValueError:
            reason = f"`{text:.40}` is not a plain whole number; write it with digits only"
            self._fail(_line(node), reason, location)

    def _enter(self, node: yaml.Node, location: Location, *tags: str) -> None:
        self.lines[location] = _line(node)
        if node.tag.removeprefix(_TAG) not in tags:
            reason = f"{_kind(node)} is not used in hint files; if you meant text, quote it"
            self._fail(_line(node), reason, location)

    def _fail(self, line: int, reason: str, location: Location = ()) -> NoReturn:
        in_hint = len(location) > 1 and location[0] == "hints"
        raise HintFileError(self.path, line, reason, self.ids.get(location[1]) if in_hint else None) from None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: yaml.Node) -> str:
    """A node in words, for messages."""
    if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
        return "plain text"
    if node.tag == _TAG + "seq":
        return "a list"
    short = node.tag.removeprefix(_TAG)
    shown = f" (`{node.value:.40}`)" if isinstance(node, yaml.ScalarNode) else ""
    return f"a value of YAML type `{short}`{shown}"


def _reason(error: dict[str, Any]) -> str:
    """A message for one of pydantic's errors that says what to do."""
    location: Location = error["loc"]
    key = location[-1] if location else ""
    context = error.get("ctx", {})
    shown = f"{error['input']!r:.60}"
    match error["type"]:
        case "missing":
            return f"the key `{key}` is missing; add it"
        case "extra_forbidden":
            model = HintModel if len(location) > 1 else HintFileModel
            return f"unknown key `{key}`; remove it or use one of: {', '.join(model.model_fields)}"
        case "enum" | "literal_error":
            return f"{shown} is not a valid `{key}`; use {context['expected']}"
        case "string_pattern_mismatch":
            return f"{shown} is not a valid `{key}`; use letters, digits, dots, hyphens, underscores ({ID_PATTERN})"
        case "string_type":
            return f"`{key}` must be text, not {shown}; put it in quotes"
        case "string_too_short":
            return f"`{key}` is empty; fill it in or remove the key"
        case "int_type" | "greater_than_equal":
            return f"`{key}` must be a whole number of at least 1, not {shown}; change it"
        case "list_type":
            return f"`{key}` must be a list of hints, each starting with `-`; {_SCHEMA}"
        case "too_short":
            return f"`{key}` is empty; add at least one hint"
        case "model_type":
            return f"a hint must be a mapping with the key `id` and others, not {shown}; {_SCHEMA}"
        case "value_error":
            return str(context["error"])
        case _:
            return f"`{key}`: {error['msg']}; {_SCHEMA}"
