"""What the answers to requests for chat completions and completions look like; for the OpenAPI document."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from start_agent.server.extension import Report


class PromptTokensDetails(TypedDict):
    """``cached_tokens``: of the prompt, those that the engine had computed before."""

    cached_tokens: int


class CompletionTokensDetails(TypedDict):
    """``reasoning_tokens``: written up to the end of the thinking, code among them."""

    reasoning_tokens: int


class Usage(TypedDict):
    """Tokens. Those of the completion the model has written; what was inserted the extension counts."""

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
    """A token that was written, and the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Of the answer's tokens (``content``) and of the thoughts' (``reasoning``, ours); inserted tokens have none."""

    content: list[TokenLogprobRow]
    reasoning: list[TokenLogprobRow]
    refusal: None


class AnswerMessage(TypedDict):
    """The model's message; the thoughts are under one of the names, or under both."""

    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning: NotRequired[str]
    reasoning_content: NotRequired[str]


class ChatChoice(TypedDict):
    """One of the answers. ``token_authors`` says of each of ``token_ids`` who wrote it."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: ChatLogprobs | None
    start_agent: Report
    token_ids: NotRequired[list[int]]
    token_authors: NotRequired[list[str]]


class ChatCompletion(TypedDict):
    """The answer to a request for a chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: NotRequired[list[int]]


class CompletionLogprobs(TypedDict):
    """Of the tokens that the model wrote; what was inserted has none."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One of the answers: thoughts, code, outputs and answer in one text."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: CompletionLogprobs | None
    start_agent: Report
    prompt_token_ids: NotRequired[list[int]]
    token_ids: NotRequired[list[int]]
    token_authors: NotRequired[list[str]]


class Completion(TypedDict):
    """The answer to a request for completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
