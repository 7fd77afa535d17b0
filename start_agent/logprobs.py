"""Log-probabilities of the tokens that a model writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

MAX_LOGPROBS = 20
"""Maximum number of top log-probabilities per token, as in OpenAI's API and by default in vLLM."""

LOWEST = -9999.0
"""Replaces minus infinity, which JSON does not have; vLLM's server uses the same value."""

_DIGITS = 6  # float32 has no more certain digits, and stored traces stay small


class TokenLogprob(NamedTuple):
    """The log-probability of a sampled token, and of the most likely tokens at its position.

    Natural logarithms of the model's raw distribution, before temperature and filters (``raw_logprobs`` in vLLM).

    Attributes:
        logprob: log-probability of the sampled token, from ``LOWEST`` to 0.
        top: the most likely token ids with their log-probabilities, in descending order; as many as requested. It
            contains the sampled token only if that is one of them.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(logprob: float, top: Iterable[tuple[int, float]] = ()) -> TokenLogprob:
    """Build from an engine's values: clipped to the bounds and rounded, with ``LOWEST`` for NaN."""
    return TokenLogprob(_bounded(logprob), tuple((token_id, _bounded(value)) for token_id, value in top))


def likeliest(candidates: Mapping[int, float], number: int) -> list[tuple[int, float]]:
    """The most likely of the candidates, in descending order of log-probability."""
    return sorted(candidates.items(), key=lambda item: -item[1])[:number]


def logprobs_to_json(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """``logprobs``, one number per token; and ``top_logprobs``, pairs of id and number per token, if there are any."""
    found: dict[str, Any] = {"logprobs": [one.logprob for one in logprobs]}
    if any(one.top for one in logprobs):
        found["top_logprobs"] = [[list(pair) for pair in one.top] for one in logprobs]
    return found


def logprobs_from_json(data: Mapping[str, Any]) -> tuple[TokenLogprob, ...] | None:
    """Read what ``logprobs_to_json`` wrote; None if there are no log-probabilities.

    Raises:
        TypeError, ValueError: a field has the wrong type, or the lengths differ.
    """
    if "logprobs" not in data:
        return None
    numbers = [_number(value) for value in data["logprobs"]]
    tops = data.get("top_logprobs", [()] * len(numbers))
    return tuple(
        TokenLogprob(number, tuple((_token_id(token_id), _number(value)) for token_id, value in top))
        for number, top in zip(numbers, tops, strict=True)
    )


def _bounded(logprob: float) -> float:
    # The order of arguments maps NaN to LOWEST; adding 0.0 turns -0.0 into 0.0.
    return round(min(0.0, max(LOWEST, logprob)), _DIGITS) + 0.0


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not LOWEST <= value <= 0:
        raise ValueError(f"expected a log-probability, found {value!r:.40}")
    return float(value)


def _token_id(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a token id, found {value!r:.40}")
    return value
