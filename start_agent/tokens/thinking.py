"""Think markers, which open and end the thinking, by family of models (``thinking.yaml``)."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from start_agent.errors import ConfigError, PromptError
from start_agent.fields import load_yaml

SWITCHES = ("enable_thinking", "thinking", "thinking_mode", "reasoning")
"""The variables with which templates turn the thinking on and off."""

_TOKEN = re.compile(r"<[^<>\s]+>")
_CHANNEL = re.compile(r"<[|/]*channel[|]*>|\bvalid channels\b", re.IGNORECASE)


class Family(BaseModel):
    """The think markers of a family of models; see ``thinking.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    start: str = Field(min_length=1)
    ends: tuple[str, ...] = Field(min_length=1)
    channel: bool = False
    signs: tuple[str, ...] = ()

    def named_in(self, text: str) -> bool:
        """Whether the text contains a marker or sign of the family."""
        return any(sign in text for sign in (self.start, *self.ends, *self.signs))

    def spelled_with(self, tokens: Set[str]) -> bool:
        """Whether a vocabulary has the family's markers: ``start`` as a token, or for a channel all its tokens."""
        return self.start in tokens or (self.channel and tokens >= {*_TOKEN.findall(self.start)})


def read_families(path: Path) -> tuple[Family, ...]:
    """Read the families from a user's file. Raises ``ConfigError``."""
    try:
        return _families(load_yaml(path.expanduser()), path)
    except OSError as error:
        raise ConfigError(f"cannot read the think markers {path}: {error.strerror}") from error


@cache
def builtin_families() -> tuple[Family, ...]:
    """The families in ``thinking.yaml``."""
    file = resources.files(__package__) / "thinking.yaml"
    return _families(yaml.safe_load(file.read_text(encoding="utf-8")), file)


def find_family(
    tail: str,
    rendered: str,
    source: str,
    families: Sequence[Family],
    *,
    tokens: Set[str] = frozenset(),
    start: str | None = None,
    end: str | None = None,
) -> Family:
    """The family of a template.

    A family is searched first in the end of the prompt, then in the rest of the prompt (for example a system message),
    then in the template, then among the control tokens. If none is found, it is that of think tags.

    Args:
        tail: the end of the prompt, after the last message.
        rendered: the template's own text in the prompt.
        source: the template; empty if unknown.
        tokens: the texts of the vocabulary's control tokens.
        families: the known families, in order of priority.
        start, end: the user's markers, instead of a family's.

    Raises:
        PromptError: the template has channels, and no family has them.
    """
    named = (family for text in (tail, rendered, source) for family in families if family.named_in(text))
    found = next(named, None)
    channels = any(_CHANNEL.search(text) for text in (rendered, source))
    if found is None and not channels:
        found = next((family for family in families if family.spelled_with(tokens)), None)
    if channels and not (found and found.channel) and not (start and end):
        raise PromptError(
            "the model's chat template has unknown channels; use --think-start and --think-end for the texts that open "
            "and end its thinking, or --think-markers with a file of its family"
        )
    if found is None:
        found = families[-1]
    if start or end:
        ends = (end,) if end else found.ends
        found = Family(name="--think-end", start=start or found.start, ends=ends, channel=channels)
    return found


def _families(content: Any, source: object) -> tuple[Family, ...]:
    if not isinstance(content, list):
        raise ConfigError(f"{source}: expected a list of families, each with name, start and ends")
    try:
        return TypeAdapter(tuple[Family, ...]).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{source}: {place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
