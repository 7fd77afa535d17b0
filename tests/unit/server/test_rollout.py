"""A rollout: the segments of a trace in order, and their token counts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from sandbox import FakeSandbox
from start_agent.decoding.events import CellFinished, CellStarted
from start_agent.decoding.segments import Segment, SegmentKind
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer, scripted_logprob
from start_agent.errors import ContextLengthError, QuestionError
from start_agent.server.errors import APIError
from start_agent.server.rollout import Finished, Item, Rollout, RolloutRequest
from start_agent.tokens.prompts import Prompt
from start_agent.trace import SpanKind, TraceOutcome

QUESTION = [{"role": "user", "content": "What is 6 * 7?"}]
SCRIPT = ["Hm. </think>", "print(6*7)\n```\n", "So 42.</think>\nIt is \\boxed{42}.<|im_end|>"]
NO_HINTS = DecodingSettings(hints=False)
TOKENIZER = byte_tokenizer()


async def rolled(script: Sequence[str], request: RolloutRequest, **settings: Any) -> tuple[list[Item], Rollout]:
    async with FakeSandbox(lambda code: "42") as box:
        rollout = Rollout(Solver(ScriptedEngine(script), box, settings=settings), request)
        async with aclosing(rollout.items()) as items:
            found = [item async for item in items]
        assert box.open_sessions == 0
    return found, rollout


async def test_the_pieces_come_in_the_order_of_the_trace() -> None:
    items, rollout = await rolled(SCRIPT, RolloutRequest(messages=QUESTION, seed=0), hint_probability=0)
    kinds = [item.kind if isinstance(item, Segment) else type(item) for item in items]
    started, finished = kinds.index(CellStarted), kinds.index(CellFinished)
    assert SegmentKind.CODE_CLOSE in kinds[:started] and finished == started + 1
    assert kinds[finished + 1] is SegmentKind.OUTPUT and kinds[-1] is Finished
    last = items[-1]
    assert isinstance(last, Finished) and last.trace.outcome is TraceOutcome.ANSWERED
    assert "".join(item.text for item in items if isinstance(item, Segment)) == str(last.trace)
    counts = rollout.counts
    assert counts is last.counts
    assert counts.completion == last.trace.count(SpanKind.MODEL)
    assert (counts.prompt, counts.hint, counts.tool_output, counts.notice) == tuple(
        last.trace.count(kind) for kind in (SpanKind.PROMPT, SpanKind.HINT, SpanKind.TOOL_OUTPUT, SpanKind.NOTICE)
    )
    assert counts.answer == len(TOKENIZER.encode("\nIt is \\boxed{42}.")) + 1  # and the end of sequence


async def test_a_request_has_settings_of_its_own() -> None:
    items, rollout = await rolled(
        ["</think>\\boxed{1}<|im_end|>"],
        RolloutRequest(messages=QUESTION, settings=NO_HINTS, instruction="Box it."),
        hint_probability=0,
    )
    last = items[-1]
    assert isinstance(last, Finished) and last.trace.count(SpanKind.HINT) == 0
    assert last.trace.meta["seeded"] is False
    prompt = TOKENIZER.decode(rollout.prompt.token_ids)
    assert "What is 6 * 7?\n\nBox it." in prompt


async def test_each_token_of_the_model_has_its_log_probability() -> None:
    items, _ = await rolled(SCRIPT, RolloutRequest(messages=QUESTION, seed=0), hint_probability=0, logprobs=2)
    segments = [item for item in items if isinstance(item, Segment)]
    size = len(TOKENIZER.pieces)
    for segment in segments:
        expected = tuple(scripted_logprob(token_id, 2, size) for token_id in segment.token_ids)
        if segment.author is SpanKind.MODEL and segment.token_ids:
            assert segment.logprobs == expected
        else:
            assert not segment.logprobs


async def test_ids_that_no_template_made() -> None:
    ids = tuple(TOKENIZER.encode("6 * 7 = "))
    request = RolloutRequest(
        prompt=Prompt(ids, thinking=False), question="6 * 7 = ", settings=NO_HINTS, instruction="Box it."
    )
    items, _ = await rolled(["42<|im_end|>"], request)
    last = items[-1]
    assert isinstance(last, Finished) and last.trace.spans[0].token_ids == ids
    assert last.trace.meta["question"] == "6 * 7 = " and last.counts.answer == 3


async def test_what_comes_first_is_a_hint_where_it_is_asked_for() -> None:
    items, _ = await rolled(
        ["</think>\\boxed{1}<|im_end|>"],
        RolloutRequest(messages=QUESTION, settings=NO_HINTS, first_hint="I will use Python.\n"),
    )
    first = items[0]
    assert isinstance(first, Segment) and (first.author, first.text) == (SpanKind.HINT, "I will use Python.\n")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (RolloutRequest(messages=[]), QuestionError),
        (RolloutRequest(messages=[{"role": "user", "content": "x" * 100}]), ContextLengthError),
        (RolloutRequest(prompt=Prompt((1, 2), thinking=False), first_hint="I try."), APIError),
    ],
)
async def test_what_makes_no_trace_is_refused_before_it_begins(
    request_: RolloutRequest, error: type[Exception]
) -> None:
    async with FakeSandbox() as box:
        solver = Solver(ScriptedEngine([], context_length=64), box)
        with pytest.raises(error):
            Rollout(solver, request_)


async def test_closing_it_early_leaves_nothing() -> None:
    engine = ScriptedEngine(SCRIPT)
    async with FakeSandbox(lambda code: "42") as box:
        rollout = Rollout(Solver(engine, box, settings={"hint_probability": 0}), RolloutRequest(messages=QUESTION))
        async with aclosing(rollout.items()) as items:
            async for item in items:
                if isinstance(item, CellFinished):
                    break
        assert box.open_sessions == 0 and len(engine.released) == 1
