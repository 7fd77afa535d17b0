"""The log-probabilities in servers' answers, each kind's form of them.

Whatever a server sends in place of them ends as one of the errors that ``dialects.read`` turns into an ``EngineError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from start_agent.logprobs import TokenLogprob, likeliest, token_logprob


class Place(NamedTuple):
    """What a server says of one token: its log-probability, and those of the likeliest by their ids."""

    token_id: int
    logprob: float
    top: dict[int, float]


def aligned(token_ids: list[int], places: Iterable[Place], number: int) -> list[TokenLogprob]:
    """One for each id, with so many of the likeliest.

    Raises:
        ValueError, TypeError: they are of other tokens, or no numbers.
    """
    found = list(places)
    if [place.token_id for place in found] != token_ids:
        raise ValueError("the log-probabilities are of other tokens")
    return [
        token_logprob(float(place.logprob), likeliest({one: float(value) for one, value in place.top.items()}, number))
        for place in found
    ]


def completion_places(logprobs: dict[str, Any]) -> Iterator[Place]:
    """Of vLLM's /v1/completions, asked for ids in place of texts: three columns."""
    columns = (logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs"))
    for token, logprob, top in zip(*columns, strict=True):
        yield Place(_vllm_id(token), logprob, {_vllm_id(one): value for one, value in (top or {}).items()})


def generate_places(logprobs: dict[str, Any]) -> Iterator[Place]:
    """Of vLLM's /inference/v1/generate: objects with ids, which in earlier versions are text as on the other route."""

    def id_of(said: dict[str, Any]) -> int:
        return said["token_id"] if "token_id" in said else _vllm_id(said["token"])

    for place in logprobs["content"]:
        top = {id_of(one): one["logprob"] for one in place.get("top_logprobs") or ()}
        yield Place(id_of(place), place["logprob"], top)


def sglang_places(meta: dict[str, Any], new: int) -> Iterator[Place]:
    """Of SGLang's /generate, the last ones: an event holds those of all tokens so far, or of the new ones alone."""
    tokens = meta["output_token_logprobs"]
    tops = meta.get("output_top_logprobs") or [None] * len(tokens)
    for (logprob, token_id, *_), top in list(zip(tokens, tops, strict=True))[len(tokens) - new :]:
        yield Place(token_id, logprob, {one: value for value, one, *_ in top or ()})


def llama_places(probabilities: list[dict[str, Any]]) -> Iterator[Place]:
    """Of llama.cpp's /completion."""
    for place in probabilities:
        yield Place(place["id"], place["logprob"], {one["id"]: one["logprob"] for one in place["top_logprobs"]})


def _vllm_id(said: str) -> int:
    """An id as vLLM writes it in place of a token's text: ``token_id:42``."""
    return int(said.removeprefix("token_id:"))
