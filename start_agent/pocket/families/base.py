"""The classes ``Family`` and ``Draft``: a problem with the material for texts about it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

LEVELS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Draft:
    """A problem with the material from which the corpus makes thoughts and documents.

    `claim` is a clause that states the result, with `{n}` as the placeholder of the number ("3 * 4 = {n}").
    `steps` are correct intermediate results, in order (often none).
    `programs` print the answer; `checks` print it in another way; each is self-contained.
    `slips` are programs with a typical mistake, which may print a wrong number.
    `stages` are programs to run one after another in one kernel; the last one prints the answer.
    `broken` are programs that raise an error (a missing import, an undefined name).
    `slip_rate` is the share of documents whose first program is a slip, `correct_rate` the share of these whose
    second program is correct, `later_correct_rate` the same for third and later programs, and `again_rate` the
    share of documents with a second program.
    """

    family: str
    level: int
    question: str
    answer: int
    claim: str
    programs: tuple[str, ...]
    checks: tuple[str, ...]
    steps: tuple[str, ...] = ()
    slips: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    slip_rate: float = 0.0
    correct_rate: float = 1.0
    again_rate: float = 0.5
    later_correct_rate: float = 0.75


@dataclass(frozen=True, slots=True)
class Family:
    """A family of problems: its name, a function that draws a problem of a level, and a short description."""

    name: str
    draw: Callable[[random.Random, int], Draft]
    about: str


# How often a document checks its first program, by level: hard problems are checked more often.
AGAIN = {1: 0.4, 2: 0.7, 3: 0.9}
# How often the second program corrects a slip of the first one, by level. In hard problems slips are often repeated.
CORRECT = {1: 1.0, 2: 0.85, 3: 0.3}


def number(rng: random.Random, digits: int) -> int:
    """A random integer with exactly `digits` decimal digits."""
    return rng.randint(10 ** (digits - 1) if digits > 1 else 2, 10**digits - 1)
