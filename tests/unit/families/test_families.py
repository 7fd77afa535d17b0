"""Families of models: the same tests for each, on imitations of their templates and vocabularies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hints import Domain, Function, Hint, HintLibrary, Placement
from sandbox import FakeSandbox
from start_agent.decoding.replay import replay
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import ScriptedEngine
from start_agent.tokens.prompts import ChatFormat, render_prompt
from start_agent.tokens.templates import ChatOptions
from start_agent.tokens.tokenizer import Message, Tokenizer
from start_agent.trace import SpanKind, Trace, TraceOutcome
from tests.support.families.table import FAMILIES, FamilyDouble, save

NAMES = sorted(FAMILIES)
HINTS = HintLibrary(
    [
        Hint(place.value, 1, Domain.MATH, function, place, text, "the tests")
        for place, function, text in (
            (Placement.CONNECTIVE, Function.DEEP_THINKING, " a program can tell."),
            (Placement.END_OF_THINK, Function.DEEP_THINKING, "Let me check it again."),
        )
    ]
)


@dataclass(frozen=True)
class Loaded:
    double: FamilyDouble
    theirs: Any
    ours: Tokenizer

    def theirs_of(self, question: str, system: str = "", **variables: Any) -> list[int]:
        """What transformers makes of a question."""
        messages = [{"role": "system", "content": system}] if system else []
        return self.theirs_of_all([*messages, {"role": "user", "content": question}], **variables)

    def theirs_of_all(self, messages: list[Message], **variables: Any) -> list[int]:
        """What transformers makes of a conversation."""
        encoded = self.theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, **variables)
        return list(encoded["input_ids"])


@cache
def load(name: str) -> Loaded:
    folder, double = Path(mkdtemp()), FAMILIES[name]
    return Loaded(double, save(double, folder), Tokenizer.from_pretrained(str(folder)))


def options(variables: dict[str, Any]) -> ChatOptions:
    return ChatOptions(chat_template_kwargs=variables)


PIECES = ["2", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "é", "e\u0301", "漢字", "🙂", "[", "<", "[IN", "]"]
PIECES += ["/no", "user", "\u00a0", "'s", ".", "?", "<b>", "\\[x\\]", "▁", "\ue000", "\U00100000"]
WRITTEN = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(question=WRITTEN, system=WRITTEN)
def test_prompt_ids_are_those_of_transformers(name: str, question: str, system: str) -> None:
    loaded, question = load(name), f"q{question}?"
    for variables in ({}, loaded.double.on, loaded.double.off):
        ours = render_prompt(loaded.ours, question, system=system, options=options(variables))
        assert list(ours.token_ids) == loaded.theirs_of(question, system, **variables)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), before=WRITTEN, behind=WRITTEN)
def test_a_special_token_in_a_question_stays_text(name: str, data: st.DataObject, before: str, behind: str) -> None:
    loaded = load(name)
    controls = sorted(loaded.ours.controls.values())
    spelled = data.draw(st.lists(st.sampled_from(controls), min_size=1, max_size=3).map("x".join))
    cut = data.draw(st.integers(0, len(spelled)))
    question = f"q{before}{spelled}{behind}{spelled[:cut]}{controls[0]}?"
    prompt = render_prompt(loaded.ours, question)
    bare = render_prompt(loaded.ours, "q?")

    def controls_of(ids: tuple[int, ...]) -> list[int]:
        return [token_id for token_id in ids if token_id in loaded.ours.controls]

    assert controls_of(prompt.token_ids) == controls_of(bare.token_ids)
    text = loaded.ours.decode(prompt.token_ids)
    if loaded.double.vocabulary in ("qwen", "llama3"):
        import unicodedata

        assert unicodedata.normalize("NFC", question) in unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("name", NAMES)
def test_bos_stands_once(name: str) -> None:
    loaded = load(name)
    bos = loaded.theirs.bos_token_id
    ids = render_prompt(loaded.ours, "What is 2 + 3?", system="Be brief.").token_ids
    assert ids.count(bos) == (bos is not None and loaded.double.name != "phi-3")


@pytest.mark.parametrize("name", NAMES)
def test_the_thinking_is_found_or_said_to_be_off(name: str) -> None:
    loaded = load(name)
    double = loaded.double
    as_it_is, on = ChatFormat(loaded.ours), ChatFormat(loaded.ours, options(double.on))
    assert on.prompt("q").thinking and on.notices() == []
    assert on.prompt("q").think_ends[0] == (double.end or "</think>")
    if double.on:
        assert not as_it_is.prompt("q").thinking
        (line,) = as_it_is.notices()
        assert next(iter(double.on)) in line and "--chat-template-kwargs" in line
    if double.off or double.off_system:
        off = ChatFormat(loaded.ours, options(double.off))
        assert not off.prompt("q", system=double.off_system).thinking
        assert len(off.notices(double.off_system)) == 1


async def solve(double: FamilyDouble, script: list[str], **settings: Any) -> tuple[Trace, FakeSandbox]:
    tokenizer = load(double.name).ours
    engine, chosen = ScriptedEngine(script, tokenizer=tokenizer), {"hint_probability": 1.0, **settings}
    async with FakeSandbox({"print(6*7)": "42"}) as box:
        solver = Solver(engine, box, settings=chosen, hints=HINTS, chat={"chat_template_kwargs": double.on})
        trace = await solver.solve("What is 6*7?")
    replay(trace, tokenizer, HINTS)
    return trace, box


CODE = "\n```python\nprint(6*7)\n```"


@pytest.mark.parametrize("name", NAMES)
async def test_hints_are_placed_code_runs_and_the_answer_is_found(name: str) -> None:
    double = FAMILIES[name]
    answer = "The answer is \\boxed{42}."
    ending = f"{double.end}{answer}" if double.end else answer
    script = [f"{double.opens}Let me think. Wait, what", f" I run it.{CODE}", f"It is 42.\n{ending}", f"Yes.\n{ending}"]
    trace, box = await solve(double, script)
    decode = load(name).ours.decode
    assert box.codes == ["print(6*7)"]
    assert (trace.outcome, trace.answer) == (TraceOutcome.ANSWERED, "42")
    wanted = ["prompt", "model", "hint", "model", "tool_output", "model", "hint", "model"]
    assert [span.kind.value for span in trace.spans] == wanted
    assert [span.cause for span in trace.of_kind(SpanKind.HINT)] == ["connective", "end_of_think"]
    written = decode(token_id for span in trace.spans[1:] for token_id in span.token_ids)
    assert written.rindex("check it again.") < written.rindex("\\boxed{42}")
    if double.end:  # the hint took the place of all of the first end: it stands once, behind both hints
        assert written.count(double.end) == 1
        assert written.index("check it again.") < written.index(double.end)


@pytest.mark.parametrize("budget", [0, 12])
@pytest.mark.parametrize("name", NAMES)
async def test_a_budget_for_thinking_ends_it_as_the_model_would(name: str, budget: int) -> None:
    """The marker is made of the tokens that the model writes, and a thinking that it has not opened is opened."""
    double, ours = FAMILIES[name], load(name).ours
    end = double.end or "</think>"
    script = [f"{double.opens}Let me think and think and think again.", "It is \\boxed{42}."]
    if budget == 0 and not double.opens.startswith("<|channel"):
        script = script[1:]  # nothing is thought: all that the model is asked for is its answer
    trace, _ = await solve(double, script, thinking_token_budget=budget, hints=False)
    (notice,) = [span for span in trace.of_kind(SpanKind.NOTICE) if span.cause == "thinking_budget"]
    assert (trace.outcome, trace.answer) == (TraceOutcome.ANSWERED, "42")
    meant = [spelled for spelled in sorted(ours.controls.values(), key=len, reverse=True) if spelled in end]
    assert sorted(
        {ours.controls[token_id] for token_id in notice.token_ids if token_id in ours.controls} & {*meant}
    ) == sorted(meant)
    written = ours.decode(token_id for span in trace.spans[1:] for token_id in span.token_ids)
    assert written.count(end) == 1
    thoughts, _, answer = written.partition(end)
    assert answer.lstrip().startswith("It is") and (budget == 0 or "Let" in thoughts)
    if double.opens:
        assert thoughts.count(double.opens.strip()) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_first_hint_begins_the_thinking_of_each_family(name: str) -> None:
    double, ours = FAMILIES[name], load(name).ours
    script = ["I run it.\n```python\nprint(6*7)\n```", f"42.{double.end}The answer is \\boxed{{42}}."]
    engine = ScriptedEngine(script, tokenizer=ours)
    async with FakeSandbox({"print(6*7)": "42"}) as box:
        solver = Solver(engine, box, settings={"hints": False}, chat={"chat_template_kwargs": double.on})
        trace = await solver.solve("What is 6*7?", first_hint="Python is exact. ")
    replay(trace, ours)
    assert box.codes == ["print(6*7)"] and trace.answer == "42"
    written = ours.decode(token_id for span in trace.spans[1:] for token_id in span.token_ids)
    opening, _, _ = written.partition("Python is exact.")
    assert opening.strip() == double.opens.strip()


@pytest.mark.parametrize("name", [name for name in NAMES if FAMILIES[name].on or FAMILIES[name].off])
async def test_nothing_is_inserted_where_the_thinking_is_off(name: str) -> None:
    double = FAMILIES[name]
    engine = ScriptedEngine([f"Wait, so{CODE}\n\\boxed{{42}}"], tokenizer=load(name).ours)
    async with FakeSandbox(lambda code: "no") as box:
        solver = Solver(engine, box, settings={"hint_probability": 1.0}, chat={"chat_template_kwargs": double.off})
        trace = await solver.solve("What is 6*7?")
    assert [span.kind.value for span in trace.spans] == ["prompt", "model"]
    assert trace.answer == "42" and box.codes == []


@pytest.mark.parametrize("name", ["gpt-oss", "gemma-4"])
async def test_a_channel_for_the_answer_is_left_alone(name: str) -> None:
    """A model that answers without having opened its channel for thoughts is neither hinted nor run."""
    double = FAMILIES[name]
    final = "<|channel|>final<|message|>" if name == "gpt-oss" else ""
    trace, box = await solve(double, [f"{final}Wait, so{CODE}\n\\boxed{{42}}"])
    assert [span.kind.value for span in trace.spans] == ["prompt", "model"]
    assert trace.answer == "42" and box.codes == []
    assert trace.spans[-1].token_ids[-1] in load(name).ours.eos_ids


async def test_a_second_message_of_the_analysis_is_thinking_still() -> None:
    double = FAMILIES["gpt-oss"]
    again = "<|end|><|start|>assistant<|channel|>analysis<|message|>"
    script = [f"{double.opens}One.{again}Two.{CODE}", f"42.{double.end}\\boxed{{42}}"]
    trace, box = await solve(double, script, end_of_think_hints=0)
    assert box.codes == ["print(6*7)"] and trace.answer == "42"


def test_an_unknown_channel_is_refused(tmp_path: Path) -> None:
    from start_agent.errors import PromptError

    loaded = load("gpt-oss")
    other = tmp_path / "other.jinja"
    other.write_text(loaded.double.template.replace("analysis", "musing"), encoding="utf-8")
    with pytest.raises(PromptError, match="--think-start"):
        render_prompt(loaded.ours, "q", options=ChatOptions(chat_template=other))
    start, end = "<|channel|>musing<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"
    named = ChatOptions(chat_template=other, think_start=start, think_end=end)
    file = tmp_path / "families.yaml"
    file.write_text(f'- {{name: mine, start: "{start}", ends: ["{end}"], channel: true}}\n', encoding="utf-8")
    for chosen in (named, ChatOptions(chat_template=other, think_markers=file)):
        prompt = render_prompt(loaded.ours, "q", options=chosen)
        assert (prompt.think_start, prompt.think_ends) == (start, (end,))


@pytest.mark.parametrize("name", ["gpt-oss", "gemma-4", "magistral", "seed-oss", "qwen3"])
def test_a_template_that_names_no_markers_has_those_of_its_vocabulary(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bare.jinja"
    path.write_text("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}", encoding="utf-8")
    prompt = render_prompt(load(name).ours, "q", options=ChatOptions(chat_template=path))
    assert prompt.think_ends[0] == FAMILIES[name].end
    assert bool(prompt.think_start) == (name in ("gpt-oss", "gemma-4"))
