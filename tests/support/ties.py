"""Compares greedy traces of the same questions, which may differ only where two tokens are almost equally likely."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from start_agent.trace import SpanKind, Trace

NEAR_TIE = 1e-3
"""Logits that are closer than this may change places when a batch of another shape rounds differently."""


def equal_or_parting_at_near_ties(ours: Sequence[Trace], theirs: Sequence[Trace], model_path: str) -> int:
    """Assert it, pair by pair; returns how many part. The model is loaded in float32 where one does."""
    import torch
    from transformers import AutoModelForCausalLM

    model = None
    parted = 0
    for one, other in zip(ours, theirs, strict=True):
        pairs = zip_longest(one.token_ids, other.token_ids)
        place = next((place for place, pair in enumerate(pairs) if pair[0] != pair[1]), None)
        if place is None:
            assert [(span.kind, span.token_ids) for span in one.spans] == [
                (span.kind, span.token_ids) for span in other.spans
            ]
            continue
        parted += 1
        assert place < min(len(one.token_ids), len(other.token_ids))
        assert _kind_at(one, place) is _kind_at(other, place) is SpanKind.MODEL
        model = model or AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
        with torch.inference_mode():
            logits = model(torch.tensor([one.token_ids[:place]])).logits[0, -1]
        gap = abs(float(logits[one.token_ids[place]] - logits[other.token_ids[place]]))
        assert gap < NEAR_TIE, f"{one.meta['question']!r} parts at token {place}, where the logits are {gap} apart"
    return parted


def _kind_at(trace: Trace, place: int) -> SpanKind:
    """Who wrote the token at this place."""
    for span in trace.spans:
        if place < len(span.token_ids):
            return span.kind
        place -= len(span.token_ids)
    raise IndexError(place)
