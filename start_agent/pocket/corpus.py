"""The corpus: a seeded, endless stream of texts in the shares that make the pocket reasoner what it is.

Thoughts (chat format) never hold code; documents (other formats) use Python freely. So the skill is there and
is not used inside thinking: what the START paper says of long chain-of-thought models. The one exception are
chats whose user turn shows a program with its output: there the thinking may go on with Python.
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
    """How the corpus is made up: shares of the kinds of text (documents are the rest), and of their levels."""

    thoughts: float  # chats: thinking in words alone
    readings: float  # chats: thinking in words about a program that the user shows
    drills: float  # pages of easy problems with their results
    continued: float = 0.0  # chats: thinking that may go on with Python after a program that the user shows
    chats: float = 0.0  # among the documents: chats without thinking, beyond those that chance gives
    again: tuple[float, float, float] | None = None  # second calls by level; by default as the drafts say
    mend: tuple[float, float, float] | None = None  # second programs that mend a slip; likewise
    later_mend: tuple[float, float, float] | None = None  # third and later ones; likewise
    thought_levels: tuple[float, float, float] = (0.45, 0.35, 0.2)
    document_levels: tuple[float, float, float] = (0.2, 0.35, 0.45)
    drill_levels: tuple[float, float, float] = (0.6, 0.4, 0.0)


# The mix changes as training goes on, from the step given. Readings teach that thinking goes on after an output,
# but they never call Python again; so they end early. Thinking that calls Python again after a program in the
# user's turn comes late, once it is firmly learned that plain thinking holds no code. At last second calls grow
# rare for easy problems and stay common for hard ones, where they often repeat the first one's mistake.
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
            mend=(1.0, 0.5, 0.15),
            later_mend=(1.0, 0.7, 0.45),
        ),
    ),
)
EARLY = SCHEDULE[0][1]


def mix_at(step: int) -> Shares:
    """The mix of texts at a training step, counted from 0."""
    return [shares for start, shares in SCHEDULE if step >= start][-1]


def _habits(draft: Draft, shares: Shares) -> Draft:
    """The draft with the mix's own rates of second calls and of mending."""
    at = draft.level - 1
    return replace(
        draft,
        again_rate=draft.again_rate if shares.again is None else shares.again[at],
        mend_rate=draft.mend_rate if shares.mend is None else shares.mend[at],
        later_mend_rate=draft.later_mend_rate if shares.later_mend is None else shares.later_mend[at],
    )


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
            pieces = continued(rng, _habits(_draft(rng, shares.document_levels), shares))
        else:
            pieces = document(rng, _habits(_draft(rng, shares.document_levels), shares), shares.chats)
        pieces[-1] += END
        yield [piece for piece in pieces if piece]
