"""The generators of random numbers in a kernel. Each fork begins with the zygote's state: they must be seeded anew."""

from __future__ import annotations

import random
import secrets
import sys

_SEEDED = ("random", "numpy.random", "sympy.core.random")  # each has random numbers of its own, and a function `seed`


def apply(seed: int | None) -> None:
    """Seed all generators that are loaded.

    Args:
        seed: 32 bits, for numpy takes no more; None for the system's own randomness. With a number, generators that
            code makes with no seed of its own (``numpy.random.default_rng()``) follow from it as well.
    """
    for name in _SEEDED:
        if name in sys.modules:
            sys.modules[name].seed(seed)
    if "numpy.random" in sys.modules:
        entropy = secrets.randbits if seed is None else random.Random(seed).getrandbits
        sys.modules["numpy.random.bit_generator"].randbits = entropy  # type: ignore[attr-defined]
