"""Detects the kind of a server, the model's name on it and its context length, once at the start."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from start_agent.engines.base import Sampling
from start_agent.engines.http.client import Client, RefusedError
from start_agent.engines.http.dialects import (
    USABLE,
    VLLM,
    CompletionRequest,
    Dialect,
    LlamaCpp,
    NoIdsError,
    Piece,
    SGLang,
    VLLMGenerate,
    read,
)
from start_agent.errors import ConfigError, EngineError, ModelError
from start_agent.logprobs import MAX_LOGPROBS
from start_agent.tokens.tokenizer import Tokenizer

_OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}
"""``owned_by`` in a server's list of models → the kind of server."""

_SGLANG_RESERVED = 8
"""Tokens of the context that cannot be used with SGLang (its scheduler: at most 2, and 5 more of the prompt)."""

_SAMPLE = "The sum of 17 and 25 is 42; so x = (a + b) / 2, isn't it?\n"


@dataclass(frozen=True, slots=True)
class Server:
    """A detected server. ``slots`` is llama.cpp's number of slots, None for other servers."""

    dialect: Dialect
    context_length: int
    slots: int | None = None

    def __str__(self) -> str:
        slots = "" if self.slots is None else f", {self.slots} slots"
        return f"{self.dialect.kind} ({self.dialect.path}), a context of {self.context_length:,} tokens{slots}"


async def find(client: Client, tokenizer: Tokenizer, model: str) -> Server:
    """Detect the server, and try it with one token.

    Args:
        client: a client of the server.
        tokenizer: the model's tokenizer.
        model: the model name or folder that the user gave.

    Raises:
        ModelError: it does not serve the model, or its vocabulary differs.
        ConfigError: it does not take and return token ids, or does not report its context length.
        EngineError: it is not a model server, or cannot be reached.
    """
    options = client.options
    listed = await client.with_retries(partial(client.get, "/v1/models"))
    try:
        cards: list[dict[str, Any]] = [card for card in listed["data"] if isinstance(card["id"], str)]
    except (KeyError, TypeError) as error:
        raise EngineError(f"{client.url} is not a model server: there is no list at /v1/models") from error
    owner = str(cards[0].get("owned_by")) if cards else ""
    kind = _OWNERS.get(owner, "another") if options.server_kind == "auto" else options.server_kind
    card = _chosen(client, cards, model, by_name=kind != "llama.cpp")
    served, limit = card["id"], card.get("max_model_len")
    slots: int | None = None
    tried: list[Dialect]
    if kind == "llama.cpp":
        await _compare_vocabulary(client, tokenizer, served)
        properties = await client.with_retries(partial(client.get, "/props", model=served))
        limit = (properties.get("default_generation_settings") or {}).get("n_ctx")
        slots = int(properties.get("total_slots") or 1)
        tried = [LlamaCpp(served, tokenizer.encode("1")[0])]
    elif kind == "sglang":
        info = await _sglang_info(client)
        limits = [size - _SGLANG_RESERVED for size in (limit, info.get("max_total_num_tokens")) if size]
        limit = min(limits, default=None)
        tried = [SGLang(served, seeded=bool(info.get("enable_deterministic_inference")))]
    else:
        known: dict[str, list[Dialect]] = {"vllm-generate": [VLLMGenerate(served)]}
        both: list[Dialect] = [VLLMGenerate(served), VLLM(served)]  # another server may have vLLM's API
        tried = known.get(kind) or (both if options.server_kind == "auto" else both[1:])
    context = [size for size in (options.context_length, limit) if size]
    if not context:
        raise ConfigError(f"{client.url} does not report its context length; use --context-length")
    owner_text = "" if owner in _OWNERS or not owner else f" (of {owner!r})"
    request = CompletionRequest(tokenizer.encode("1")[:1], 1, Sampling(), 0)
    dialect = await _working_dialect(client, tried, request, owner_text)
    if isinstance(dialect, SGLang):
        dialect.raw_logprobs = await _gives_raw_logprobs(client, dialect, request)
    return Server(dialect, min(context), slots)


def _chosen(client: Client, cards: Sequence[dict[str, Any]], model: str, *, by_name: bool) -> dict[str, Any]:
    """The entry of the model in the list. llama.cpp's only model always matches, because its name is that of a file."""
    wanted = client.options.served_model or model
    found = next((card for card in cards if wanted in (card["id"], card.get("root"))), None)
    if found is None and not by_name and len(cards) == 1 and client.options.served_model is None:
        found = cards[0]
    if found is None:
        names = ", ".join(card["id"] for card in cards) or "nothing"
        raise ModelError(f"{client.url} does not serve {wanted!r} but {names}; choose one with --served-model")
    return found


async def _compare_vocabulary(client: Client, tokenizer: Tokenizer, served: str) -> None:
    """Check with a sample text that the server's vocabulary is the tokenizer's."""
    body = {"model": served, "content": _SAMPLE, "with_pieces": True, "add_special": False}
    answer = await client.with_retries(partial(client.post, "/tokenize", body))
    for token in answer.get("tokens", ()):
        theirs = token["piece"].encode() if isinstance(token["piece"], str) else bytes(token["piece"])
        ours = tokenizer.bytes_of([token["id"]])
        if theirs != ours:
            raise ModelError(
                f"the server at {client.url} has another vocabulary than --model: its token {token['id']} is "
                f"{theirs!r}, not {ours!r}; use --model with the model that it serves, or its GGUF file"
            )


async def _sglang_info(client: Client) -> dict[str, Any]:
    """SGLang's server information; older versions have only the second route. Empty if there is none."""
    for route in ("/server_info", "/get_server_info"):
        try:
            answer = await client.with_retries(partial(client.get, route))
        except EngineError:
            continue
        if isinstance(answer, dict):
            return answer
    return {}


async def _working_dialect(
    client: Client, dialects: Sequence[Dialect], request: CompletionRequest, owner_text: str
) -> Dialect:
    """The first dialect in which the server continues token ids."""
    refusal = ""
    for dialect in dialects:
        try:
            if await client.with_retries(partial(_first_piece, client, dialect, request)):
                return dialect
        except (RefusedError, NoIdsError) as error:
            refusal = str(error)
    raise ConfigError(
        f"the server at {client.url}{owner_text} does not take and return token ids ({refusal or 'it gave none'}); "
        f"use {USABLE}"
    )


async def _gives_raw_logprobs(client: Client, dialect: Dialect, request: CompletionRequest) -> bool:
    """Whether a server's log-probabilities are those before the temperature.

    Those after it would have half the differences at twice the temperature.
    """
    spreads = list[float]()
    for temperature in (1.0, 2.0):
        warm = replace(request, sampling=Sampling(temperature=temperature), num_logprobs=MAX_LOGPROBS)
        try:
            piece = await client.with_retries(partial(_first_piece, client, dialect, warm))
        except EngineError:
            return False
        if piece is None or not piece.logprobs or not piece.logprobs[0].top:
            return False
        values = [value for _, value in piece.logprobs[0].top]
        spreads.append(values[0] - values[-1])
    return spreads[1] > 0.75 * spreads[0]


async def _first_piece(client: Client, dialect: Dialect, request: CompletionRequest) -> Piece | None:
    """The first piece of an answer that has ids; None if there is none."""
    async with aclosing(client.events(dialect.path, dialect.body(request))) as events:
        async for event in events:
            piece = read(dialect, event, 0, request.num_logprobs)
            if piece.token_ids:
                return piece
    return None
