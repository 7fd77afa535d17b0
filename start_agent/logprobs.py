"""Log-probabilities of the tokens that a model writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

MAX_LOGPROBS = 20
"""The most of the likeliest tokens that can be asked for, as of vLLM and of OpenAI's API by default."""

LOWEST = -9999.0
"""In place of minus infinity, which JSON does not have: what vLLM's server writes."""

_DIGITS = 6  # of float32 no more are certain, and stored traces stay small


class TokenLogprob(NamedTuple):
    """The log-probability of a token that was sampled, and of the likeliest tokens in its place.

    Natural logarithms of the model's own distribution: before temperature, filters and whatever else decides what is
    sampled (``raw_logprobs`` in vLLM).

    Attributes:
        logprob: of the sampled token; from ``LOWEST`` to 0.
        top: the likeliest tokens with their log-probabilities, the likeliest first; as many as were asked for. The
            sampled token is among them only where it is one of the likeliest.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(logprob: float, top: Iterable[tuple[int, float]] = ()) -> TokenLogprob:
    """From what an engine computes: within the bounds, rounded, and ``LOWEST`` for what is no number."""
    return TokenLogprob(_bounded(logprob), tuple((token_id, _bounded(value)) for token_id, value in top))


def likeliest(candidates: Mapping[int, float], number: int) -> list[tuple[int, float]]:
    """The likeliest of some tokens, by their log-probabilities, the likeliest first."""
    return sorted(candidates.items(), key=lambda item: -item[1])[:number]


def logprobs_to_json(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """``logprobs``, a number for each token; and ``top_logprobs``, its pairs of id and number, where there are any."""
    found: dict[str, Any] = {"logprobs": [one.logprob for one in logprobs]}
    if any(one.top for one in logprobs):
        found["top_logprobs"] = [[list(pair) for pair in one.top] for one in logprobs]
    return found


def logprobs_from_json(data: Mapping[str, Any]) -> tuple[TokenLogprob, ...] | None:
    """What ``logprobs_to_json`` wrote; None where there are none.

    Raises:
        TypeError, ValueError: a field of another type, or of another length than the other.
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
    # In this order, so that a NaN loses each comparison; the sum turns -0.0 into 0.0.
    return round(min(0.0, max(LOWEST, logprob)), _DIGITS) + 0.0


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not LOWEST <= value <= 0:
        raise ValueError(f"expected a log-probability, found {value!r:.40}")
    return float(value)


def _token_id(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a token id, found {value!r:.40}")
    return value
