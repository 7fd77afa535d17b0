"""Which kind of server it is, what it calls the model, and how long its context is: asked once, at the start."""

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
    Ask,
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
"""What a server writes into ``owned_by`` in its list of models, and its kind."""

_SGLANG_KEEPS = 8
"""Tokens of its context that SGLang leaves to nobody (its scheduler: at most 2, and 5 more of the prompt)."""

_SAMPLE = "The sum of 17 and 25 is 42; so x = (a + b) / 2, isn't it?\n"


@dataclass(frozen=True, slots=True)
class Server:
    """What was found out. ``slots`` are llama.cpp's; None elsewhere."""

    dialect: Dialect
    context_length: int
    slots: int | None = None

    def __str__(self) -> str:
        slots = "" if self.slots is None else f", {self.slots} at a time"
        return f"{self.dialect.kind} ({self.dialect.path}), a context of {self.context_length:,} tokens{slots}"


async def find(client: Client, tokenizer: Tokenizer, model: str) -> Server:
    """Ask the server what it is, and try it on one token.

    Args:
        client: connected to it.
        tokenizer: the model's.
        model: the name or folder that the user gave.

    Raises:
        ModelError: it does not serve the model, or one with another vocabulary.
        ConfigError: it takes or gives no token ids, or does not say how long its context is.
        EngineError: it is no server of models, or cannot be reached.
    """
    options = client.options
    listed = await client.patiently(partial(client.get, "/v1/models"))
    try:
        cards: list[dict[str, Any]] = [card for card in listed["data"] if isinstance(card["id"], str)]
    except (KeyError, TypeError) as error:
        raise EngineError(f"{client.url} is no server of models: it has no list at /v1/models") from error
    owner = str(cards[0].get("owned_by")) if cards else ""
    kind = _OWNERS.get(owner, "another") if options.server_kind == "auto" else options.server_kind
    card = _chosen(client, cards, model, by_name=kind != "llama.cpp")
    served, limit = card["id"], card.get("max_model_len")
    slots: int | None = None
    tried: list[Dialect]
    if kind == "llama.cpp":
        await _compare_vocabulary(client, tokenizer, served)
        properties = await client.patiently(partial(client.get, "/props", model=served))
        limit = (properties.get("default_generation_settings") or {}).get("n_ctx")
        slots = int(properties.get("total_slots") or 1)
        tried = [LlamaCpp(served, tokenizer.encode("1")[0])]
    elif kind == "sglang":
        said = await _sglang_information(client)
        limits = [size - _SGLANG_KEEPS for size in (limit, said.get("max_total_num_tokens")) if size]
        limit = min(limits, default=None)
        tried = [SGLang(served, seeded=bool(said.get("enable_deterministic_inference")))]
    else:
        known: dict[str, list[Dialect]] = {"vllm-generate": [VLLMGenerate(served)]}
        both: list[Dialect] = [VLLMGenerate(served), VLLM(served)]  # another server may speak vLLM's language
        tried = known.get(kind) or (both if options.server_kind == "auto" else both[1:])
    context = [size for size in (options.context_length, limit) if size]
    if not context:
        raise ConfigError(f"{client.url} does not say how long its context is: give --context-length")
    named = "" if owner in _OWNERS or not owner else f" (of {owner!r})"
    ask = Ask(tokenizer.encode("1")[:1], 1, Sampling(), 0)
    dialect = await _answering(client, tried, ask, named)
    if isinstance(dialect, SGLang):
        dialect.raw_logprobs = await _gives_raw_logprobs(client, dialect, ask)
    return Server(dialect, min(context), slots)


def _chosen(client: Client, cards: Sequence[dict[str, Any]], model: str, *, by_name: bool) -> dict[str, Any]:
    """The model among those that are served. llama.cpp's single one is taken whatever it is called: by its file."""
    wanted = client.options.served_model or model
    found = next((card for card in cards if wanted in (card["id"], card.get("root"))), None)
    if found is None and not by_name and len(cards) == 1 and client.options.served_model is None:
        found = cards[0]
    if found is None:
        names = ", ".join(card["id"] for card in cards) or "nothing"
        raise ModelError(f"{client.url} does not serve {wanted!r} but {names}: name one with --served-model")
    return found


async def _compare_vocabulary(client: Client, tokenizer: Tokenizer, served: str) -> None:
    """Hold the server's vocabulary against the tokenizer's, on the ids of a text: ids mean nothing else."""
    body = {"model": served, "content": _SAMPLE, "with_pieces": True, "add_special": False}
    answer = await client.patiently(partial(client.post, "/tokenize", body))
    for token in answer.get("tokens", ()):
        theirs = token["piece"].encode() if isinstance(token["piece"], str) else bytes(token["piece"])
        ours = tokenizer.bytes_of([token["id"]])
        if theirs != ours:
            raise ModelError(
                f"the server at {client.url} has another vocabulary than --model: its token {token['id']} is "
                f"{theirs!r}, not {ours!r}; name the model that it serves, or its GGUF file"
            )


async def _sglang_information(client: Client) -> dict[str, Any]:
    """What SGLang says of itself; older versions know only the second route. Empty where it says nothing."""
    for route in ("/server_info", "/get_server_info"):
        try:
            answer = await client.patiently(partial(client.get, route))
        except EngineError:
            continue
        if isinstance(answer, dict):
            return answer
    return {}


async def _answering(client: Client, dialects: Sequence[Dialect], ask: Ask, named: str) -> Dialect:
    """The first dialect in which the server goes on with token ids."""
    refusal = ""
    for dialect in dialects:
        try:
            if await client.patiently(partial(_first_piece, client, dialect, ask)):
                return dialect
        except (RefusedError, NoIdsError) as error:
            refusal = str(error)
    raise ConfigError(
        f"the server at {client.url}{named} does not take and give token ids ({refusal or 'it gave none'}), "
        f"which start-agent works with: use {USABLE}"
    )


async def _gives_raw_logprobs(client: Client, dialect: Dialect, ask: Ask) -> bool:
    """Whether the log-probabilities of a server are those before the temperature: twice as high, it halves the
    distances between those after it."""
    spreads = list[float]()
    for temperature in (1.0, 2.0):
        warm = replace(ask, sampling=Sampling(temperature=temperature), num_logprobs=MAX_LOGPROBS)
        try:
            piece = await client.patiently(partial(_first_piece, client, dialect, warm))
        except EngineError:
            return False
        if piece is None or not piece.logprobs or not piece.logprobs[0].top:
            return False
        values = [value for _, value in piece.logprobs[0].top]
        spreads.append(values[0] - values[-1])
    return spreads[1] > 0.75 * spreads[0]


async def _first_piece(client: Client, dialect: Dialect, ask: Ask) -> Piece | None:
    """The first of an answer that has ids; None where none has."""
    async with aclosing(client.events(dialect.path, dialect.body(ask))) as events:
        async for event in events:
            piece = read(dialect, event, 0, ask.num_logprobs)
            if piece.token_ids:
                return piece
    return None
