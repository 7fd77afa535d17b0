"""Segments: nothing is lost, nothing is shown twice, and the code shown is the code that runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from functools import cache
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import FakeSandbox
from start_agent.data.views import TraceView
from start_agent.decoding.events import CellStarted, ModelText, SpanAdded, TraceFinished
from start_agent.decoding.segments import Segment, Segmenter, SegmentKind
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import Script, ScriptedEngine, byte_tokenizer
from start_agent.tokens.fences import program
from start_agent.tokens.markers import Markers, Matcher, State
from start_agent.tokens.stop_strings import before_stop
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace
from tests.unit.decoding.test_solver_properties import FRAGMENTS

TOKENIZER = byte_tokenizer()
MATCHER = Matcher(TOKENIZER)
PIECES = [
    *(
        "Some words. ",
        "\n",
        "```python\n",
        "```",
        "``",
        "`",
        "~~~",
        "print(1)\n",
        "x = 2",
        "    ",
        "- ",
        "> ",
        "é",
        "\r\n",
    ),
    *("</think>", "</th", "<think>", "Wait", "```text\n", "so: ```py\n", "| a |\n", "```output\n3\n```\n", "\t```\n"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


def joined(segments: Sequence[Segment]) -> list[tuple[SegmentKind, str]]:
    """The texts by kind; how they were cut is not of interest."""
    fences = (SegmentKind.CODE_OPEN, SegmentKind.CODE_CLOSE)
    groups = groupby(segments, key=lambda one: one.kind)
    texts = [(kind, "".join(one.text for one in group)) for kind, group in groups]
    return [(kind, text) for kind, text in texts if text or kind in fences]


@given(TEXTS, st.data())
def test_nothing_is_lost_however_it_comes(text: str, data: st.DataObject) -> None:
    ids = TOKENIZER.encode(text)
    whole = Segmenter(MATCHER, State(), TOKENIZER.eos_ids)
    pieces = Segmenter(MATCHER, State(), TOKENIZER.eos_ids)
    at_once = [*whole.written(ids), *whole.flush()]
    one_by_one: list[Segment] = []
    while ids:
        size = data.draw(st.integers(1, len(ids)))
        one_by_one += pieces.written(ids[:size])
        ids = ids[size:]
    one_by_one += pieces.flush()
    assert "".join(one.text for one in at_once) == text
    assert [id_ for one in one_by_one for id_ in one.token_ids] == TOKENIZER.encode(text)
    kinds = [(one.kind, one.text) for one in at_once if one.text]
    assert joined(one_by_one) == joined(at_once), kinds


@given(TEXTS)
def test_no_marker_is_shown(text: str) -> None:
    segmenter = Segmenter(MATCHER, State(), TOKENIZER.eos_ids)
    segments = [*segmenter.written(TOKENIZER.encode(text)), *segmenter.flush()]
    matches = MATCHER.read(State(), text.encode())[1]
    opened = [match for match in matches if match.kind.value == "code_open"]
    assert sum(one.kind is SegmentKind.CODE_OPEN for one in segments) == len(opened)
    ended = any(match.kind.value == "think_end" for match in matches)
    assert any(one.kind is SegmentKind.MARKER for one in segments) == ended
    if ended:
        thoughts = "".join(one.text for one in segments if one.kind in (SegmentKind.THOUGHT, SegmentKind.CODE))
        end = next(match for match in matches if match.kind.value == "think_end")
        assert len(thoughts.encode()) <= end.begin


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Let us see.\n```python\nprint(1)", "Let us see.\n|print(1)"),
        ("Let us see.\n```pyt", "Let us see.\n"),
        ("Use `x` here", "Use `x` here"),
        ("Use ```x``` here", "Use ```x``` here"),
        ("```python\nx = 1\n", "|x = 1"),
        ("```python\nx = 1\n  ", "|x = 1"),
        ("```python\nx = 1\n  y", "|x = 1\n  y"),
        ("```python\nx = 1\n``", "|x = 1"),
        ("```python\nx = 1\n``y", "|x = 1\n``y"),
        ("```python\nx = 1\n```", "|x = 1|"),
        ("a</thi", "a"),
        ("a</thing", "a</thing"),
        ("a\n~~", "a\n"),
    ],
)
def test_what_may_be_a_marker_waits_and_nothing_else(text: str, shown: str) -> None:
    matcher = Matcher(TOKENIZER, Markers(think_ends=("</think>",)))
    segmenter = Segmenter(matcher, State(), TOKENIZER.eos_ids)
    found = ""
    for one in segmenter.written(TOKENIZER.encode(text)):
        fence = one.kind in (SegmentKind.CODE_OPEN, SegmentKind.CODE_CLOSE)
        found += "|" if fence else one.text
    assert found == shown


def test_without_tools_code_is_a_thought() -> None:
    segmenter = Segmenter(MATCHER, State(), TOKENIZER.eos_ids, runs=False)
    segments = segmenter.written(TOKENIZER.encode("a\n```python\nx\n```\nb</think>c"))
    assert joined(segments) == [
        (SegmentKind.THOUGHT, "a\n```python\nx\n```\nb"),
        (SegmentKind.MARKER, "</think>"),
        (SegmentKind.ANSWER, "c"),
    ]


def test_a_channel_that_is_opened_late() -> None:
    matcher = Matcher(TOKENIZER, Markers(think_ends=("<e>",), think_start="<s>"))
    segmenter = Segmenter(matcher, State(answering=True, unopened=True), TOKENIZER.eos_ids)
    segments = [*segmenter.written(TOKENIZER.encode("hi<s>think<e>answer")), *segmenter.flush()]
    assert joined(segments) == [
        (SegmentKind.ANSWER, "hi"),
        (SegmentKind.MARKER, "<s>"),
        (SegmentKind.THOUGHT, "think"),
        (SegmentKind.MARKER, "<e>"),
        (SegmentKind.ANSWER, "answer"),
    ]


@given(
    st.lists(st.sampled_from(["a", "ST", "STOP", "OP", "</think>", "é", "\n", "S"]), max_size=12).map("".join),
    st.lists(st.sampled_from(["STOP", "SO", "é\n"]), max_size=2).map(tuple),
    st.integers(1, 5),
)
def test_an_answer_is_shown_up_to_its_stop_string(text: str, stop: tuple[str, ...], size: int) -> None:
    ids = TOKENIZER.encode(text)
    segmenter = Segmenter(MATCHER, State(), TOKENIZER.eos_ids, stop=stop)
    segments: list[Segment] = []
    for at in range(0, len(ids), size):
        segments += segmenter.written(ids[at : at + size])
    segments += segmenter.flush()
    _, ended, answer = text.partition("</think>")
    shown = before_stop(answer.encode(), stop).decode() if ended else ""
    assert "".join(one.text for one in segments if one.kind is SegmentKind.ANSWER) == shown
    assert "".join(one.text for one in segments) == text
    assert [token_id for one in segments for token_id in one.token_ids] == ids


async def test_a_budget_and_a_stop_string() -> None:
    segments, trace, _ = await segmented(
        ["Run:\n```python\nprint(1)", "It is 1. STOP"], thinking_token_budget=20, stop=("STOP",), hints=False
    )
    assert trace.spans[-1].cause == "stop"
    assert joined(segments) == [
        (SegmentKind.THOUGHT, "Run:\n"),
        (SegmentKind.CODE_OPEN, "```python\n"),
        (SegmentKind.CODE, "print"),
        (SegmentKind.OUTPUT, "\n```\n"),
        (SegmentKind.MARKER, "</think>"),
        (SegmentKind.ANSWER, "It is 1. "),
        (SegmentKind.MARKER, "STOP"),
    ]
    inserted = "".join(one.text for one in segments if one.author is SpanKind.NOTICE)
    assert inserted == "\n```\n</think>" == trace.text(SpanKind.NOTICE)


def test_a_notice_that_opens_the_thinking() -> None:
    matcher = Matcher(TOKENIZER, Markers(think_ends=("<e>",), think_start="<s>"))
    segmenter = Segmenter(matcher, State(answering=True, unopened=True), TOKENIZER.eos_ids)
    segments = segmenter.inserted(SpanKind.NOTICE, TOKENIZER.encode("<s>\n"))
    segments += segmenter.inserted(SpanKind.HINT, TOKENIZER.encode("hint "))
    segments += [*segmenter.written(TOKENIZER.encode("think<e>answer")), *segmenter.flush()]
    assert joined(segments) == [
        (SegmentKind.MARKER, "<s>"),
        (SegmentKind.THOUGHT, "\nhint think"),
        (SegmentKind.MARKER, "<e>"),
        (SegmentKind.ANSWER, "answer"),
    ]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("<think>\nHm.", [("marker", "<think>\n"), ("thought", "Hm.")]),
        ("<think>Hm.", [("marker", "<think>"), ("thought", "Hm.")]),
        ("<think>\n</think>a", [("marker", "<think>\n</think>"), ("answer", "a")]),
        ("<thing>", [("thought", "<thing>")]),
        ("Hm. <think>\n", [("thought", "Hm. <think>\n")]),
        ("<thi", [("thought", "<thi")]),
        ("```python\nx\n```", [("code_open", "```python\n"), ("code", "x"), ("code_close", "\n```")]),
    ],
)
def test_the_marker_that_the_model_opens_its_thinking_with(text: str, kinds: list[tuple[str, str]]) -> None:
    segmenter = Segmenter(MATCHER, State(), TOKENIZER.eos_ids, opens="<think>\n")
    segments = [one for token_id in TOKENIZER.encode(text) for one in segmenter.written([token_id])]
    segments += segmenter.flush()
    assert joined(segments) == kinds


async def segmented(
    script: Script, tokenizer: Tokenizer = TOKENIZER, **settings: Any
) -> tuple[list[Segment], Trace, FakeSandbox]:
    """All segments of a trace, which is checked against them; what runs was shown as code, and closed, before."""
    engine = ScriptedEngine(script, tokenizer=tokenizer)
    async with FakeSandbox(lambda code: "42") as box:
        solver = Solver(engine, box, settings=DecodingSettings(**settings))
        prompt = solver.format.prompt("What is 6*7?")
        segmenter = Segmenter(solver.matcher(prompt), prompt.state, tokenizer.eos_ids, stop=solver.settings.stop)
        segments: list[Segment] = []
        shown: list[str] = []
        async with aclosing(solver.stream("What is 6*7?")) as events:
            async for event in events:
                match event:
                    case ModelText():
                        segments += segmenter.written(event.token_ids)
                    case SpanAdded(span) if span.kind not in (SpanKind.PROMPT, SpanKind.MODEL):
                        segments += segmenter.inserted(span.kind, span.token_ids)
                    case CellStarted(code):
                        shown.append(latest_code(segments))
                        assert solver.dialect.code_in(shown[-1].encode()) == code
                    case TraceFinished(trace):
                        segments += segmenter.flush()
    ran = [cell for cell in TraceView(trace, tokenizer).cells if trace.spans[cell.output].kind is SpanKind.TOOL_OUTPUT]
    text = TraceView(trace, tokenizer).text
    assert shown == [text[cell.begin : cell.end].decode(errors="replace") for cell in ran]
    after = [token_id for span in trace.spans[1:] for token_id in span.token_ids]
    assert [token_id for one in segments for token_id in one.token_ids] == after
    assert "".join(one.text for one in segments) == tokenizer.decode(after)
    return segments, trace, box


def latest_code(segments: Sequence[Segment]) -> str:
    """The text of the latest block of code, which must be closed."""
    kinds = [one.kind for one in segments]
    opened = max(at for at, kind in enumerate(kinds) if kind is SegmentKind.CODE_OPEN)
    closed = kinds.index(SegmentKind.CODE_CLOSE, opened)
    assert all(kind is SegmentKind.CODE for kind in kinds[opened + 1 : closed])
    return "".join(one.text for one in segments[opened:closed] if one.kind is SegmentKind.CODE)


TAGS = ("<code>", "</code>", "<code>\n```python\n", "\n```\n</code>", "<co", "</cod")


@cache
def words_tokenizer() -> Tokenizer:
    """A vocabulary of words, blanks and fences in one token, in place of bytes."""
    backend = byte_tokenizer().backend
    backend.add_tokens(["```python\n", "\n```", "``", "`\n", "print(1)\n", "```\n</think>", " Wait,", "x</thi", "1\n`"])
    return Tokenizer(backend, eos_ids=TOKENIZER.eos_ids, render_chat=TOKENIZER.render_chat)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, words_tokenizer()], ids=["bytes", "words"])
@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    options=st.fixed_dictionaries(
        {
            "hint_probability": st.sampled_from([0, 1]),
            "hint_cooldown": st.sampled_from([0, 30]),
            "end_of_think_hints": st.integers(0, 3),
            "max_tool_calls": st.integers(0, 3),
            "max_tokens": st.sampled_from([60, 400]),
            "thinking_token_budget": st.none() | st.sampled_from([0, 50]),
            "stop": st.sampled_from([(), ("1", "</")]),
            "dialect": st.sampled_from(["fences", "retool"]),
        }
    ),
)
def test_what_runs_is_what_was_shown_as_code(tokenizer: Tokenizer, seed: int, options: dict[str, Any]) -> None:
    def babble(request: TurnRequest) -> str:
        source = random.Random(f"{seed} {len(request.token_ids)}")
        return "".join(source.choices((*FRAGMENTS, *TAGS), k=source.randrange(30)))

    asyncio.run(segmented(babble, tokenizer, **options))


async def test_a_trace_with_a_hint_a_cell_and_an_answer() -> None:
    script = [
        "Hm. </think>", "a = 6\nprint(a*7)\n```\n", "So 42.</think>\nThe answer is \\boxed{42}.<|im_end|>",
    ]  # fmt: skip
    segments, trace, box = await segmented(script, hint_probability=0)
    assert box.codes == ["a = 6\nprint(a*7)"]
    kinds = [kind for kind, _ in joined(segments)]
    assert kinds == ["thought", "code_open", "code", "code_close", "output", "thought", "marker", "answer", "marker"]
    hint = "".join(one.text for one in segments if one.author is SpanKind.HINT)
    assert hint == trace.text(SpanKind.HINT)
    assert next(one.text for one in segments if one.author is SpanKind.TOOL_OUTPUT).endswith("```output\n42\n```\n")
    assert segments[-1].text == "<|im_end|>"


CODES = st.lists(st.sampled_from(["x = 1", "    y = 2", "``", "`", "", "print('```')", "é", "\tz", "a\r"]), max_size=8)


@given(CODES.map("\n".join))
async def test_code_is_what_runs(code: str) -> None:
    segments, _, box = await segmented(
        [f"```python\n{code}\n```\n", "</think>\\boxed{1}<|im_end|>"], hint_probability=0, end_of_think_hints=0
    )
    streamed = "".join(one.text for one in segments if one.kind is SegmentKind.CODE)
    assert [program(streamed.encode())] == box.codes
