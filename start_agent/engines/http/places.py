"""Reads the log-probabilities in the responses of each kind of server.

Invalid data raises one of the errors that ``dialects.read`` converts to an ``EngineError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from start_agent.logprobs import TokenLogprob, likeliest, token_logprob


class Place(NamedTuple):
    """The log-probability of one token, and those of the likeliest tokens by id."""

    token_id: int
    logprob: float
    top: dict[int, float]


def aligned(token_ids: list[int], places: Iterable[Place], number: int) -> list[TokenLogprob]:
    """One log-probability for each id, with ``number`` of the likeliest tokens.

    Raises:
        ValueError, TypeError: they belong to other tokens, or are not numbers.
    """
    found = list(places)
    if [place.token_id for place in found] != token_ids:
        raise ValueError("the log-probabilities belong to other tokens")
    return [
        token_logprob(float(place.logprob), likeliest({one: float(value) for one, value in place.top.items()}, number))
        for place in found
    ]


def completion_places(logprobs: dict[str, Any]) -> Iterator[Place]:
    """From vLLM's /v1/completions with ids in place of texts: three columns."""
    columns = (logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs"))
    for token, logprob, top in zip(*columns, strict=True):
        yield Place(_vllm_id(token), logprob, {_vllm_id(one): value for one, value in (top or {}).items()})


def generate_places(logprobs: dict[str, Any]) -> Iterator[Place]:
    """From vLLM's /inference/v1/generate: objects with ids, in earlier versions as text like on the other route."""

    def id_of(entry: dict[str, Any]) -> int:
        return entry["token_id"] if "token_id" in entry else _vllm_id(entry["token"])

    for place in logprobs["content"]:
        top = {id_of(one): one["logprob"] for one in place.get("top_logprobs") or ()}
        yield Place(id_of(place), place["logprob"], top)


def sglang_places(meta: dict[str, Any], new: int) -> Iterator[Place]:
    """From SGLang's /generate, the last ``new`` ones: an event has those of all tokens so far, or only the new ones."""
    tokens = meta["output_token_logprobs"]
    tops = meta.get("output_top_logprobs") or [None] * len(tokens)
    for (logprob, token_id, *_), top in list(zip(tokens, tops, strict=True))[len(tokens) - new :]:
        yield Place(token_id, logprob, {one: value for value, one, *_ in top or ()})


def llama_places(probabilities: list[dict[str, Any]]) -> Iterator[Place]:
    """From llama.cpp's /completion."""
    for place in probabilities:
        yield Place(place["id"], place["logprob"], {one["id"]: one["logprob"] for one in place["top_logprobs"]})


def _vllm_id(text: str) -> int:
    """An id that vLLM writes in place of a token's text: ``token_id:42``."""
    return int(text.removeprefix("token_id:"))
