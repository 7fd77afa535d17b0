"""What a model is doing, seen from the outside."""

from __future__ import annotations

from enum import StrEnum

from start_agent.tokens.markers import Block, State


class Phase(StrEnum):
    """What the model is doing."""

    THINKING = "thinking"
    CODE = "code"
    AWAITING_TOOL = "awaiting_tool"
    ANSWERING = "answering"
    DONE = "done"


def phase_of(state: State) -> Phase:
    """The phase of a model that is writing: that of a token is the one in which it begins.

    The line of an opening fence is THINKING still, that of the closing one is CODE. A token may hold the end of one
    and the beginning of the next; ``decoding.segments`` cuts between them.
    """
    if state.answering:
        return Phase.ANSWERING
    return Phase.CODE if state.block is Block.CODE else Phase.THINKING
