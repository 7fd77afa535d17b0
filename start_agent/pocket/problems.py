"""Problems with integer answers, drawn by family and level, and split by the hash of the question.

    >>> [p.question for p in generate(seed=1, count=2, families=["products"], levels=[1])]  # doctest: +SKIP
    ['What is 7 * 12?', 'Compute 3 * 9.']

A question belongs to exactly one split, independent of the seed, so that splits never overlap: "held-out" is a tenth of
all questions (for benchmarks), "dev" another tenth (for choosing settings), and "train" the rest, from which alone the
corpus is made.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

from start_agent.pocket.families import FAMILIES, LEVELS, Draft
from start_agent.problem import Problem

Split = Literal["train", "dev", "held-out"]
_TRIES = 2000  # consecutive draws that repeat or belong to another split, after which a cell counts as exhausted


def split_of(question: str) -> Split:
    """The split of a question, from the first 8 hex digits of its key (its sha256) modulo 10."""
    bucket = int(Problem(question, "").key[:8], 16) % 10
    return "held-out" if bucket == 0 else "dev" if bucket == 1 else "train"


def drafts(
    seed: int,
    split: Split = "train",
    families: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
) -> Iterator[Draft]:
    """Yield distinct drafts, alternating families and levels, until all are exhausted."""
    rng = random.Random(f"start-agent pocket problems {seed}")
    cells = [(family, level) for level in levels or LEVELS for family in families or FAMILIES]
    for family, level in cells:
        if family not in FAMILIES or level not in LEVELS:
            known = ", ".join(FAMILIES)
            raise ValueError(f"no family {family!r} with level {level}; families: {known}; levels: 1 to 3")
    seen: set[str] = set()
    while cells:
        for cell in list(cells):
            for _ in range(_TRIES):
                draft = FAMILIES[cell[0]].draw(rng, cell[1])
                if draft.question not in seen and split_of(draft.question) == split:
                    seen.add(draft.question)
                    yield draft
                    break
            else:
                cells.remove(cell)


def generate(
    seed: int,
    count: int,
    split: Split = "train",
    families: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
) -> list[Problem]:
    """`count` distinct problems of a split, balanced over families and levels; fewer if there are no more.

    Their ``meta`` has the ``level``, and the family as the ``subject``.
    """
    return [
        Problem(draft.question, str(draft.answer), meta={"level": draft.level, "subject": draft.family})
        for draft in islice(drafts(seed, split, families, levels), count)
    ]


def held_out(count: int = 500, seed: int = 0) -> list[Problem]:
    """Problems for benchmarks: distinct, balanced over families and levels, never in the corpus."""
    return generate(seed, count, split="held-out")
