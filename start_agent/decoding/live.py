"""An engine's turn as events: the model's text as it is generated, each event within one phase."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import groupby

from start_agent.decoding.events import ModelText
from start_agent.engines.base import Engine, Turn, TurnRequest
from start_agent.tokens.phases import Phase, phase_of
from start_agent.tokens.stopping import StopChecker


async def read_turn(engine: Engine, request: TurnRequest, *, live: bool) -> AsyncGenerator[ModelText | Turn, None]:
    """Run a turn; unless ``live``, yield only the finished turn. Raises what ``Engine.stream`` raises."""
    if not live:
        yield await engine.generate(request)
        return
    checker = request.new_checker()
    utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
    position = checker.state.position
    async with aclosing(engine.stream(request)) as items:
        async for item in items:
            if isinstance(item, Turn):
                yield item
                return
            # Check all tokens first: a stop string that the last one completes may begin in any of them.
            phases = [_phase_of_token(checker, token_id) for token_id in item.token_ids]
            begin = 0
            for phase, run in groupby(phases):
                end = begin + len(list(run))
                token_ids = item.token_ids[begin:end]
                text = engine.tokenizer.bytes_of(token_ids)
                shown = text if checker.stop_begins is None else text[: max(checker.stop_begins - position, 0)]
                position += len(text)
                yield ModelText(token_ids, utf8.decode(shown), phase, item.logprobs and item.logprobs[begin:end])
                begin = end


def _phase_of_token(checker: StopChecker, token_id: int) -> Phase:
    """The phase in which the token begins; pushes the token into the checker."""
    phase = phase_of(checker.state)
    checker.push(token_id)
    return phase
