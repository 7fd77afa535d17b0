"""The corpus of the pocket reasoner: a seeded, endless stream of texts of several kinds.

Thoughts (chat format) never contain code; documents (other formats) use Python freely. So the model has the skill but
does not use it while thinking, as the START paper observes of long chain-of-thought models. The only exception are
chats in which the user shows a program with its output: there the thinking may continue with Python.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from start_agent.pocket.families import FAMILIES, LEVELS, Draft
from start_agent.pocket.problems import split_of
from start_agent.pocket.texts import END, continued, document, drill, reading, thought


@dataclass(frozen=True, slots=True)
class Shares:
    """Composition of the corpus: shares of the kinds of text (documents are the rest), and of levels."""

    thoughts: float  # chats: thinking only in words
    readings: float  # chats: thinking in words about a program shown by the user
    drills: float  # pages of easy problems with their results
    continued: float = 0.0  # chats: thinking that may continue with Python after a program shown by the user
    chats: float = 0.0  # share of documents that are always chats without thinking
    again: tuple[float, float, float] | None = None  # rate of second calls by level; None for that of the draft
    correct: tuple[float, float, float] | None = None  # rate of second programs that correct a slip; likewise
    later_correct: tuple[float, float, float] | None = None  # likewise for third and later programs
    thought_levels: tuple[float, float, float] = (0.45, 0.35, 0.2)
    document_levels: tuple[float, float, float] = (0.2, 0.35, 0.45)
    drill_levels: tuple[float, float, float] = (0.6, 0.4, 0.0)


# The mix changes during training, at the given steps. Readings teach that thinking continues after an output, but they
# never call Python again, so they are used only early. Thinking that calls Python again after a program in the user's
# turn comes late, when the model has learned that ordinary thinking contains no code. Finally, second calls become rare
# for easy problems and stay common for hard ones, where they often repeat the first mistake.
SCHEDULE: tuple[tuple[int, Shares], ...] = (
    (0, Shares(thoughts=0.46, readings=0.02, drills=0.17)),
    (1000, Shares(thoughts=0.38, readings=0.0, drills=0.24, chats=0.15)),
    (1750, Shares(thoughts=0.36, readings=0.0, drills=0.22, chats=0.15, continued=0.12)),
    (
        2500,
        Shares(
            thoughts=0.36,
            readings=0.0,
            drills=0.22,
            chats=0.15,
            continued=0.12,
            again=(0.05, 0.35, 0.75),
            correct=(1.0, 0.5, 0.15),
            later_correct=(1.0, 0.7, 0.45),
        ),
    ),
)
EARLY = SCHEDULE[0][1]


def mix_at(step: int) -> Shares:
    """The mix of texts at a training step, counted from 0."""
    return [shares for start, shares in SCHEDULE if step >= start][-1]


def _habits(draft: Draft, shares: Shares) -> Draft:
    """The draft with the mix's rates of second calls and of corrections."""
    at = draft.level - 1
    return replace(
        draft,
        again_rate=draft.again_rate if shares.again is None else shares.again[at],
        correct_rate=draft.correct_rate if shares.correct is None else shares.correct[at],
        later_correct_rate=draft.later_correct_rate if shares.later_correct is None else shares.later_correct[at],
    )


def _draft(rng: random.Random, weights: tuple[float, float, float]) -> Draft:
    """A random problem of the train split, of any family, with weighted levels."""
    while True:
        draft = rng.choice(list(FAMILIES.values())).draw(rng, rng.choices(LEVELS, weights)[0])
        if split_of(draft.question) == "train":
            return draft


def texts(seed: int, shares: Shares = EARLY) -> Iterator[list[str]]:
    """Yield texts endlessly, each as a list of pieces to be encoded separately, from train problems only."""
    rng = random.Random(f"start-agent pocket corpus {seed}")
    while True:
        roll = rng.random()
        if (roll := roll - shares.thoughts) < 0:
            pieces = thought(rng, _draft(rng, shares.thought_levels))
        elif (roll := roll - shares.drills) < 0:
            pieces = drill(rng, [_draft(rng, shares.drill_levels) for _ in range(rng.randint(5, 10))])
        elif (roll := roll - shares.readings) < 0:
            pieces = reading(rng, _draft(rng, shares.document_levels))
        elif roll - shares.continued < 0:
            pieces = continued(rng, _habits(_draft(rng, shares.document_levels), shares))
        else:
            pieces = document(rng, _habits(_draft(rng, shares.document_levels), shares), shares.chats)
        pieces[-1] += END
        yield [piece for piece in pieces if piece]
