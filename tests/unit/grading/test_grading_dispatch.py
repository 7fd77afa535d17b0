"""``grade``: each kind of problem to its grader, traces and texts alike."""

from __future__ import annotations

import json

import pytest

from hints import Domain
from sandbox import FakeSandbox
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.grading import GraderPool, Reason, grade
from start_agent.problem import CodeTests, Kind, Problem
from start_agent.tokens.answers import final_text, last_code_block
from start_agent.tokens.stopping import StopKind
from start_agent.trace import Span, SpanKind, Trace, TraceOutcome

MATH = Problem("What is 6 * 7?", "42")
CHOICE = Problem("Which?", "B", Kind.CHOICE, choices=("bank", "mall"))
CODE = Problem(
    "Print 6.", "", Kind.CODE, tests=CodeTests(json.dumps([{"input": "", "output": "6", "testtype": "stdin"}]))
)
TOKENIZER = byte_tokenizer()
BLOCK = "```python\nprint(6)\n```"


def trace(*spans: tuple[SpanKind, str], answer: str | None = None, outcome: TraceOutcome | None = None) -> Trace:
    made = [Span(kind, tuple(TOKENIZER.encode(text))) for kind, text in spans]
    ended = outcome or (TraceOutcome.NO_ANSWER if answer is None else TraceOutcome.ANSWERED)
    return Trace(made, ended, answer, {"thinking": True, "think_end": "</think>"}, schema=1)


async def test_math_with_and_without_a_pool() -> None:
    finished = trace((SpanKind.MODEL, "</think>\\boxed{42}"), answer="42")
    assert (await grade(MATH, finished)).correct
    assert (await grade(MATH, "so \\boxed{042}")).correct
    assert (await grade(MATH, None)).reason is Reason.NO_ANSWER
    assert (await grade(MATH, trace((SpanKind.MODEL, "hm")))).reason is Reason.NO_ANSWER
    async with GraderPool(1) as pool:
        assert (await grade(MATH, finished, pool=pool)).correct
        share = Problem("Of 50, 10 are red. What percentage is red?", "20")
        assert (await grade(share, "\\boxed{20\\%}", pool=pool)).correct
        assert not (await grade(MATH, "\\boxed{42\\%}", pool=pool)).correct


async def test_choice() -> None:
    assert (await grade(CHOICE, "\\boxed{B}")).correct
    assert (await grade(CHOICE, trace((SpanKind.MODEL, ""), answer="mall"))).parsed == "B"


async def test_code_is_taken_from_after_thinking() -> None:
    async with FakeSandbox(lambda code: "6") as fake:
        thought = (SpanKind.MODEL, "```python\nprint(5)\n```\n")
        output = (SpanKind.TOOL_OUTPUT, "```output\n</think>\n```\n")
        finished = trace((SpanKind.PROMPT, "q"), thought, output, (SpanKind.MODEL, f"</think>Here:\n{BLOCK}\n"))
        verdict = await grade(CODE, finished, sandbox=fake, decode=TOKENIZER.decode)
        assert verdict.correct and verdict.parsed == "print(6)\n"
        verdict = await grade(
            CODE, trace(thought, (SpanKind.MODEL, "</think>none")), sandbox=fake, decode=TOKENIZER.decode
        )
        assert verdict.reason is Reason.NO_ANSWER
        assert (await grade(CODE, f"Text\n{BLOCK}", sandbox=fake)).correct
        assert (await grade(CODE, None, sandbox=fake)).reason is Reason.NO_ANSWER
        with pytest.raises(ValueError, match="decode"):
            await grade(CODE, finished, sandbox=fake)
    with pytest.raises(ValueError, match="sandbox"):
        await grade(CODE, BLOCK)


async def test_an_unfinished_trace_cannot_be_graded() -> None:
    with pytest.raises(ValueError, match="not finished"):
        await grade(MATH, Trace())


def test_a_fence_before_the_end_of_sequence_closes_its_block() -> None:
    finished = Trace(
        [Span(SpanKind.MODEL, tuple(TOKENIZER.encode_template(f"</think>{BLOCK}<|im_end|>")), StopKind.EOS.value)],
        TraceOutcome.NO_ANSWER,
        answer_begins=(8, 0),
    )
    text = final_text(finished, TOKENIZER.decode)
    assert text == BLOCK and last_code_block(text) == "print(6)\n"


def test_final_text() -> None:
    finished = trace((SpanKind.MODEL, "hm</think>answer </think> more"))
    assert final_text(finished, TOKENIZER.decode) == "answer </think> more"
    assert final_text(trace((SpanKind.MODEL, "never closed")), TOKENIZER.decode) == "never closed"
    stopped = trace((SpanKind.MODEL, "hm"), outcome=TraceOutcome.TOKEN_LIMIT)
    assert final_text(stopped, TOKENIZER.decode) is None
    finished.meta["thinking"] = False
    assert final_text(finished, TOKENIZER.decode) == "hm</think>answer </think> more"


DRAFT = "```python\nprint('</think>')\n```\nA draft:\n```python\nprint(7)\n```\n"


async def test_a_draft_is_not_graded() -> None:
    """An end of thinking that a cell spells ends none."""

    async def solve(said: list[str], **settings: int) -> Trace:
        engine = ScriptedEngine(said)
        chosen = DecodingSettings(hints=False, domain=Domain.CODE, **settings)
        async with FakeSandbox(lambda code: "</think>") as box:
            return await Solver(engine, box, settings=chosen).solve("Print 6.")

    cell, draft = DRAFT.split("A draft")
    for more in (-5, 50):
        said = [cell, f"A draft{draft}", "".join(map(str, range(100)))]
        stopped = await solve(said, max_tokens=len(DRAFT) + more)
        assert stopped.outcome is TraceOutcome.TOKEN_LIMIT and stopped.answer is None
        assert stopped.answer_begins is None and final_text(stopped, TOKENIZER.decode) is None
    ended = await solve([cell, f"A draft{draft}", f"Well.\n</think>\nSo:\n{BLOCK}"])
    assert final_text(ended, TOKENIZER.decode) == f"\nSo:\n{BLOCK}"
    assert ended.answer == last_code_block(BLOCK)
    for finished, right in ((stopped, False), (ended, True)):
        for trace in (finished, Trace.from_json(finished.to_json())):
            async with FakeSandbox(lambda code: "6") as fake:
                assert (await grade(CODE, trace, sandbox=fake, decode=TOKENIZER.decode)).correct is right


def test_an_answer_that_begins_within_a_token() -> None:
    ids = TOKENIZER.encode("q\u00e9") + TOKENIZER.encode("hm</think>\u00e9 6")
    model = tuple(ids[3:])
    finished = Trace([Span(SpanKind.PROMPT, tuple(ids[:3])), Span(SpanKind.MODEL, model)], TraceOutcome.NO_ANSWER)
    finished.answer_begins = (9, 4)  # as if </think> and more were one token
    assert final_text(finished, TOKENIZER.decode) == "\u00e9 6"


@pytest.mark.parametrize(
    ("said", "gold", "right"),
    [
        ("The roots are \\boxed{2} and \\boxed{3}.", "2,3", True),
        ("First \\boxed{5}, then \\boxed{3}.", "3", True),  # one number is asked for: the last
        ("First \\boxed{3}, then \\boxed{5}.", "3", False),
        ("\\boxed{1}, no: \\boxed{2,3}", "2,3", True),
        ("\\boxed{2} and \\boxed{4}", "2,3", False),
        ("\\boxed{1} and \\boxed{2}", "(1,2)", False),  # a point is one answer
    ],
)
async def test_several_boxes(said: str, gold: str, right: bool) -> None:
    async with GraderPool(1) as pool:
        assert (await grade(Problem("What?", gold), said, pool=pool)).correct is right


async def test_an_unreadable_gold_answer_is_not_the_model_s_error() -> None:
    async with GraderPool(1) as pool:
        verdict = await grade(Problem("What?", "\\frac{1}{"), "\\boxed{2}", pool=pool)
    assert verdict.reason is Reason.UNGRADABLE
