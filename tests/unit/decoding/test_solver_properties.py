"""Whatever a model writes, the trace's invariants hold."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import FakeSandbox, Outcome, Result
from start_agent.decoding.actions import THINKING_BUDGET
from start_agent.decoding.replay import replay
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.tokens.answers import final_text
from start_agent.tokens.markers import Block, Matcher, State
from start_agent.trace import IGNORE_INDEX, SpanKind, Trace

TOKENIZER = byte_tokenizer()
FRAGMENTS = (
    "Wait", "Wait, ", " Alternatively.", "Waiting", "</think>", "</thi", "<think>", "\n", "\n\n", " ", "a = 1",
    "```", "```python\n", "```py\n", "\n```\n", "\n```", "```output\n", "~~~", "`", "\\boxed{4}", "\\boxed{", "}",
    "é", "…", "<|im_end|>", "<|im_start|>", "0", "print(1)",
)  # fmt: skip
OUTPUTS = ("", "42", "```\n```python\n", "</think>", "Wait, \n", "\ud7ff é\n\n", "<|im_end|>")


def thinking_tokens(trace: Trace) -> list[int]:
    """What the model wrote before its answer."""
    end = len(trace.token_ids) if trace.answer_begins is None else trace.answer_begins[0] + bool(trace.answer_begins[1])
    written = zip(trace.token_ids[:end], trace.kinds(), strict=False)
    return [token_id for token_id, kind in written if kind is SpanKind.MODEL]


def run(seed: int, options: DecodingSettings, context: int) -> tuple[Trace, ScriptedEngine]:
    """A model and a sandbox that draw what they say from a seed and from what was said before."""

    def babble(request: TurnRequest) -> str:
        source = random.Random(f"{seed} {len(request.token_ids)}")
        return "".join(source.choices(FRAGMENTS, k=source.randrange(30)))

    def answer(code: str) -> Result:
        source = random.Random(f"{seed} {code}")
        return Result(source.choice([Outcome.OK, Outcome.OK, Outcome.ERROR]), stdout=source.choice(OUTPUTS))

    async def solve() -> tuple[Trace, ScriptedEngine]:
        engine = ScriptedEngine(babble, context_length=context)
        async with FakeSandbox(answer) as box:
            trace = await Solver(engine, box, settings=options).solve("What is 6*7?", seed=seed)
            assert box.stats.cells == trace.tool_calls
        return trace, engine

    return asyncio.run(solve())


@given(
    seed=st.integers(0, 1 << 32),
    options=st.builds(
        DecodingSettings,
        hints=st.booleans(),
        hint_probability=st.sampled_from([0, 0.3, 1]),
        hint_cooldown=st.sampled_from([0, 10, 50]),
        max_hints=st.integers(0, 4),
        end_of_think_hints=st.integers(0, 3),
        max_tool_calls=st.integers(0, 3),
        max_tokens=st.sampled_from([40, 400]),
        repetition_tokens=st.sampled_from([0, 32]),
        thinking_token_budget=st.none() | st.sampled_from([0, 1, 20, 100]),
        stop=st.sampled_from([(), ("</", "1"), ("```\n", "é…", "Wait, W")]),
    ),
    context=st.sampled_from([60, 300, 5000]),
)
@settings(max_examples=250, deadline=None, derandomize=True)
def test_a_trace_keeps_its_promises(seed: int, options: DecodingSettings, context: int) -> None:
    trace, engine = run(seed, options, context)
    # The spans are what the engine was given and gave.
    position = 0
    for request, turn in zip(engine.requests, engine.turns, strict=True):
        assert list(request.token_ids) == trace.token_ids[: len(request.token_ids)]
        position = len(request.token_ids)
        assert tuple(trace.token_ids[position : position + len(turn.token_ids)]) == turn.token_ids
    # All limits hold.
    hints = [span for span in trace.spans if span.kind is SpanKind.HINT]
    assert trace.tool_calls <= options.max_tool_calls
    assert sum(".connective." in hint.cause for hint in hints) <= options.max_hints * options.hints
    assert sum(".end_of_think." in hint.cause for hint in hints) <= options.end_of_think_hints * options.hints
    assert trace.count(SpanKind.MODEL) <= options.max_tokens
    assert position + len(engine.turns[-1].token_ids) <= context
    # There is no thinking beyond the budget, and no insertion once the answer has started.
    assert sum(span.cause == THINKING_BUDGET and span.kind is SpanKind.NOTICE for span in trace.spans) <= 1
    if options.thinking_token_budget is not None:
        thoughts = thinking_tokens(trace)
        assert len(thoughts) <= options.thinking_token_budget
    # What ends with a stop string is the text up to it.
    if trace.spans[-1].cause == "stop" and trace.spans[-1].kind is SpanKind.MODEL:
        answer = final_text(trace, TOKENIZER.decode)
        assert answer is not None and not any(string in answer for string in options.stop)
        assert TOKENIZER.bytes_of(trace.spans[-1].token_ids).decode(errors="replace").endswith(tuple(options.stop))
    # No hint lands inside code or after thinking; nothing but the model writes special tokens.
    state, matcher = State(), Matcher(TOKENIZER)
    for span in trace.spans[1:]:
        if span.kind is SpanKind.MODEL:
            for token_id in span.token_ids:
                state, _ = matcher.step(state, token_id)
        else:
            closes = ".end_of_think." in span.cause or span.cause == THINKING_BUDGET  # a block that is open
            assert state.block is Block.PROSE or closes
            assert not state.answering
            assert max(span.token_ids) < 256
            encoded = TOKENIZER.bytes_of(span.token_ids)
            state, _ = matcher.inserted(state, encoded, span.kind)
    # Views are of the spans, and the spans survive storage.
    assert [label for label in trace.labels() if label != IGNORE_INDEX] == [
        token_id for span in trace.of_kind(SpanKind.MODEL) for token_id in span.token_ids
    ]
    assert Trace.from_json(trace.to_json(TOKENIZER.decode)) == trace
    # The same again, and the controller takes the same way through it.
    assert run(seed, options, context)[0] == trace
    replay(trace, TOKENIZER)
