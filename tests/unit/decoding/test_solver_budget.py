"""The thinking budget, and stop strings after it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from sandbox import FakeSandbox
from start_agent.data.messages import messages
from start_agent.data.rows import make_row
from start_agent.data.views import TraceView
from start_agent.decoding.actions import THINKING_BUDGET
from start_agent.decoding.events import ModelText, SpanAdded, TraceFinished
from start_agent.decoding.replay import replay
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.errors import ConfigError
from start_agent.fields import build
from start_agent.tokens.answers import final_text
from start_agent.tokens.phases import Phase
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace, TraceOutcome

TOKENIZER = byte_tokenizer()
CELL = "```python\nprint(1)\n```"


async def solve(script: Sequence[str], **settings: Any) -> tuple[Trace, FakeSandbox]:
    engine = ScriptedEngine(script)
    async with FakeSandbox(lambda code: "1") as box:
        solver = Solver(
            engine, box, settings=DecodingSettings(**{"hint_probability": 1.0, "hint_cooldown": 0} | settings)
        )
        trace = await solver.solve("What is 6*7?")
    replay(trace, TOKENIZER)
    assert Trace.from_json(trace.to_json()) == trace
    return trace, box


def shape(trace: Trace) -> list[tuple[str, str, str]]:
    return [(span.kind.value, span.cause, TOKENIZER.decode(span.token_ids)) for span in trace.spans[1:]]


async def test_a_thinking_that_is_too_long_is_ended() -> None:
    trace, _ = await solve(["Let me see. Wait", "\nThe answer is \\boxed{42}. Wait, really."], thinking_token_budget=10)
    assert shape(trace) == [
        ("model", "thinking_budget", "Let me see"),
        ("notice", THINKING_BUDGET, "</think>"),
        ("model", "eos", "\nThe answer is \\boxed{42}. Wait, really.<|im_end|>"),
    ]
    assert (trace.outcome, trace.answer) == (TraceOutcome.ANSWERED, "42")
    assert trace.answer_begins == (trace.count() - len(trace.spans[-1].token_ids), 0)
    assert final_text(trace, TOKENIZER.decode) == "\nThe answer is \\boxed{42}. Wait, really."


async def test_a_block_that_is_open_is_closed_and_not_run() -> None:
    trace, box = await solve(["Run:\n```python\nprint(12345)\n```", "So \\boxed{1}."], thinking_token_budget=20)
    assert box.codes == []
    assert shape(trace)[:2] == [
        ("model", "thinking_budget", "Run:\n```python\nprint"),
        ("notice", THINKING_BUDGET, "\n```\n</think>"),
    ]
    assert TraceView(trace, TOKENIZER).cells == []
    assert trace.answer == "1"


async def test_code_that_is_complete_with_the_last_token_is_run() -> None:
    trace, box = await solve([CELL, "So \\boxed{1}."], thinking_token_budget=len(CELL))
    assert box.codes == ["print(1)"]
    assert [span.cause for span in trace.spans[1:]] == ["code_close", "ok", THINKING_BUDGET, "eos"]
    assert len(TraceView(trace, TOKENIZER).cells) == 1


@pytest.mark.parametrize(("budget", "causes"), [(2, ["connective", THINKING_BUDGET, "eos"]), (3, ["connective"])])
async def test_no_hint_comes_with_the_last_token(budget: int, causes: list[str]) -> None:
    backend = byte_tokenizer().backend
    backend.add_tokens([" Wait,"])  # one token that holds the connective and the byte behind it
    tokenizer = Tokenizer(backend, eos_ids=TOKENIZER.eos_ids, render_chat=TOKENIZER.render_chat)
    engine = ScriptedEngine(
        ["a Wait, ", ".", "\\boxed{1}"] if budget == 3 else ["a Wait, ", "\\boxed{1}"], tokenizer=tokenizer
    )
    async with FakeSandbox() as box:
        settings = {"hint_probability": 1.0, "hint_cooldown": 0, "thinking_token_budget": budget}
        trace = await Solver(engine, box, settings=settings).solve("What?")
    replay(trace, tokenizer)
    assert [span.cause for span in trace.spans[1:]][: len(causes)] == causes
    assert (SpanKind.HINT in [span.kind for span in trace.spans]) is (budget == 3)
    assert trace.answer == "1"


async def test_an_incomplete_end_of_thinking_is_dropped() -> None:
    trace, _ = await solve(["abcde</think>", "\\boxed{1}"], thinking_token_budget=10)
    assert [text for _, _, text in shape(trace)[:2]] == ["abcde", "</think>"]


async def test_a_budget_of_nothing() -> None:
    trace, _ = await solve(["\\boxed{1}"], thinking_token_budget=0)
    assert shape(trace)[0] == ("notice", THINKING_BUDGET, "</think>")
    assert trace.answer == "1" and trace.answer_begins is not None


async def test_hints_and_outputs_are_not_counted() -> None:
    script = ["ab Wait, ", "print(1)\n```", "It is 1, I think, and so on", "\\boxed{1}"]
    trace, _ = await solve(script, thinking_token_budget=40, end_of_think_hints=0)
    thoughts = [span for span in trace.spans[1:-1] if span.kind is SpanKind.MODEL]
    assert sum(len(span.token_ids) for span in thoughts) == 40
    assert [span.kind.value for span in trace.spans[2:4]] == ["hint", "model"]


async def test_the_notice_is_not_learned() -> None:
    trace, _ = await solve(["Let me see. Wait", "\\boxed{42}"], thinking_token_budget=10)
    row = make_row(trace, TOKENIZER)
    notice = trace.count(SpanKind.PROMPT) + 10
    assert row.assistant_masks[notice : notice + len("</think>")] == (0,) * len("</think>")
    assert row.assistant_masks[notice - 10 : notice] == (1,) * 10 and row.answer_begins == notice + len("</think>")


async def test_an_answer_ends_at_a_stop_string() -> None:
    trace, _ = await solve(
        ["I stop. </think>The \\boxed{42} STOP \\boxed{43}"], stop=("STOP", "43"), end_of_think_hints=0
    )
    assert shape(trace) == [("model", "stop", "I stop. </think>The \\boxed{42} STOP")]
    assert (trace.outcome, trace.answer) == (TraceOutcome.ANSWERED, "42")
    assert final_text(trace, TOKENIZER.decode) == "The \\boxed{42} "
    assert messages(TraceView(trace, TOKENIZER))[-1]["content"] == "The \\boxed{42}"
    none, _ = await solve(["</think>So: STOP"], stop=("STOP", ":"), end_of_think_hints=0)
    assert (none.outcome, none.answer, final_text(none, TOKENIZER.decode)) == (TraceOutcome.NO_ANSWER, None, "So")


async def test_nothing_stops_a_thinking() -> None:
    trace, box = await solve([f"STOP {CELL}", "STOP</think>It is \\boxed{1}"], stop=("STOP",), end_of_think_hints=0)
    assert box.codes == ["print(1)"]
    assert trace.spans[-1].cause == "eos" and trace.answer == "1"


async def test_the_budget_then_a_stop_string() -> None:
    trace, _ = await solve(["thinking, thinking", "It is \\boxed{1}.\n\nMore"], thinking_token_budget=8, stop=("\n\n",))
    assert [span.cause for span in trace.spans[1:]] == ["thinking_budget", THINKING_BUDGET, "stop"]
    assert final_text(trace, TOKENIZER.decode) == "It is \\boxed{1}."


async def test_a_listener_is_shown_the_text_up_to_the_stop_string() -> None:
    engine = ScriptedEngine(["Hm.</think>It is ST. And STOP, no"])
    solver = Solver(engine, settings={"tools": False, "stop": ("STOP",), "end_of_think_hints": 0})
    async with aclosing(solver.stream("What?")) as stream:
        events = [event async for event in stream]
    runs = [event for event in events if isinstance(event, ModelText)]
    assert "".join(run.text for run in runs) == "Hm.</think>It is ST. And "
    assert "".join(run.text for run in runs if run.phase is Phase.ANSWERING) == "It is ST. And "
    spans = [event.span for event in events if isinstance(event, SpanAdded)]
    assert [token_id for run in runs for token_id in run.token_ids] == list(spans[-1].token_ids)
    assert TOKENIZER.decode(spans[-1].token_ids).endswith("STOP")
    assert isinstance(events[-1], TraceFinished)


@pytest.mark.parametrize(
    "wrong", [{"stop": ("",)}, {"stop": ("x" * 257,)}, {"stop": ("x",) * 17}, {"thinking_token_budget": -1}]
)
def test_settings_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(DecodingSettings, wrong)
