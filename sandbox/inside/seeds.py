"""Seeds the random number generators of a kernel, which would otherwise all start in the zygote's state."""

from __future__ import annotations

import random
import secrets
import sys

_SEEDED = ("random", "numpy.random", "sympy.core.random")  # each has its own generator, and a function `seed`


def apply(seed: int | None) -> None:
    """Seed all generators that are loaded.

    Args:
        seed: 32 bits, the most that numpy accepts; None for the system's randomness. With a number, generators that
            code creates without a seed (``numpy.random.default_rng()``) are derived from it as well.
    """
    for name in _SEEDED:
        if name in sys.modules:
            sys.modules[name].seed(seed)
    if "numpy.random" in sys.modules:
        entropy = secrets.randbits if seed is None else random.Random(seed).getrandbits
        sys.modules["numpy.random.bit_generator"].randbits = entropy  # type: ignore[attr-defined]
