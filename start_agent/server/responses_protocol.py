"""Request schemas of the Responses API, of conversations and of containers.

Unknown fields are refused by name. Fields for features that are not supported are declared with only the values that
have no effect (``NEUTRAL``); other values are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from start_agent.server.extension import RequestExtension
from start_agent.server.thinking import Effort
from start_agent.server.wire import NEUTRAL, Many, Metadata, Nothing, Wire, Word, either

Status = Literal["in_progress", "completed", "incomplete"]

_Unset = Annotated[None, NEUTRAL]
_Empty = Annotated[Nothing | None, NEUTRAL]


class TextPart(Wire):
    """Text within a message."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: _Empty = None
    logprobs: Many[Any] | None = None


class InputMessage(Wire):
    """A message, written by the client or returned by an earlier response."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        Annotated[str, Tag("text")] | Annotated[Many[TextPart], Tag("list")], either("a text or a list of parts")
    ]
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    start_agent: dict[str, Any] | None = None


class ReasoningText(Wire):
    """Thoughts."""

    type: Literal["reasoning_text"]
    text: str


class InputReasoning(Wire):
    """Thoughts returned by an earlier response."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: _Empty = None
    content: Many[ReasoningText] | None = None
    encrypted_content: _Unset = None
    status: Status | None = None
    start_agent: dict[str, Any] | None = None


class LogsOutput(Wire):
    """The printed output of a cell."""

    type: Literal["logs"]
    logs: str


class ImageOutput(Wire):
    """A figure of a cell, which the model does not see."""

    type: Literal["image"]
    url: str


class InputCodeCall(Wire):
    """A cell returned by an earlier response."""

    type: Literal["code_interpreter_call"]
    id: str | None = None
    code: str | None = None
    container_id: str
    outputs: Many[Annotated[LogsOutput | ImageOutput, Discriminator("type")]] | None = None
    status: Literal["in_progress", "interpreting", "completed", "incomplete", "failed"] | None = None
    start_agent: dict[str, Any] | None = None


def _kind(value: Any) -> str | None:
    """The type of an input item; optional for a message."""
    kind = value.get("type", "message") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputReasoning, Tag("reasoning")]
    | Annotated[InputCodeCall, Tag("code_interpreter_call")],
    Discriminator(
        _kind,
        custom_error_type="unsupported",
        custom_error_message="has a type that is not supported: use message, reasoning, code_interpreter_call",
    ),
]


class NoNetwork(Wire):
    """The only network policy: no network."""

    type: Literal["disabled"]


class AutoContainer(Wire):
    """The container of the last cell in the conversation while it lives, otherwise a new one."""

    type: Literal["auto"]
    file_ids: _Empty = None
    memory_limit: _Unset = None
    network_policy: Annotated[NoNetwork | None, NEUTRAL] = None
    skills: _Empty = None


class CodeInterpreter(Wire):
    """The only tool: Python that the model writes while thinking."""

    type: Literal["code_interpreter"]
    container: Annotated[
        Annotated[str, Tag("text")] | Annotated[AutoContainer, Tag("object")], either("an id or {'type': 'auto'}")
    ]
    allowed_callers: Annotated[list[Literal["direct"]] | None, NEUTRAL] = None


Include = Literal["code_interpreter_call.outputs", "message.output_text.logprobs", "reasoning.encrypted_content"]
"""Optional parts of a response. Thoughts are returned unencrypted anyway."""


class Reasoning(Wire):
    """Options of the thinking. There are no summaries: ``auto`` is accepted and returns none."""

    effort: Effort | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: Annotated[Literal["standard"] | None, NEUTRAL] = None
    summary: Annotated[Literal["auto"] | None, NEUTRAL] = None
    generate_summary: Annotated[Literal["auto"] | None, NEUTRAL] = None


class PlainText(Wire):
    """The only format of an answer."""

    type: Literal["text"]


class TextOptions(Wire):
    """The format of the answer: only plain text."""

    format: Annotated[PlainText | None, NEUTRAL] = None
    verbosity: Annotated[Literal["medium"] | None, NEUTRAL] = None


class ResponseStreamOptions(Wire):
    """Options of a stream: none has an effect."""

    include_obfuscation: Annotated[Literal[False] | None, NEUTRAL] = None


class ConversationReference(Wire):
    """A conversation by its id."""

    id: str


class ResponsesRequest(Wire):
    """A request for a response."""

    model: str
    input: Annotated[
        Annotated[str, Tag("text")] | Annotated[Many[InputItem], Tag("list")], either("a text or a list of items")
    ]
    instructions: str | None = None
    tools: Annotated[list[CodeInterpreter], Field(max_length=1)] | None = None
    tool_choice: Annotated[Literal["auto", "none"] | None, NEUTRAL] = None
    max_tool_calls: Annotated[int, Field(ge=0)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[Include] | None = None
    reasoning: Reasoning | None = None
    previous_response_id: str | None = None
    conversation: (
        Annotated[
            Annotated[str, Tag("text")] | Annotated[ConversationReference, Tag("object")], either("an id or {'id': …}")
        ]
        | None
    ) = None
    store: bool | None = None
    stream: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Metadata | None = None
    # Parameters that OpenAI does not have, with vLLM's names.
    seed: int | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    start_agent: RequestExtension | None = None
    # No effect: returned unchanged.
    user: Word | None = None
    safety_identifier: Word | None = None
    prompt_cache_key: Word | None = None
    parallel_tool_calls: bool | None = None
    # Only neutral values are accepted.
    background: Annotated[Literal[False] | None, NEUTRAL] = None
    service_tier: Annotated[Literal["auto", "default"] | None, NEUTRAL] = None
    stream_options: ResponseStreamOptions | None = None
    text: TextOptions | None = None
    prompt: _Unset = None
    prompt_cache_retention: _Unset = None
    prompt_cache_options: _Unset = None
    moderation: _Unset = None
    context_management: _Empty = None
    background_options: _Unset = None
    access_programs: _Unset = None
    image: _Unset = None


class CreateConversation(Wire):
    """A request for a new conversation."""

    items: Annotated[list[InputItem], Field(max_length=20)] | None = None
    metadata: Metadata | None = None


class UpdateConversation(Wire):
    """New metadata of a conversation."""

    metadata: Metadata | None


class AddItems(Wire):
    """Items to add to a conversation."""

    items: Annotated[list[InputItem], Field(min_length=1, max_length=20)]


class ExpiresAfter(Wire):
    """When an idle container is closed."""

    anchor: Literal["last_active_at"]
    minutes: Annotated[int, Field(ge=1)]


class CreateContainer(Wire):
    """A request for a new container."""

    name: Word
    expires_after: ExpiresAfter | None = None
    network_policy: Annotated[NoNetwork | None, NEUTRAL] = None
    file_ids: _Empty = None
    memory_limit: _Unset = None
    skills: _Empty = None
