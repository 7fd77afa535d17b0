"""Chat templates: the model's own or a file's, the variables they are given, and the day that they print."""

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

_DAY = "strftime_now"  # the function by which templates print the day
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
    """How a question becomes a prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chat_template: Path | None = Field(None, description="Jinja file to use in place of the model's own template")
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(_json_object)] = Field(
        {}, description="variables of the template, a JSON object: '{\"enable_thinking\": true}'"
    )
    chat_template_date: date | None = Field(
        None, description="day that the template prints, as 2026-01-31; unset, today, in a run that of its first start"
    )
    think_start: str | None = Field(None, min_length=1, description="what opens the thinking; unset, found by family")
    think_end: str | None = Field(None, min_length=1, description="what ends the thinking; unset, found by family")
    think_markers: Path | None = Field(None, description="YAML file of further families of think markers")


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A Jinja template with its variables: messages → the text of a prompt that ends where the assistant begins.

    Attributes:
        source: the template.
        render: ``transformers``' ``apply_chat_template`` of the model's tokenizer, which knows its special tokens.
        variables: what the template is given besides the messages.
        day: what it prints where it prints the day; today where None.
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
        """Whether the template's source has this name."""
        return re.search(rf"\b{re.escape(name)}\b", self.source) is not None

    @property
    def prints_day(self) -> bool:
        """Whether what it renders depends on the day."""
        return self.uses(_DAY)


def with_options(renderer: Callable[[list[Message]], str] | None, options: ChatOptions) -> Any:
    """The renderer with the user's template, variables and day.

    Raises:
        ConfigError: a file that cannot be read, a variable that is not the user's to set, or options for a tokenizer
            whose prompts are not made by a Jinja template.
    """
    taken = sorted(_RESERVED & set(options.chat_template_kwargs))
    if taken:
        raise ConfigError(f"--chat-template-kwargs: {taken[0]!r} is set by start-agent itself: leave it out")
    if not isinstance(renderer, ChatTemplate):
        if options.chat_template or options.chat_template_kwargs:
            raise ConfigError("--chat-template and its variables need a tokenizer with a Jinja template")
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
