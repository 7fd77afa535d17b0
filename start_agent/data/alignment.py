"""Where, to the token, things stand in a span: the fence of a hint, the connective before it.

A span's tokens cut its text anywhere. What is asked here is always "which tokens hold these bytes", found from the
bytes of the tokens that are there; nothing is encoded again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from hints import OPENING_FENCE
from start_agent.tokens.markers import CONNECTIVES
from start_agent.tokens.stopping import StopKind
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import Span, SpanKind, Trace


@dataclass(frozen=True, slots=True)
class Place:
    """Tokens ``begin`` to ``end`` (exclusive) of a span hold all the bytes that were looked for.

    ``clean_begin``, ``clean_end``: whether the first (last) of them holds nothing else before (after) those bytes.
    """

    begin: int
    end: int
    clean_begin: bool
    clean_end: bool

    @property
    def clean(self) -> bool:
        """Whether the tokens hold those bytes and no others."""
        return self.clean_begin and self.clean_end

    @property
    def inner(self) -> range:
        """The tokens that hold nothing else."""
        return range(self.begin + (not self.clean_begin), self.end - (not self.clean_end))


def place_of(token_ids: Sequence[int], begin: int, end: int, tokenizer: Tokenizer) -> Place:
    """The tokens that hold the bytes ``begin`` to ``end`` of what the ids spell; at least one byte is asked for."""
    edges = list(accumulate((len(tokenizer.bytes_of((token_id,))) for token_id in token_ids), initial=0))
    first = next(at for at in range(len(token_ids)) if edges[at + 1] > begin)
    last = next(at for at in range(first, len(token_ids)) if edges[at + 1] >= end)
    return Place(first, last + 1, edges[first] == begin, edges[last + 1] == end)


def fence_of(hint: Span, tokenizer: Tokenizer, opening: str = OPENING_FENCE) -> Place | None:
    """What opens the code of a hint (```` ```python ```` and its line break); None of one that opens no code.

    What follows it, the comment of a debug hint's template, is no part of it. ``opening`` is that of the dialect.
    """
    fence = opening.encode()
    at = tokenizer.bytes_of(hint.token_ids).rfind(fence)
    return None if at < 0 else place_of(hint.token_ids, at, at + len(fence), tokenizer)


def connective_of(trace: Trace, at: int, tokenizer: Tokenizer) -> int | None:
    """Where, in the model span ``at``, the connective begins that a hint follows; None where it ends otherwise.

    The connective ends the span: its tokens are all from the one returned on. One that also holds text before the
    word, as ``. Wait`` might, counts as one of them.
    """
    span = trace.spans[at]
    follows = at + 1 < len(trace.spans) and trace.spans[at + 1].kind is SpanKind.HINT
    if span.kind is not SpanKind.MODEL or span.cause != StopKind.CONNECTIVE or not follows:
        return None
    words: Iterable[str] = trace.meta.get("settings", {}).get("connectives", CONNECTIVES)
    pattern = b"|".join(re.escape(word.encode()) for word in words)
    found = list(re.finditer(pattern, tokenizer.bytes_of(span.token_ids))) if pattern else []
    return place_of(span.token_ids, *found[-1].span(), tokenizer).begin if found else None
