"""The phase of a model: thinking, writing code, waiting for a tool, or answering."""

from __future__ import annotations

from enum import StrEnum

from start_agent.tokens.markers import Block, State


class Phase(StrEnum):
    """The phase of a model."""

    THINKING = "thinking"
    CODE = "code"
    AWAITING_TOOL = "awaiting_tool"
    ANSWERING = "answering"
    DONE = "done"


def phase_of(state: State) -> Phase:
    """The phase of a model while it generates; a token belongs to the phase in which it begins.

    The line of an opening fence is THINKING, that of the closing fence is CODE. A token may contain the end of one
    phase and the beginning of the next; ``decoding.segments`` splits between them.
    """
    if state.answering:
        return Phase.ANSWERING
    return Phase.CODE if state.block is Block.CODE else Phase.THINKING
