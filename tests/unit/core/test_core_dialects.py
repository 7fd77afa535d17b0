"""Dialects: code between tags is found however the text is split, and traces keep their dialect."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hints import OPENING_FENCE
from sandbox import FakeSandbox
from start_agent.build import SolverConfig
from start_agent.data.filters import Candidate, FilterOptions, invented_output
from start_agent.data.loss import HintLoss, LossPolicy
from start_agent.data.messages import messages
from start_agent.data.rows import make_row
from start_agent.data.views import TraceView
from start_agent.decoding.replay import replay
from start_agent.decoding.segments import Segmenter, SegmentKind
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.errors import ConfigError
from start_agent.tokens.dialects import DIALECTS, FENCES, RETOOL, Dialect, dialect_of
from start_agent.tokens.markers import Block, MarkerKind, Markers, Match, Matcher, State
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace

FRAGMENTS = [
    *("<code>", "</code>", "<", "code", ">", "</", "<cod", "e>", "/code>", "</think>", "</th", "ink>", "<code></code>"),
    *("\n", "\n\n", " ", "Wait", "Wait,", " Alternatively ", "x = 1", "print('a')", "```python\n", "```\n", "\n```\n"),
    *("\n```text\n", "~~~", "`", "é", "x" * 300, "\n</think>", "Wait<code>", "</code>Wait ", "<code>Wait </code>"),
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map(lambda parts: "".join(parts).encode())
TAGS = Markers(languages=(), code_open="<code>", code_close="</code>")
TOKENIZER = byte_tokenizer()


def matcher(pieces: Sequence[bytes] = ()) -> Matcher:
    return Matcher(cast(Tokenizer, SimpleNamespace(pieces=pieces, added={})), TAGS)


MATCHER = matcher()


def read_in(parts: Sequence[bytes]) -> tuple[State, list[Match]]:
    state, matches = State(), list[Match]()
    for part in parts:
        state, found = MATCHER.read(state, part)
        matches += found
    return state, matches


@settings(max_examples=600)
@given(text=TEXTS, places=st.lists(st.integers(0, 400), max_size=8))
@example(text=b"a <code>x</code> Wait, <code>Wait, </code>", places=[4, 13, 20])
def test_the_way_the_text_is_cut_makes_no_difference(text: bytes, places: list[int]) -> None:
    whole = read_in([text])
    assert read_in([text[i : i + 1] for i in range(len(text))]) == whole
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    assert read_in([text[begin:end] for begin, end in pairwise(edges)]) == whole


def tags_by_hand(text: bytes) -> list[tuple[MarkerKind, int]]:
    """Where tags stand, one after the other, up to the end of thinking outside of code."""
    found: list[tuple[MarkerKind, int]] = []
    inside, place = False, 0
    while place < len(text):
        tag = b"</code>" if inside else b"<code>"
        if text.startswith(tag, place):
            found.append((MarkerKind.CODE_CLOSE if inside else MarkerKind.CODE_OPEN, place))
            inside, place = not inside, place + len(tag)
        elif not inside and text.startswith(b"</think>", place):
            return found
        else:
            place += 1
    return found


@settings(max_examples=600)
@given(text=st.lists(st.sampled_from([f for f in FRAGMENTS if "`" not in f and "~" not in f]), max_size=25))
def test_tags_open_and_close_wherever_they_stand(text: list[str]) -> None:
    data = "".join(text).replace("\n</think>", "").encode()  # in code that ends the thinking, elsewhere it does anyway
    data = data if not any(line.lstrip().startswith(b"</think>") for line in data.split(b"\n")) else b""
    matches = read_in([data])[1]
    kinds = (MarkerKind.CODE_OPEN, MarkerKind.CODE_CLOSE)
    assert [(match.kind, match.begin) for match in matches if match.kind in kinds] == tags_by_hand(data)
    for match in matches:
        if match.kind in kinds:
            assert data[match.begin : match.end] in (b"<code>", b"</code>")


@given(ids=st.lists(st.integers(0, len(FRAGMENTS) - 1), max_size=40))
def test_steps_over_tokens_find_what_reading_their_bytes_finds(ids: list[int]) -> None:
    pieces = [fragment.encode() for fragment in FRAGMENTS]
    using = matcher(pieces)
    state, matches = State(), list[Match]()
    for token_id in ids:
        state, found = using.step(state, token_id)
        matches += found
    whole, expected = read_in([b"".join(pieces[token_id] for token_id in ids)])
    assert matches == expected
    assert (state.block, state.answering, state.position) == (whole.block, whole.answering, whole.position)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("<code>x</code>", ["code_open", "code_close"]),
        ("a <code>\nx\n</code> b", ["code_open", "code_close"]),
        ("<code><code></code></code>", ["code_open", "code_close"]),
        ("</code>x", []),
        ("<code>Wait, x</code> Wait, y", ["code_open", "code_close", "connective"]),
        ("```python\nx\n```\n", []),
        ("```\n<code>x</code>", ["code_open", "code_close"]),
        ("<code>```python\nx\n```\n</code>", ["code_open", "code_close"]),
        ("<code>x = '</think>'</code>", ["code_open", "code_close"]),
        ("<code>x\n</think>", ["code_open", "think_end"]),
        ("</think><code>x</code>", ["think_end"]),
    ],
)
def test_what_is_a_marker(text: str, kinds: list[str]) -> None:
    assert [match.kind.value for match in read_in([text.encode()])[1]] == kinds


@pytest.mark.parametrize(
    "wrong",
    [
        {"code_open": "<c>"},
        {"code_close": "</c>"},
        {"code_open": "<c >", "code_close": "</c>"},
        {"code_open": "<c>", "code_close": "</c>\n"},
        {"code_open": "<c>", "code_close": "<c>"},
        {"code_open": "<c>", "code_close": "</c>", "languages": ("python",)},
        {"code_open": "<c>", "code_close": "</c>", "opening": "```python\n"},
        {"opening": "python\n"},
        {"opening": "```python"},
        {"output_open": ""},
        {"output_close": "</out>"},
    ],
)
def test_what_is_no_dialect(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'mine'"):
        Dialect("mine", **wrong)


def test_what_a_dialect_says_of_hints() -> None:
    assert (FENCES.opening, RETOOL.opening) == (OPENING_FENCE, "<code>\n```python\n")
    assert Dialect("tags", "<c>", "</c>").opening == "<c>\n"
    assert Dialect("sympy", languages=("sympy", "python")).opening == "```sympy\n"


@given(text=st.text())
@pytest.mark.parametrize("dialect", [FENCES, RETOOL])
def test_an_output_comes_back(dialect: Dialect, text: str) -> None:
    assert dialect.text_in("\n" + dialect.output(text)) == text


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("\nprint(1)\n", "\nprint(1)\n"),
        ("print(1)", "print(1)"),
        ("\n```python\nprint(1)\n```\n", "print(1)\n"),
        ("```py\n  if x:\n    y\n```", "if x:\n  y\n"),
        ("\n```python\nprint(1)\n", "print(1)\n"),
        ("\n```python\ns = '''\n```\n'''\n```\n", "s = '''\n```\n'''\n"),
        ("\n```\n", "\n"),
        ("", ""),
    ],
)
def test_the_code_between_tags(block: str, code: str) -> None:
    assert RETOOL.code_in(block.encode()) == code


def test_a_trace_says_its_dialect_in_full() -> None:
    assert dialect_of({}) == FENCES
    mine = Dialect("mine", "<c>", "</c>", output_open="<out>\n", output_close="</out>\n")
    assert dialect_of({"dialect": mine.to_json()}) == mine
    assert dialect_of({"dialect": RETOOL.to_json()}) == RETOOL


def test_a_dialect_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="--dialect: no dialect 'fense': did you mean 'fences'"):
        SolverConfig.of(dialect="fense")
    assert list(DIALECTS.known()) == ["fences", "retool"]


async def solve(script: Sequence[str], box: FakeSandbox, **options: Any) -> Trace:
    async with box:
        solver = Solver(ScriptedEngine(script), box, settings={"dialect": "retool", **options})
        trace = await solver.solve("What is 6*7?")
    replay(trace, TOKENIZER)
    assert segments(trace) == trace.text(*(kind for kind in SpanKind if kind is not SpanKind.PROMPT))
    return trace


def segments(trace: Trace) -> str:
    """The text of a trace from its segments; what runs is code in them, behind what the model left open."""
    view = TraceView(trace, TOKENIZER)
    segmenter = Segmenter(Matcher(TOKENIZER, TAGS), State(), TOKENIZER.eos_ids)
    found = []
    for span in trace.spans:
        if span.kind is SpanKind.MODEL:
            for token_id in span.token_ids:
                found += segmenter.written([token_id])
        elif span.kind is not SpanKind.PROMPT:
            found += segmenter.inserted(span.kind, span.token_ids)
    found += segmenter.flush()
    code = "".join(one.text for one in found if one.kind is SegmentKind.CODE)
    assert code.endswith("".join(view.string(cell.begin, cell.end) for cell in view.cells))
    return "".join(one.text for one in found)


async def test_code_between_tags_runs() -> None:
    box = FakeSandbox(lambda code: "42")
    first = "Let me see. <code>\n```python\nprint(6*7)\n```\n</code>"
    script = [first, "\nSo 42. <code>x</code>", "</think>\\boxed{42}"]
    trace = await solve(script, box, hints=False)
    assert box.codes == ["print(6*7)\n", "x"]
    outputs = [TOKENIZER.decode(span.token_ids) for span in trace.of_kind(SpanKind.TOOL_OUTPUT)]
    assert outputs == ["\n<interpreter>\n42\n</interpreter>\n"] * 2
    assert trace.meta["settings"]["dialect"] == "retool" and trace.meta["dialect"]["code_open"] == "<code>"
    assert trace.answer == "42"
    view = TraceView(trace, TOKENIZER)
    assert [cell.code for cell in view.cells] == box.codes
    chat = messages(view)
    assert [one["content"] for one in chat if one["role"] == "tool"] == ["42", "42"]
    assert [one["tool_calls"][0]["function"]["arguments"]["code"] for one in chat if "tool_calls" in one] == box.codes


async def test_fences_alone_are_no_calls_then() -> None:
    box = FakeSandbox()
    trace = await solve(["```python\nprint(1)\n```\n</think>\\boxed{1}"], box, hints=False)
    assert box.codes == [] and trace.answer == "1"


async def test_hints_open_code_with_the_tag() -> None:
    box = FakeSandbox(lambda code: "42")
    script = ["It is 40. Wait, no.", "print(6*7)\n```\n</code>", "So 42.</think>", "y\n</code>", "</think>\\boxed{42}"]
    trace = await solve(script, box, hint_probability=1, end_of_think_hints=1)
    hints = [TOKENIZER.decode(span.token_ids) for span in trace.of_kind(SpanKind.HINT)]
    assert len(hints) == 2 and all(hint.endswith("\n<code>\n```python\n") for hint in hints)
    assert box.codes == ["print(6*7)\n", "y\n"]
    assert trace.unhinted_tool_calls == 0
    for policy, kept in ((HintLoss.DROP, "\n<code>\n```python\n"), (HintLoss.MASK, "")):
        row = make_row(trace, TOKENIZER, LossPolicy(hint=policy))
        learned = TOKENIZER.decode([label for label in row.labels if label >= 0])
        assert learned.count("<code>") == (2 if kept else 0)
        assert kept in learned


async def test_code_that_the_model_left_open_is_closed_before_a_hint() -> None:
    box = FakeSandbox(lambda code: "5")
    script = ["Let me see. <code>\nx = 1\n</think>", "print(2+3)\n```\n</code>", "</think>\\boxed{5}"]
    trace = await solve(script, box, max_hints=0, end_of_think_hints=1)
    hint = TOKENIZER.decode(next(trace.of_kind(SpanKind.HINT)).token_ids)
    assert hint.startswith("</code>\n") and hint.endswith("<code>\n```python\n")
    assert box.codes == ["print(2+3)\n"]


async def test_a_notice_stands_between_the_dialects_words() -> None:
    box = FakeSandbox(lambda code: "1")
    trace = await solve(["<code>x</code>", "<code>y</code>", "</think>1"], box, hints=False, max_tool_calls=1)
    notice = TOKENIZER.decode(next(trace.of_kind(SpanKind.NOTICE)).token_ids)
    assert notice.startswith("\n<interpreter>\n") and notice.endswith("</interpreter>\n")


async def test_a_fenced_dialect_with_a_language_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Dialect("mine", languages=("calc",), output_open="```result\n")
    monkeypatch.setattr(DIALECTS, "_known", {"fences": FENCES, "mine": mine})
    box = FakeSandbox(lambda code: "5")
    async with box:
        engine = ScriptedEngine(["```python\nno\n```\n```calc\n2+3\n```", "Wait, ok", "1\n```", "</think>\\boxed{5}"])
        solver = Solver(engine, box, settings={"dialect": "mine", "hint_probability": 1, "end_of_think_hints": 0})
        solver = solver.changed(settings=solver.settings.model_copy(update={"hint_cooldown": 0}))
        trace = await solver.solve("?")
    assert box.codes == ["2+3", "1"]
    monkeypatch.undo()
    replay(trace, TOKENIZER)  # without the dialect being known
    assert "```result\n5\n```\n" in trace.text(SpanKind.TOOL_OUTPUT)
    assert trace.text(SpanKind.HINT).endswith("```calc\n")
    assert [cell.code for cell in TraceView(trace, TOKENIZER).cells] == box.codes


def test_a_state_between_tags_is_code() -> None:
    state, _ = read_in([b"a <code>x\ny"])
    assert (state.block, state.fence) == (Block.CODE, None)


@pytest.mark.parametrize(("said", "refused"), [("<interpreter>\n42", True), ("I: <interpreter> is a tag.\n", False)])
async def test_an_output_that_the_model_made_up_is_found(said: str, refused: bool) -> None:
    trace = await solve([f"{said}\n</interpreter>\n</think>\\boxed{{42}}"], FakeSandbox(), hints=False)
    candidate = Candidate.of({"key": "a"}, trace, TOKENIZER)
    assert invented_output(candidate, FilterOptions()) is refused
