"""Samples tokens from logits, and computes log-probabilities, with settings and seeds per row of a batch."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from start_agent.engines.base import Sampling
from start_agent.logprobs import TokenLogprob, token_logprob


def sample(logits: torch.Tensor, settings: Sequence[Sampling], randoms: Sequence[random.Random]) -> list[int]:
    """Sample one token per row.

    Each row with a temperature draws one uniform number from its own generator, so its token does not depend on the
    other rows.

    Args:
        logits: (rows, vocabulary).
        settings: one per row.
        randoms: one per row; not used by greedy rows.
    """
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    drawn = [row for row, setting in enumerate(settings) if setting.temperature > 0]
    if drawn:
        # Sums over a large vocabulary need float64, which mps lacks, so the CPU draws for it.
        chosen = logits[drawn].float() if logits.device.type != "mps" else logits[drawn].cpu().float()
        uniform = torch.tensor([randoms[row].random() for row in drawn], dtype=torch.float64, device=chosen.device)
        picked = _draw(chosen, [settings[row] for row in drawn], uniform)
        for row, token in zip(drawn, picked.tolist(), strict=True):
            tokens[row] = token
    return tokens


def logprobs_of(logits: torch.Tensor, tokens: Sequence[int], numbers: Sequence[int]) -> list[TokenLogprob]:
    """The log-probabilities of one token per row, and of each row's likeliest tokens.

    Args:
        logits: (rows, vocabulary), as the model returned them.
        tokens: the sampled token of each row.
        numbers: for each row, how many of the likeliest tokens to include.
    """
    if logits.device.type == "mps":
        logits = logits.cpu()  # in some versions its topk is limited to 16
    logprobs = logits.log_softmax(dim=-1, dtype=torch.float32)
    chosen = logprobs[range(len(tokens)), list(tokens)].tolist()
    values, ids = logprobs.topk(min(max(numbers), logprobs.shape[-1]), dim=-1)
    tops = zip(ids.tolist(), values.tolist(), strict=True)
    return [
        token_logprob(logprob, zip(row_ids[:number], row_values[:number], strict=True))
        for logprob, number, (row_ids, row_values) in zip(chosen, numbers, tops, strict=True)
    ]


def _draw(logits: torch.Tensor, settings: Sequence[Sampling], uniform: torch.Tensor) -> torch.Tensor:
    """Inverse-transform sampling from the filtered distributions; one uniform number per row, in [0, 1)."""

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=logits.device)[:, None]

    probabilities = (logits / column([setting.temperature for setting in settings])).softmax(dim=-1)
    order = None
    if any(setting.top_p < 1 or setting.top_k or setting.min_p for setting in settings):
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(probabilities.shape[-1], device=logits.device)
        likely_enough = probabilities >= column([setting.min_p for setting in settings]) * probabilities[:, :1]
        within_k = rank < column([setting.top_k or probabilities.shape[-1] for setting in settings])
        probabilities = probabilities * (likely_enough & within_k)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
        # A token is in the nucleus if those before it do not reach top_p; the likeliest always is.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities * (before < column([setting.top_p for setting in settings]))
    cumulative = probabilities.double().cumsum(dim=-1)
    index = torch.searchsorted(cumulative, (uniform[:, None] * cumulative[:, -1:]), right=True)
    # Rounding may move the number past the last token with a positive probability.
    last = (probabilities > 0).long().cumsum(dim=-1).argmax(dim=-1, keepdim=True)
    index = torch.minimum(index, last)
    return (index if order is None else order.gather(-1, index)).squeeze(-1)
