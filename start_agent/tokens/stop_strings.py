"""Finds stop strings, which end an answer, in a stream of bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence


class StopStrings:
    """Finds the first stop string in a text that is read in pieces.

    Args:
        strings: the stop strings, none of them empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(string.encode(errors="replace") for string in strings)
        self._longest = max(map(len, self._strings), default=0)
        firsts = b"".join(sorted({string[:1] for string in self._strings}))
        self._first = re.compile(b"[" + re.escape(firsts) + b"]" if firsts else rb"(?!)")
        self._tail = b""

    def __bool__(self) -> bool:
        return bool(self._strings)

    def read(self, text: bytes) -> int | None:
        """Read the next piece.

        Returns:
            If this piece completes a stop string, how many bytes before the end of the text so far the first one
            begins; otherwise None.
        """
        window = self._tail + text
        begins = [at for string in self._strings if (at := window.find(string)) >= 0]
        self._tail = window[max(0, len(window) - self._longest + 1) :]
        return len(window) - min(begins) if begins else None

    @property
    def begun(self) -> int:
        """How many of the last bytes may be the beginning of a stop string."""
        tail = self._tail
        for found in self._first.finditer(tail):  # the longest first
            if any(string.startswith(tail[found.start() :]) for string in self._strings):
                return len(tail) - found.start()
        return 0

    def clear(self) -> None:
        """Start with a new text."""
        self._tail = b""


def before_stop(text: bytes, strings: Sequence[str]) -> bytes:
    """A text up to the first stop string in it; all of it if there is none."""
    begins = [at for string in strings if (at := text.find(string.encode(errors="replace"))) >= 0]
    return text[: min(begins)] if begins else text
