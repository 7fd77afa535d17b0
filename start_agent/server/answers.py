"""Response schemas of chat completions and completions, for the OpenAPI document."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from start_agent.server.extension import Report


class PromptTokensDetails(TypedDict):
    """``cached_tokens``: prompt tokens found in the engine's cache."""

    cached_tokens: int


class CompletionTokensDetails(TypedDict):
    """``reasoning_tokens``: written by the model up to the end of thinking, including code."""

    reasoning_tokens: int


class Usage(TypedDict):
    """Token counts. Completion tokens were written by the model; inserted tokens are counted in ``start_agent``."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(TypedDict):
    """A token with its log-probability."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprobRow(TopLogprob):
    """A token that the model wrote, and the most likely tokens at its position."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """For the answer (``content``) and the thoughts (``reasoning``, our extension); inserted tokens have none."""

    content: list[TokenLogprobRow]
    reasoning: list[TokenLogprobRow]
    refusal: None


class AnswerMessage(TypedDict):
    """The model's message; the thoughts are under one or both of the names."""

    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning: NotRequired[str]
    reasoning_content: NotRequired[str]


class ChatChoice(TypedDict):
    """One of the choices. ``token_authors`` has the author of each of ``token_ids``."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: ChatLogprobs | None
    start_agent: Report
    token_ids: NotRequired[list[int]]
    token_authors: NotRequired[list[str]]


class ChatCompletion(TypedDict):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: NotRequired[list[int]]


class CompletionLogprobs(TypedDict):
    """For the tokens that the model wrote; inserted tokens have none."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One of the choices: thoughts, code, outputs and answer as one text."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: CompletionLogprobs | None
    start_agent: Report
    prompt_token_ids: NotRequired[list[int]]
    token_ids: NotRequired[list[int]]
    token_authors: NotRequired[list[str]]


class Completion(TypedDict):
    """A completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
