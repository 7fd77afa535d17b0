"""Options of a single trace, and solvers with other options for a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hints import Domain, Function, Hint, HintLibrary, Placement
from sandbox import FakeSandbox, Result
from start_agent.decoding.actions import FIRST_HINT, THINKING_OPENED, FirstHint
from start_agent.decoding.replay import replay
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.decoding.trace_options import first_hint_of
from start_agent.engines.base import Sampling
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.errors import ConfigError, PromptError, QuestionError
from start_agent.tokens.dialects import FENCES
from start_agent.tokens.markers import Markers
from start_agent.tokens.templates import ChatOptions
from start_agent.tokens.tokenizer import Message, Tokenizer
from start_agent.trace import SpanKind, Trace, TraceOutcome

BARE: dict[str, Any] = {"hints": False}
TOKENIZER = byte_tokenizer()
ANSWER = "</think>\\boxed{42}"
OPENS = Hint(
    "opens", 1, Domain.MATH, Function.DEEP_THINKING, Placement.CONNECTIVE, "let me run it.\n```python\n", "the tests"
)
HINTS = HintLibrary([*HintLibrary.builtin(), OPENS])


def text(trace: Trace, *kinds: SpanKind) -> str:
    return trace.text(*kinds, decode=TOKENIZER.decode)


def test_a_changed_solver_shares_what_is_dear() -> None:
    solver = Solver(ScriptedEngine([]), FakeSandbox(), hints=HINTS, settings=BARE, system="Be brief.")
    other = solver.changed(
        settings=DecodingSettings(max_tool_calls=1), sampling={"temperature": 0.5}, system="", instruction="Box it."
    )
    assert (other.settings.max_tool_calls, other.sampling.temperature) == (1, 0.5)
    assert (other.system, other.instruction) == ("", "Box it.")
    assert other.hints is solver.hints and other.format is solver.format and other.sandbox is solver.sandbox
    assert other._matcher(Markers()) is solver._matcher(Markers())
    same = other.changed()
    assert (same.settings, same.sampling, same.system, same.instruction, same.chat) == (
        other.settings,
        other.sampling,
        other.system,
        other.instruction,
        other.chat,
    )


def test_sampling_that_is_changed_starts_from_the_models_own() -> None:
    double = byte_tokenizer()
    tokenizer = Tokenizer(double.backend, render_chat=double.render_chat, generation={"temperature": 0.6, "top_p": 0.9})
    solver = Solver(ScriptedEngine([], tokenizer=tokenizer), settings={"tools": False}, sampling={"top_k": 5})
    assert solver.changed(sampling={"temperature": 1.0}).sampling == Sampling(temperature=1.0, top_p=0.9)
    assert solver.changed(sampling=Sampling()).sampling == Sampling()
    assert solver.changed().notices()[:1] == solver.notices()[:1] != []


def test_another_chat_has_a_format_of_its_own_and_keeps_the_users_paths(tmp_path: Path) -> None:
    families = tmp_path / "families.yaml"
    families.write_text("- {name: mine, start: <mine>, ends: [</mine>]}\n", encoding="utf-8")
    theirs = Path("of/the/user.yaml")
    solver = Solver(
        ScriptedEngine([]),
        settings={"tools": False},
        chat=ChatOptions(think_markers=families),
        recorded_chat=ChatOptions(think_markers=theirs),
    )
    other = solver.changed(chat=solver.chat.model_copy(update={"think_end": "</so>"}))
    assert other.format is not solver.format
    assert other.format.prompt("q").think_ends == ("</so>",)
    assert other._recorded_chat == ChatOptions(think_markers=theirs, think_end="</so>")
    with pytest.raises(ConfigError):
        _ = solver.changed(chat={"think_markers": tmp_path / "missing.yaml"}).format


def test_the_matchers_of_requests_do_not_pile_up() -> None:
    solver = Solver(ScriptedEngine([]), settings={"tools": False})
    first = solver._matcher(Markers())
    for number in range(100):
        solver.changed()._matcher(Markers((f"word{number}",)))
    assert len(solver._matchers) == 32 and solver._matcher(Markers()) is not first


async def test_a_session_that_is_given_is_used_and_stays_open() -> None:
    engine = ScriptedEngine(["```python\nx = 1\n```", ANSWER])
    async with FakeSandbox(lambda code: "1") as box, box.session() as session:
        solver = Solver(engine, box, settings=BARE)
        for _ in range(2):
            trace = await solver.solve("What?", session=session)
            assert trace.meta["shared_session"] is True and trace.meta["sandbox"] == "fake"
        assert (box.stats.sessions, box.stats.cells, box.open_sessions) == (1, 2, 1)
        assert (await session.execute("y")).text == "1"
        assert "shared_session" not in (await solver.solve("What?")).meta
        assert (box.stats.sessions, box.open_sessions) == (2, 1)


async def test_a_trace_may_be_named_and_kept_in_the_engine() -> None:
    engine = ScriptedEngine(lambda request: ANSWER)
    solver = Solver(engine, settings={"tools": False})
    await solver.solve("What?", trace_id="mine", keep=True)
    assert engine.requests[-1].trace_id == "mine" and engine.released == []
    await solver.solve("What?", trace_id="mine")
    assert engine.released == ["mine"]


async def test_a_trace_that_is_kept_stays_so_where_it_fails() -> None:
    engine = ScriptedEngine(["```python\nx\n```"])
    async with FakeSandbox(lambda code: Result.__new__(Result)) as box:
        solver = Solver(engine, box, settings=BARE)
        with pytest.raises(AttributeError):
            await solver.solve("What?", trace_id="mine", keep=True)
    assert engine.released == []


@pytest.mark.parametrize("given", ["opens", "Wait, </think> <|im_end|> a text of my own: "])
async def test_a_first_hint_begins_the_thinking(given: str) -> None:
    engine = ScriptedEngine(["print(1)\n```", f"1.\n{ANSWER}"] if given == "opens" else [f"so 42.\n{ANSWER}"])
    async with FakeSandbox(lambda code: "1") as box:
        solver = Solver(engine, box, settings=BARE, hints=HINTS)
        trace = await solver.solve("What?", first_hint=given)
    hint = trace.spans[1]
    assert [span.kind for span in trace.spans[:3]] == [SpanKind.PROMPT, SpanKind.HINT, SpanKind.MODEL]
    assert hint.cause == ("opens" if given == "opens" else FIRST_HINT)
    assert TOKENIZER.decode(hint.token_ids) == ("Let me run it.\n```python\n" if given == "opens" else given)
    assert max(hint.token_ids) < 256  # a token that is spelled out stays text
    assert box.codes == (["print(1)"] if given == "opens" else [])
    assert (trace.outcome, trace.answer) == (TraceOutcome.ANSWERED, "42")
    replay(trace, TOKENIZER, HINTS)
    assert Trace.from_json(trace.to_json()) == trace


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("math.self_reflection.conective.1", "'math.self_reflection.connective.1'"),
        ("math/self-reflection/connective/1", "'math.self_reflection.connective.1'"),
        ("nothing", repr(next(iter(HintLibrary.builtin())).id)),
    ],
)
async def test_a_mistyped_id_of_a_hint_is_refused(given: str, named: str) -> None:
    engine = ScriptedEngine([ANSWER])
    with pytest.raises(ConfigError) as refused:
        await Solver(engine, settings=BARE | {"tools": False}).solve("What?", first_hint=given)
    assert named in str(refused.value) and engine.requests == []


@pytest.mark.parametrize("given", ["hmm ", "hmm\n", "Hmm", "well,", "a b"])
def test_a_text_of_one_word_is_a_hint(given: str) -> None:
    assert first_hint_of(given, HINTS, FENCES) == FirstHint(given)


def thinking_tokenizer(end: str = "", controls: tuple[str, ...] = ("<think>", "</think>")) -> Tokenizer:
    """A model whose prompt ends so, and that has its think markers as tokens."""
    backend = byte_tokenizer().backend
    backend.add_special_tokens(list(controls))

    def render(messages: list[Message]) -> str:
        turns = (f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
        return "".join(turns) + f"<|im_start|>assistant\n{end}"

    return Tokenizer(backend, eos_ids=[258], render_chat=render)


async def test_a_thinking_that_the_model_would_open_is_opened_before_the_first_hint() -> None:
    tokenizer = thinking_tokenizer()
    engine = ScriptedEngine(["so 42.</think>\\boxed{42}"], tokenizer=tokenizer)
    trace = await Solver(engine, settings={"tools": False}).solve("What?", first_hint="Run it: ")
    assert [span.kind for span in trace.spans[:3]] == [SpanKind.PROMPT, SpanKind.NOTICE, SpanKind.HINT]
    assert trace.spans[1].cause == THINKING_OPENED
    (opening,) = trace.spans[1].token_ids
    assert tokenizer.controls[opening] == "<think>"
    assert trace.answer == "42"
    replay(trace, tokenizer)


async def test_a_channel_is_opened_before_the_first_hint() -> None:
    step = "<|end|><|start|>assistant<|channel|>final<|message|>"
    start = "<|channel|>analysis<|message|>"
    tokenizer = thinking_tokenizer(controls=("<|end|>", "<|start|>", "<|channel|>", "<|message|>"))
    engine = ScriptedEngine(["Run.\n```python\n1\n```", f"So.{step}\\boxed{{42}}"], tokenizer=tokenizer)
    chat = {"think_start": start, "think_end": step}
    async with FakeSandbox(lambda code: "1") as box:
        trace = await Solver(engine, box, settings=BARE, chat=chat).solve("What?", first_hint="Use Python. ")
        assert box.codes == ["1"]
    assert tokenizer.decode(trace.spans[1].token_ids) == start
    assert sum(token_id in tokenizer.controls for token_id in trace.spans[1].token_ids) == 2
    assert trace.answer == "42" and trace.answer_begins is not None
    replay(trace, tokenizer)


async def test_a_first_hint_without_a_thinking_is_refused() -> None:
    engine = ScriptedEngine([], tokenizer=thinking_tokenizer("<think>\n\n</think>\n\n"))
    with pytest.raises(PromptError):
        await Solver(engine, settings={"tools": False}).solve("What?", first_hint="Use Python.")


async def test_a_conversation_in_place_of_a_question() -> None:
    engine = ScriptedEngine(lambda request: ANSWER)
    solver = Solver(engine, settings={"tools": False}, instruction="Box it.", system="Be brief.")
    messages = [
        {"role": "user", "content": "2+3?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "6*7?"},
    ]
    trace = await solver.solve(messages=messages)
    assert text(trace, SpanKind.PROMPT) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n"
        "5<|im_end|>\n<|im_start|>user\n6*7?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert trace.meta["messages"] == messages and trace.meta["question"] == "6*7?"
    assert (trace.meta["instruction"], trace.meta["system"]) == ("", "Be brief.")
    replay(trace, TOKENIZER)
    asked = await solver.solve(messages=messages, instruction="In a box.")
    assert "6*7?\n\nIn a box.<|im_end|>" in text(asked, SpanKind.PROMPT)
    assert "2+3?<|im_end|>" in text(asked, SpanKind.PROMPT)
    assert "Box it." not in text(await solver.solve("2?", instruction=""), SpanKind.PROMPT)


async def test_what_is_asked_is_asked_once() -> None:
    solver = Solver(ScriptedEngine([]), settings={"tools": False})
    with pytest.raises(ValueError):
        await solver.solve("x", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(ValueError):
        await solver.solve()
    with pytest.raises(QuestionError):
        await solver.solve(messages=[])
