"""Chat templates, from the model or a file, with their variables and the date that they print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from start_agent.errors import ConfigError, PromptError
from start_agent.tokens.tokenizer import Message

_DAY = "strftime_now"  # the function with which templates print the date
_RESERVED = frozenset({"messages", "conversation", "chat_template", "tokenize", "add_generation_prompt", _DAY})


def _json_object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object, as in '{\"enable_thinking\": true}'")
    return found


class ChatOptions(BaseModel):
    """The options for making prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chat_template: Path | None = Field(None, description="Jinja file to use instead of the model's template")
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(_json_object)] = Field(
        {}, description="variables for the template, as a JSON object: '{\"enable_thinking\": true}'"
    )
    chat_template_date: date | None = Field(
        None,
        description="date that the template prints, like 2026-01-31; if unset, today (in a run, of its first start)",
    )
    think_start: str | None = Field(None, min_length=1, description="text that opens the thinking; detected if unset")
    think_end: str | None = Field(None, min_length=1, description="text that ends the thinking; detected if unset")
    think_markers: Path | None = Field(None, description="YAML file with further families of think markers")


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A Jinja template with its variables: messages → the text of a prompt that ends where the assistant begins.

    Attributes:
        source: the template.
        render: ``apply_chat_template`` of the model's tokenizer in transformers, which knows its special tokens.
        variables: further variables for the template.
        day: the date that it prints; None for today.
    """

    source: str
    render: Callable[..., Any]
    variables: Mapping[str, Any] = field(default_factory=dict)
    day: date | None = None

    def __call__(self, messages: list[Message]) -> str:
        """Render. Raises whatever the template raises."""
        now = datetime.combine(self.day or date.today(), time(12))
        text = self.render(
            messages,
            chat_template=self.source,
            tokenize=False,
            add_generation_prompt=True,
            **{_DAY: now.strftime, **self.variables},
        )
        return str(text)

    def given(self, **variables: Any) -> ChatTemplate:
        """The template with more variables."""
        return replace(self, variables={**self.variables, **variables})

    def uses(self, name: str) -> bool:
        """Whether the template's source contains this name."""
        return re.search(rf"\b{re.escape(name)}\b", self.source) is not None

    @property
    def prints_day(self) -> bool:
        """Whether the rendered text depends on the date."""
        return self.uses(_DAY)


def with_options(renderer: Callable[[list[Message]], str] | None, options: ChatOptions) -> Any:
    """The renderer with the user's template, variables and date.

    Raises:
        ConfigError: a file cannot be read, a variable is reserved, or the tokenizer has no Jinja template.
    """
    taken = sorted(_RESERVED & set(options.chat_template_kwargs))
    if taken:
        raise ConfigError(f"--chat-template-kwargs: {taken[0]!r} is set by start-agent; remove it")
    if not isinstance(renderer, ChatTemplate):
        if options.chat_template or options.chat_template_kwargs:
            raise ConfigError("--chat-template and --chat-template-kwargs need a tokenizer with a Jinja template")
        return renderer
    source = renderer.source if options.chat_template is None else read_template(options.chat_template)
    if not source:
        return None
    return replace(renderer, source=source, day=options.chat_template_date).given(**options.chat_template_kwargs)


def read_template(path: Path) -> str:
    """The source of a user's template. Raises ``ConfigError``, ``PromptError``."""
    try:
        source = path.expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the chat template {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the chat template {path} is not UTF-8 text") from error
    if not source.strip():
        raise PromptError(f"the chat template {path} is empty")
    return source
