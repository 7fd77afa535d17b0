"""What a request to the Responses API, for conversations or for containers may say.

A field that is not here is refused by its name. So is a value that asks for what this server does not do: such fields
are here with the values alone that ask for nothing.
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
    """A message, as people write it or as an earlier response has returned it."""

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
    """Thoughts that an earlier response has returned."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: _Empty = None
    content: Many[ReasoningText] | None = None
    encrypted_content: _Unset = None
    status: Status | None = None
    start_agent: dict[str, Any] | None = None


class LogsOutput(Wire):
    """What a cell printed."""

    type: Literal["logs"]
    logs: str


class ImageOutput(Wire):
    """A figure of a cell, which the model does not see."""

    type: Literal["image"]
    url: str


class InputCodeCall(Wire):
    """A cell that an earlier response has returned."""

    type: Literal["code_interpreter_call"]
    id: str | None = None
    code: str | None = None
    container_id: str
    outputs: Many[Annotated[LogsOutput | ImageOutput, Discriminator("type")]] | None = None
    status: Literal["in_progress", "interpreting", "completed", "incomplete", "failed"] | None = None
    start_agent: dict[str, Any] | None = None


def _kind(value: Any) -> str | None:
    """The type of an item of the input; a message needs none."""
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
    """Code has no network here."""

    type: Literal["disabled"]


class AutoContainer(Wire):
    """A container for this response, or the one of the last cell in the conversation, while that lives."""

    type: Literal["auto"]
    file_ids: _Empty = None
    memory_limit: _Unset = None
    network_policy: Annotated[NoNetwork | None, NEUTRAL] = None
    skills: _Empty = None


class CodeInterpreter(Wire):
    """The only tool: Python, which the model writes in its thoughts."""

    type: Literal["code_interpreter"]
    container: Annotated[
        Annotated[str, Tag("text")] | Annotated[AutoContainer, Tag("object")], either("an id or {'type': 'auto'}")
    ]
    allowed_callers: Annotated[list[Literal["direct"]] | None, NEUTRAL] = None


Include = Literal["code_interpreter_call.outputs", "message.output_text.logprobs", "reasoning.encrypted_content"]
"""What a response may be asked to hold besides. Thoughts are in it in clear: nothing is encrypted for it."""


class Reasoning(Wire):
    """Options of the thinking. There are no summaries: ``auto`` means the best there is, which is none."""

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
    """Of a stream: nothing can be asked for."""

    include_obfuscation: Annotated[Literal[False] | None, NEUTRAL] = None


class ConversationReference(Wire):
    """A conversation by its id."""

    id: str


class ResponsesRequest(Wire):
    """A request to make a response."""

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
    # vLLM's names for what OpenAI has not.
    seed: int | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    start_agent: RequestExtension | None = None
    # Said about the request, with nothing to be done: returned as they are.
    user: Word | None = None
    safety_identifier: Word | None = None
    prompt_cache_key: Word | None = None
    parallel_tool_calls: bool | None = None
    # Values that ask for nothing.
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
    """Other metadata for a conversation."""

    metadata: Metadata | None


class AddItems(Wire):
    """Items for a conversation."""

    items: Annotated[list[InputItem], Field(min_length=1, max_length=20)]


class ExpiresAfter(Wire):
    """When a container that is not used is closed."""

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
