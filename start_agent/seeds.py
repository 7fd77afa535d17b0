"""Seeds derived from one seed: reproducible on all platforms, independent of each other."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose: the first 63 bits of the SHA-256 of the parent seed and the purpose's name."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
