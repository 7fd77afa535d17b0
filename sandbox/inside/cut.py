"""Cuts the middle out of texts that are too long. Used on both sides."""

from __future__ import annotations

import re

_CUT = re.compile(r"^\[\.\.\. [\d,]+ characters cut \.\.\.\]$", re.MULTILINE)
_MOST = 16_384
LINE_CHARS = 64
"""Room for the line that states the cut."""


def was_cut(text: str) -> bool:
    """Whether a text contains the line that ``cut_middle`` inserts at a cut."""
    return _CUT.search(text) is not None


def most_chars(output_chars: int) -> int:
    """Characters kept of a value or an error: half of what the model reads, at most 16,384."""
    return min(output_chars // 2, _MOST)


def cut_middle(head: str, tail: str, limit: int, omitted: int = 0) -> tuple[str, bool]:
    """Head and tail joined in at most `limit` characters plus a line that states the cut.

    Args:
        head: the text, or its beginning if characters were dropped already.
        tail: the end of the text.
        limit: characters to keep, half of them from the beginning and half from the end.
        omitted: characters already dropped between head and tail.

    Returns:
        The text, and whether anything is missing from it.
    """
    text = head + tail
    if not omitted and len(text) <= limit:
        return text, False
    if len(text) > limit:
        if not omitted:
            head, tail = text, text
        first, last = head[: (limit + 1) // 2], tail[-(limit // 2) :] if limit // 2 else ""
        omitted += len(text) - len(first) - len(last)
        head, tail = first, last
    return f"{head}\n[... {omitted:,} characters cut ...]\n{tail}", True
