"""Log-probabilities in OpenAI's format."""

from __future__ import annotations

from typing import Any

from start_agent.decoding.segments import Segment
from start_agent.tokens.tokenizer import Tokenizer


def logprob_rows(segment: Segment, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """One object per token of a segment, with the most likely tokens; empty if none were recorded."""
    if not segment.logprobs:
        return []
    return [
        {
            **_token(tokenizer, token_id, one.logprob),
            "top_logprobs": [_token(tokenizer, other, logprob) for other, logprob in one.top],
        }
        for token_id, one in zip(segment.token_ids, segment.logprobs, strict=True)
    ]


def _token(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    """A token with its bytes, which may end within a character; its text then has a replacement character."""
    data = tokenizer.bytes_of((token_id,))
    return {"token": data.decode("utf-8", errors="replace"), "bytes": list(data), "logprob": logprob}
