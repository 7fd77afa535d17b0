"""Request schemas of chat completions and completions.

Unknown fields are refused by name. Fields for features that are not supported are declared with only the values that
have no effect (``NEUTRAL``); other values are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator, model_validator

from start_agent.decoding.settings import MAX_STOP_CHARS, DecodingSettings
from start_agent.engines.base import Sampling
from start_agent.logprobs import MAX_LOGPROBS
from start_agent.server.errors import APIError
from start_agent.server.extension import RequestExtension
from start_agent.server.thinking import Effort
from start_agent.server.wire import NEUTRAL, Many, Metadata, Nothing, T, Wire, Word, either
from start_agent.tokens.conversations import THOUGHTS
from start_agent.tokens.tokenizer import Message

MAX_CHOICES = 128
_MAX_MESSAGES, _MAX_PARTS, _MAX_PROMPTS = 4096, 1024, 1024
_MAX_STOPS = 16  # as in DecodingSettings
_Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
_Stops = Annotated[
    Annotated[_Stop, Tag("text")] | Annotated[list[_Stop], Field(max_length=_MAX_STOPS), Tag("list")],
    either("a text or a list of texts"),
]

_Zero = Annotated[Annotated[float, Field(ge=0, le=0)] | None, NEUTRAL]
_One = Annotated[Annotated[float, Field(ge=1, le=1)] | None, NEUTRAL]
_Empty = Annotated[Nothing | None, NEUTRAL]
_Unset = Annotated[None, NEUTRAL]


class ContentPart(Wire):
    """Text within a message."""

    type: Literal["text"]
    text: str


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[Many[ContentPart], Field(max_length=_MAX_PARTS), Tag("list")],
    either("a text or a list of parts"),
]


class ChatMessage(Wire):
    """A message of the conversation.

    Attributes:
        reasoning, reasoning_content: the thoughts of an earlier answer, under either name.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: Content | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    # Fields of messages that the server returned.
    refusal: _Unset = None
    audio: _Unset = None
    annotations: _Empty = None
    function_call: _Unset = None
    tool_calls: _Empty = None
    name: _Unset = None

    @model_validator(mode="after")
    def _check(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise ValueError("content is missing")
        if self.role != "assistant" and (self.reasoning or self.reasoning_content):
            raise ValueError("only messages of the assistant have thoughts")
        if self.reasoning and self.reasoning_content and self.reasoning != self.reasoning_content:
            raise ValueError("reasoning and reasoning_content differ: give one of them")
        return self

    @property
    def message(self) -> Message:
        """The message for the chat template."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        thoughts = self.reasoning or self.reasoning_content
        return {"role": self.role, "content": text, **({THOUGHTS: thoughts} if thoughts else {})}


class StreamOptions(Wire):
    """Options of a stream.

    Attributes:
        include_usage: whether a last event has the token counts.
    """

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class _Request(Wire):
    """The fields that both kinds of requests have."""

    model: str
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: int | None = None
    thinking_token_budget: Annotated[int, Field(ge=0)] | None = None
    stop: _Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    start_agent: RequestExtension | None = None
    # No effect.
    user: Word | None = None
    # Only neutral values are accepted.
    frequency_penalty: _Zero = None
    presence_penalty: _Zero = None
    repetition_penalty: _One = None
    logit_bias: Annotated[Annotated[dict[str, float], Field(max_length=0)] | None, NEUTRAL] = None

    @field_validator("stream_options")
    @classmethod
    def _only_streams(cls, given: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if given is not None and not info.data.get("stream"):
            raise ValueError("only a request with stream has them")
        return given

    def settings(self, base: DecodingSettings, **more: Any) -> DecodingSettings:
        """The server's settings, overridden by those of the request.

        Args:
            base: the server's settings.
            more: settings from other fields of the request; None for unset ones.

        Raises:
            APIError: 400, see ``RequestExtension.settings``, or a setting is given twice.
        """
        extension = self.start_agent or RequestExtension()
        if self.thinking_token_budget is not None and "thinking_token_budget" in extension.given():
            raise APIError(400, "thinking_token_budget is given twice", param="start_agent.thinking_token_budget")
        stop = None if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return extension.settings(base, thinking_token_budget=self.thinking_token_budget, stop=stop, **more)

    @property
    def hint(self) -> str | None:
        """The hint at the start of the thinking, if requested."""
        return None if self.start_agent is None else self.start_agent.hint

    def sampling(self, base: Sampling) -> Sampling:
        """The server's sampling parameters, overridden by those of the request."""
        names = ("temperature", "top_p", "top_k", "min_p")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return base.model_copy(update=given)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ResponseFormat(Wire):
    """The only format of an answer."""

    type: Literal["text"]


class ChatRequest(_Request):
    """A request for a chat completion."""

    messages: Annotated[Many[ChatMessage], Field(max_length=_MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # No effect.
    metadata: Metadata | None = None
    safety_identifier: Word | None = None
    prompt_cache_key: Word | None = None
    parallel_tool_calls: bool | None = None
    # Only neutral values are accepted.
    store: Annotated[Literal[False] | None, NEUTRAL] = None
    tools: _Empty = None
    tool_choice: Annotated[Literal["none", "auto"] | None, NEUTRAL] = None
    functions: _Empty = None
    function_call: Annotated[Literal["none", "auto"] | None, NEUTRAL] = None
    response_format: Annotated[ResponseFormat | None, NEUTRAL] = None
    modalities: Annotated[list[Literal["text"]] | None, NEUTRAL] = None
    service_tier: Annotated[Literal["auto", "default"] | None, NEUTRAL] = None
    verbosity: Annotated[Literal["medium"] | None, NEUTRAL] = None
    audio: _Unset = None
    prediction: _Unset = None
    web_search_options: _Unset = None
    prompt_cache_options: _Unset = None
    prompt_cache_retention: _Unset = None
    moderation: _Unset = None

    @field_validator("top_logprobs")
    @classmethod
    def _only_with_logprobs(cls, given: int | None, info: ValidationInfo) -> int | None:
        if given is not None and not info.data.get("logprobs"):
            raise ValueError("needs logprobs: true")
        return given


_Several = Annotated[Many[T], Field(max_length=_MAX_PROMPTS)]
Tokens = Annotated[Many[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(_Request):
    """A request for a completion of a raw prompt."""

    prompt: Annotated[
        Annotated[str, Tag("text")] | Annotated[Tokens | _Several[str] | _Several[Tokens], Tag("list")],
        either("a text, a list of token ids, or a list of these"),
    ]
    add_special_tokens: bool | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    # Only neutral values are accepted.
    best_of: _One = None
    suffix: _Unset = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt: a text, or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        parts = [part for part in self.prompt if not isinstance(part, int)]
        return parts or [[part for part in self.prompt if isinstance(part, int)]]
