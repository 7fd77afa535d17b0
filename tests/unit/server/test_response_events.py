"""Events and items of a response: OpenAI's types, one order, and the same response streamed or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import FakeSandbox, KernelStartError, Outcome, Result
from start_agent.decoding.events import CellFinished, CellStarted
from start_agent.decoding.segments import Segment, Segmenter
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import Script, ScriptedEngine
from start_agent.server.response_events import ResponseBuilder
from start_agent.server.response_input import messages
from start_agent.server.response_items import JSON
from start_agent.server.rollout import Finished, Rollout, RolloutRequest
from start_agent.tokens.dialects import FENCES, RETOOL, Dialect
from start_agent.tokens.markers import Matcher
from start_agent.trace import SpanKind, Trace
from tests.support.openai_types import accumulated, parsed_event, parsed_response

USAGE = {
    "input_tokens": 1,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 3,
}
ENVELOPE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "scripted",
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
}


def new_builder(dialect: Dialect = FENCES) -> ResponseBuilder:
    numbers = count(1)

    def make_id(prefix: str) -> str:
        return f"{prefix}_{next(numbers)}"

    return ResponseBuilder(ENVELOPE, "cntr_1", dialect=dialect, make_id=make_id, clock=lambda: 7.0)


async def built(
    script: Script, answer: Callable[[str], Result | str] = lambda code: "42", seed: int = 0, **settings: Any
) -> tuple[list[JSON], JSON, Trace]:
    """The events and the response of a scripted rollout, and its trace."""
    async with FakeSandbox(answer) as box:
        solver = Solver(ScriptedEngine(script), box, settings=DecodingSettings(**settings))
        builder = new_builder(solver.dialect)
        events = builder.begin()
        request = RolloutRequest(messages=[{"role": "user", "content": "What is 6*7?"}], seed=seed)
        async with aclosing(Rollout(solver, request).items()) as items:
            async for item in items:
                match item:
                    case Segment():
                        events += builder.segment(item)
                    case CellStarted():
                        events += builder.cell_started()
                    case CellFinished(result):
                        events += builder.cell_finished(result)
                    case Finished(trace):
                        pass
    assert trace.outcome is not None
    events += builder.finish(trace.outcome, usage=USAGE, extension={"outcome": trace.outcome.value})
    return events, builder.response, trace


def checked(events: Sequence[JSON], response: JSON) -> None:
    """What holds for every response."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        parsed_event(event)
    parsed_response(response)
    assert events[-1]["response"] == response
    items, texts = accumulated(events)
    assert items == response["output"]
    assert [item["id"] for item in items] == [item["id"] for item in response["output"]]
    for item in items:
        text = texts[item["id"]]
        if item["type"] == "code_interpreter_call":
            assert item["code"] == text
        else:
            assert "".join(part["text"] for part in item["content"]) == text
            assert text.strip()


SCRIPT = [
    "Let us compute. </think>",
    "a = 6\nprint(a*7)\n```\n",
    "\nSo 42.</think>\n\nThe answer is \\boxed{42}.<|im_end|>",
]


async def test_the_order_of_an_answer_with_a_hint_and_a_cell() -> None:
    events, response, trace = await built(SCRIPT, hint_probability=0)
    checked(events, response)
    names = [event["type"].removeprefix("response.") for event in events]
    without_repeats = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    text = ["output_item.added", "content_part.added", "{0}.delta", "{0}.done", "content_part.done", "output_item.done"]
    assert without_repeats == [
        *("created", "in_progress"),
        *(name.format("reasoning_text") for name in text),
        *("output_item.added", "code_interpreter_call.in_progress"),
        *("code_interpreter_call_code.delta", "code_interpreter_call_code.done"),
        *("code_interpreter_call.interpreting", "code_interpreter_call.completed", "output_item.done"),
        *(name.format("reasoning_text") for name in text),
        *(name.format("output_text") for name in text),
        "completed",
    ]
    thought, call, second, message = response["output"]
    assert thought["content"][0]["text"].startswith("Let us compute. ")
    hint = trace.text(SpanKind.HINT).removesuffix("```python\n")
    assert hint and thought["content"][0]["text"].endswith(hint)  # as it is inserted, to its last character
    assert call["code"] == "a = 6\nprint(a*7)"
    assert (call["status"], call["outputs"]) == ("completed", [{"type": "logs", "logs": "42"}])
    assert call["container_id"] == "cntr_1"
    assert second["content"][0]["text"] == "\nSo 42."
    assert message["content"][0]["text"] == "The answer is \\boxed{42}."
    assert (response["status"], response["completed_at"], response["usage"]) == ("completed", 7, USAGE)


async def test_who_wrote_what() -> None:
    _, response, trace = await built(SCRIPT, hint_probability=0)
    kinds = [[span["kind"] for span in item["start_agent"]["spans"]] for item in response["output"]]
    assert kinds == [["model", "hint"], ["hint", "model", "tool_output"], ["model"], ["model"]]
    for kind in (SpanKind.HINT, SpanKind.TOOL_OUTPUT):
        spans = [span for item in response["output"] for span in item["start_agent"]["spans"]]
        assert {span["cause"] for span in spans if span["kind"] == kind.value} == {
            span.cause for span in trace.of_kind(kind)
        }
        assert sum(span["tokens"] for span in spans if span["kind"] == kind.value) == trace.count(kind)
    assert response["output"][1]["start_agent"]["cell"]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("result", "outputs", "outcome"),
    [
        (Result(Outcome.OK), [], "ok"),
        (Result(Outcome.OK, stdout="a", value="b"), [{"type": "logs", "logs": "a\nb"}], "ok"),
        (Result(Outcome.ERROR, error="ValueError: x"), [{"type": "logs", "logs": "ValueError: x"}], "error"),
        (Result(Outcome.TIMEOUT, error="too long", state_lost=True), [{"type": "logs", "logs": "too long"}], "timeout"),
    ],
)
async def test_what_a_cell_comes_to_is_a_completed_call(result: Result, outputs: list[JSON], outcome: str) -> None:
    events, response, _ = await built(SCRIPT, lambda code: result, hint_probability=0)
    checked(events, response)
    call = response["output"][1]
    assert (call["status"], call["outputs"]) == ("completed", outputs)
    assert call["start_agent"]["cell"]["outcome"] == outcome
    assert call["start_agent"]["cell"].get("state_lost", False) == result.state_lost


async def test_code_that_is_cut_off_was_not_run() -> None:
    events, response, _ = await built(["Hm.\n```python\nx = 1\ny = 2"], max_tokens=24, hints=False)
    checked(events, response)
    call = response["output"][-1]
    assert (call["status"], call["outputs"]) == ("incomplete", None)
    assert call["start_agent"]["cell"] == {"outcome": "not_run"}
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert "response.code_interpreter_call.interpreting" not in [event["type"] for event in events]


async def test_code_beyond_the_last_call_was_not_run_and_says_so() -> None:
    script = ["```python\nx\n```\n", "so</think>\\boxed{1}<|im_end|>"]
    events, response, _ = await built(script, max_tool_calls=0, hints=False)
    checked(events, response)
    call = response["output"][0]
    assert call["status"] == "incomplete"
    (logs,) = call["outputs"]
    assert "not run" in logs["logs"] and "```" not in logs["logs"]
    assert response["status"] == "completed"


@pytest.mark.parametrize(
    ("script", "settings", "reason"),
    [
        (["Hm. " * 20], {"max_tokens": 30}, "max_output_tokens"),
        (["Hm. " * 20], {"max_turn_tokens": 30}, None),
        (["Hm. " * 100], {}, None),
    ],
)
async def test_what_is_cut_off_is_incomplete(script: list[str], settings: dict[str, Any], reason: str | None) -> None:
    events, response, trace = await built(script, hints=False, **settings)
    checked(events, response)
    assert (response["status"], events[-1]["type"]) == ("incomplete", "response.incomplete")
    assert response["incomplete_details"] == {"reason": reason}
    assert response["output"][-1]["status"] == "incomplete"
    assert response["start_agent"]["outcome"] == trace.outcome


async def test_a_sandbox_that_fails_fails_the_cell_and_the_response() -> None:
    builder = new_builder()
    events = builder.begin()
    matcher = Matcher(ScriptedEngine([]).tokenizer)
    segmenter = Segmenter(
        matcher, Solver(ScriptedEngine([]), settings={"tools": False}).format.prompt("x").state, frozenset()
    )
    for segment in segmenter.written(ScriptedEngine([]).tokenizer.encode("Hm.\n```python\nx\n```\n")):
        events += builder.segment(segment)
    events += builder.cell_started()
    events += builder.fail(str(KernelStartError("no kernel")))
    checked(events, builder.response)
    assert builder.response["output"][-1]["status"] == "failed"
    assert builder.response["output"][-1]["outputs"] is None
    assert builder.response["error"] == {"code": "server_error", "message": "no kernel"}
    assert (builder.response["status"], events[-1]["type"]) == ("failed", "response.failed")


async def test_a_cancelled_response() -> None:
    builder = new_builder()
    events = [*builder.begin(), *builder.cancel()]
    checked(events, builder.response)
    assert (builder.response["status"], builder.response["output"]) == ("cancelled", [])


FRAGMENTS = (
    *("Wait", "Wait, ", "</think>", "</thi", "<think>", "\n", "\n\n", " ", "a = 1", "```", "```python\n", "```py\n"),
    *("\n```\n", "\n```", "~~~", "`", "\\boxed{4}", "é", "…", "<|im_end|>", "0", "print(1)"),
)


@given(
    seed=st.integers(0, 1 << 32),
    settings=st.fixed_dictionaries(
        {
            "hints": st.booleans(),
            "hint_probability": st.sampled_from([0, 1]),
            "hint_cooldown": st.just(0),
            "end_of_think_hints": st.integers(0, 2),
            "max_tool_calls": st.integers(0, 2),
            "max_tokens": st.sampled_from([40, 400]),
            "tools": st.booleans(),
            "thinking_token_budget": st.sampled_from([None, 0, 30]),
        }
    ),
)
def test_whatever_a_model_says_streamed_and_unstreamed_are_one(seed: int, settings: dict[str, Any]) -> None:
    def babble(request: Any) -> str:
        source = random.Random(f"{seed} {len(request.token_ids)}")
        return "".join(source.choices(FRAGMENTS, k=source.randrange(30)))

    def answer(code: str) -> Result:
        source = random.Random(f"{seed} {code}")
        return Result(source.choice([Outcome.OK, Outcome.ERROR]), stdout=source.choice(["", "42", "```\n</think>"]))

    events, response, trace = asyncio.run(built(babble, answer, seed, **settings))
    checked(events, response)
    ran = [item for item in response["output"] if item.get("status") == "completed" and "code" in item]
    assert len(ran) == trace.tool_calls
    answers = "".join(p["text"] for item in response["output"] if item["type"] == "message" for p in item["content"])
    assert "</think>" not in answers or "<think>" in trace.text()


async def test_code_between_tags() -> None:
    script = ["So <code>\nprint(1)\n</code>", "and <code>x</code>", "</think>\\boxed{1}<|im_end|>"]
    events, response, trace = await built(script, hints=False, dialect="retool", max_tool_calls=1)
    checked(events, response)
    _, ran, _, not_run, _ = response["output"]
    assert (ran["code"], ran["status"], ran["outputs"]) == (
        "\nprint(1)\n",
        "completed",
        [{"type": "logs", "logs": "42"}],
    )
    assert (not_run["status"], len(not_run["outputs"])) == ("incomplete", 1)
    assert "<" not in not_run["outputs"][0]["logs"]
    thoughts = trace.text().partition("</think>")[0]
    (message,) = messages(response["output"][:-1], dialect=RETOOL)
    assert message["reasoning_content"].replace("\n", "") == thoughts[thoughts.index("So <code>") :].replace("\n", "")
