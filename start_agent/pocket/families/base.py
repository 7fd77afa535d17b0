"""What a family of problems gives: the question, its answer, and everything a text about it may say."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

LEVELS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Draft:
    """One problem with the material that the corpus makes thoughts and documents from.

    `claim` is a sentence part that states the result, with `{n}` where the number stands ("3 * 4 = {n}").
    `steps` are true statements of intermediate results, in order (often none).
    `programs` print the answer; `checks` print it by another way; each stands alone.
    `slips` are programs with a mistake that people naturally make; those may print a wrong number.
    `stages` are programs to be run one after another in one kernel, the last of which prints the answer.
    `broken` are programs that fail with an error (a forgotten import, a name that is not there).
    `slip_rate` is the share of documents whose first program is a slip, `mend_rate` the share of those whose
    second program is right, `later_mend_rate` the same of third and later programs, `again_rate` the share of
    documents that run a second program at all.
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
    mend_rate: float = 1.0
    again_rate: float = 0.5
    later_mend_rate: float = 0.75


@dataclass(frozen=True, slots=True)
class Family:
    """A name, the function that draws one problem at a level, and a line on what the levels mean."""

    name: str
    draw: Callable[[random.Random, int], Draft]
    about: str


# How often a document checks its first program, by level: people check hard problems more often.
AGAIN = {1: 0.4, 2: 0.7, 3: 0.9}
# How often the second program, once the first has slipped, gets it right. Hard problems fool people twice.
MEND = {1: 1.0, 2: 0.85, 3: 0.3}


def number(rng: random.Random, digits: int) -> int:
    """A whole number with exactly `digits` decimal digits."""
    return rng.randint(10 ** (digits - 1) if digits > 1 else 2, 10**digits - 1)
