"""Maps text to tokens within a span: the fence of a hint, the connective before it.

Token boundaries may be anywhere in the text. The tokens that contain given bytes are found from the bytes of the
existing tokens; nothing is encoded again.
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
    """The tokens ``begin`` to ``end`` (exclusive) of a span, which contain the bytes searched for.

    ``clean_begin``, ``clean_end``: whether the first (last) token contains no other bytes before (after) these.
    """

    begin: int
    end: int
    clean_begin: bool
    clean_end: bool

    @property
    def clean(self) -> bool:
        """Whether the tokens contain exactly these bytes."""
        return self.clean_begin and self.clean_end

    @property
    def inner(self) -> range:
        """The tokens that contain only these bytes."""
        return range(self.begin + (not self.clean_begin), self.end - (not self.clean_end))


def place_of(token_ids: Sequence[int], begin: int, end: int, tokenizer: Tokenizer) -> Place:
    """The tokens that contain the bytes ``begin`` to ``end`` (a non-empty range) of the text of the ids."""
    edges = list(accumulate((len(tokenizer.bytes_of((token_id,))) for token_id in token_ids), initial=0))
    first = next(at for at in range(len(token_ids)) if edges[at + 1] > begin)
    last = next(at for at in range(first, len(token_ids)) if edges[at + 1] >= end)
    return Place(first, last + 1, edges[first] == begin, edges[last + 1] == end)


def fence_of(hint: Span, tokenizer: Tokenizer, opening: str = OPENING_FENCE) -> Place | None:
    """The opening of a hint's code (```` ```python ```` and its line break); None if it opens no code.

    The comment after it in a debug hint is not part of the opening. ``opening`` is the text of the dialect.
    """
    fence = opening.encode()
    at = tokenizer.bytes_of(hint.token_ids).rfind(fence)
    return None if at < 0 else place_of(hint.token_ids, at, at + len(fence), tokenizer)


def connective_of(trace: Trace, at: int, tokenizer: Tokenizer) -> int | None:
    """The first token of the connective at the end of model span ``at``; None if no connective and hint end it.

    The connective consists of all tokens from the returned one on. A token that also contains text before the word,
    such as ``. Wait``, counts as part of it.
    """
    span = trace.spans[at]
    follows = at + 1 < len(trace.spans) and trace.spans[at + 1].kind is SpanKind.HINT
    if span.kind is not SpanKind.MODEL or span.cause != StopKind.CONNECTIVE or not follows:
        return None
    words: Iterable[str] = trace.meta.get("settings", {}).get("connectives", CONNECTIVES)
    pattern = b"|".join(re.escape(word.encode()) for word in words)
    found = list(re.finditer(pattern, tokenizer.bytes_of(span.token_ids))) if pattern else []
    return place_of(span.token_ids, *found[-1].span(), tokenizer).begin if found else None
