"""The corpus: a seeded, endless stream of texts in the shares that make the pocket reasoner what it is.

Thoughts (chat format) never hold code; documents (other formats) use Python freely. So the skill is there and
is not used inside thinking: what the START paper says of long chain-of-thought models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from start_agent.pocket.families import FAMILIES, LEVELS, Draft
from start_agent.pocket.problems import split_of
from start_agent.pocket.texts import END, continued, document, drill, reading, thought


@dataclass(frozen=True, slots=True)
class Shares:
    """How the corpus is made up: shares of the kinds of text, and of the levels within each kind."""

    thoughts: float
    readings: float
    drills: float
    chats: float = 0.0  # of the documents: beyond the plain headers, those that are chats without thinking
    continued: float = 0.0
    thought_levels: tuple[float, float, float] = (0.45, 0.35, 0.2)
    document_levels: tuple[float, float, float] = (0.2, 0.35, 0.45)
    drill_levels: tuple[float, float, float] = (0.6, 0.4, 0.0)


# The mix changes as training goes on. Readings teach that thinking goes on after an output, but they never call
# Python again; so they end early. Thinking that calls Python again after a program in the user's turn comes last,
# once it is firmly learned that plain thinking holds no code.
EARLY = Shares(thoughts=0.46, readings=0.02, drills=0.17)
MIDDLE = Shares(thoughts=0.38, readings=0.0, drills=0.24, chats=0.15)
LATE = Shares(thoughts=0.36, readings=0.0, drills=0.22, chats=0.15, continued=0.12)


def _draft(rng: random.Random, weights: tuple[float, float, float]) -> Draft:
    """A problem of the train split, any family, the level by weight."""
    while True:
        draft = rng.choice(list(FAMILIES.values())).draw(rng, rng.choices(LEVELS, weights)[0])
        if split_of(draft.question) == "train":
            return draft


def texts(seed: int, shares: Shares = EARLY) -> Iterator[list[str]]:
    """Texts without end, each a list of pieces to be encoded one by one, from train problems alone."""
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
            pieces = continued(rng, _draft(rng, shares.document_levels))
        else:
            pieces = document(rng, _draft(rng, shares.document_levels), shares.chats)
        pieces[-1] += END
        yield [piece for piece in pieces if piece]
