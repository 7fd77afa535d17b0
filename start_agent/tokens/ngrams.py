"""Hashes of n-grams of token ids, for fast counting and comparing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_BASE = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, odd
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # SplitMix64 (Steele, Lea and Flood 2014)


def ngram_hashes(token_ids: Sequence[int], size: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A 64-bit hash of each n-gram of ``size`` tokens, in order; empty if there are fewer tokens.

    Equal n-grams have equal hashes; different ones collide with probability 1 in 2**64.
    """
    import numpy as np

    ids = np.asarray(token_ids, dtype=np.uint64)
    count = max(len(ids) - size + 1, 0)
    hashes = np.zeros(count, dtype=np.uint64)
    for at in range(size):
        hashes = hashes * np.uint64(_BASE) + _mixed(ids[at : at + count] + np.uint64(1))
    return _mixed(hashes)


def _mixed(numbers: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """SplitMix64's finalizer, which maps similar numbers to very different ones."""
    import numpy as np

    for shift, factor in zip((30, 27), _MIX, strict=True):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    mixed: np.ndarray[Any, np.dtype[np.uint64]] = numbers ^ (numbers >> np.uint64(31))
    return mixed
