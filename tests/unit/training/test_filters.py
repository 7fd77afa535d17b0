"""Filters, each with traces on both sides of its threshold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from start_agent.data import filters
from start_agent.data.filters import Candidate, FilterOptions, refused_by
from start_agent.tokens.stopping import Repetition
from start_agent.trace import Span, Trace, TraceOutcome
from tests.support.traces import HINTED, M, N, Spelled, output, record, spelled
from tests.support.vocabularies import vocabulary

TOKENIZER = vocabulary("pocket").tokenizer
ANSWER: Spelled = (M, "</think>\n\n\\boxed{42}", "eos")
CODE: Spelled = (M, "```python\nprint(6 * 7)\n```\n", "code_close")


def candidate(trace: Trace) -> Candidate:
    return Candidate.of(record(trace), trace, TOKENIZER)


def of(*spans: Spelled, **meta: Any) -> Candidate:
    return candidate(spelled(TOKENIZER, *spans, **meta))


def refusal(given: Candidate, **options: Any) -> str | None:
    return refused_by(given, FilterOptions(**options))


def test_a_good_trace_passes_them_all() -> None:
    assert refusal(of(*HINTED)) is None
    assert refusal(of((M, "It is 42.\n</think>\\boxed{42}", "eos"))) is None


def test_infrastructure_faults() -> None:
    trace = spelled(TOKENIZER, CODE, output("42"), ANSWER)
    assert not filters.faulty(candidate(trace), FilterOptions())
    assert refusal(candidate(Trace(trace.spans, None, "42", trace.meta))) == "infrastructure_fault"
    assert refusal(of(CODE, ANSWER)) == "infrastructure_fault"  # code without a result
    assert refusal(of(CODE)) == "infrastructure_fault"
    assert refusal(of(CODE, output("42", "lost"), ANSWER)) == "infrastructure_fault"
    assert refusal(of(CODE, output("LimitError", "cells"), ANSWER)) == "infrastructure_fault"
    assert not filters.faulty(
        of(CODE, (N, "```output\nNot run.\n```\n", "tool_calls_used_up"), ANSWER), FilterOptions()
    )


def test_unsafe_sandbox() -> None:
    assert refusal(of(*HINTED, sandbox="none")) == "unsafe_sandbox"
    assert refusal(of(*HINTED, sandbox="none"), allow_unsafe=True) is None
    assert refusal(of(*HINTED, sandbox="bubblewrap (tier 1)")) is None


@pytest.mark.parametrize("outcome", [outcome for outcome in TraceOutcome if outcome is not TraceOutcome.ANSWERED])
def test_unfinished(outcome: TraceOutcome) -> None:
    assert refusal(candidate(replace(spelled(TOKENIZER, *HINTED), outcome=outcome))) == "unfinished"


def test_too_long() -> None:
    given = of(*HINTED)
    size = given.trace.count()
    assert refusal(given, max_length=size) is None
    assert refusal(given, max_length=size - 1) == "too_long"


def test_no_tool_call() -> None:
    assert refusal(of(ANSWER), require_tool=True) == "no_tool_call"
    assert refusal(of(CODE, output("42"), ANSWER), require_tool=True) is None


@pytest.mark.parametrize("cause", ["error", "timeout", "memory", "died"])
def test_failed_cells(cause: str) -> None:
    given = of(CODE, output("bad", cause), CODE, output("42"), ANSWER)
    assert refusal(given) == "failed_cells"
    assert refusal(given, max_failed_cells=1) is None


def test_truncated_output() -> None:
    cut = "1\n[... 1,204 characters cut ...]\n9"
    assert refusal(of(CODE, output(cut), ANSWER)) == "truncated_output"
    assert refusal(of(CODE, output("1\n[... many characters cut ...]\n9"), ANSWER)) is None
    assert refusal(of(CODE, output("111", "output"), ANSWER), max_failed_cells=1) == "truncated_output"


def test_answer_before_code() -> None:
    before: Spelled = (M, "So \\boxed{42}. Let me check.\n", "think_end")
    assert refusal(of(before, CODE, output("42"), ANSWER)) == "answer_before_code"
    assert refusal(of((M, "So \\boxed{41}? Let me check.\n", "think_end"), CODE, output("42"), ANSWER)) is None
    assert refusal(of(CODE, output("42"), before, CODE, output("42"), ANSWER)) is None  # code had run before
    assert refusal(of((M, "So \\boxed{42}.\n", "x"), ANSWER)) is None  # no code at all


def test_invented_outputs() -> None:
    said = "I expect:\n```output\n42\n```\n"
    assert refusal(of(CODE, output("42"), (M, said, "x"), ANSWER)) == "invented_output"
    assert refusal(of(CODE, output("42"), (M, "The word output stands there, `output`.\n", "x"), ANSWER)) is None
    printing: Spelled = (M, "```python\nprint('\\n ```output')\n```\n", "code_close")
    assert refusal(of(printing, output("42"), ANSWER)) is None


def test_token_loops() -> None:
    def looping(times: int, period: int = 8) -> Candidate:
        trace = spelled(TOKENIZER, ANSWER)
        loop = tuple(range(300, 300 + period)) * times
        return candidate(Trace([trace.spans[0], Span(M, loop, "x"), trace.spans[1]], trace.outcome, "42", trace.meta))

    assert refusal(looping(12), ngram_share=1) == "token_loop"  # 96 tokens
    assert refusal(looping(11), ngram_share=1) is None
    assert refusal(looping(3, period=40), ngram_share=1) is None  # long enough, but said three times only
    assert refusal(looping(4, period=40), ngram_share=1) == "token_loop"


def test_repetition_anywhere_agrees_with_repetition_at_an_end() -> None:
    import random

    draw = random.Random(0)
    rule = Repetition(max_period=6, min_repeats=3, min_tokens=8)
    found = set()
    for _ in range(400):
        ids = [draw.randrange(2) for _ in range(draw.randrange(24))]
        anywhere = any(rule.found(ids[:end]) for end in range(1, len(ids) + 1))
        assert rule.anywhere(ids) == anywhere
        found.add(anywhere)
    assert found == {True, False}


def test_repeated_ngrams() -> None:
    line = "First I add the tens, then I add the ones, and then I see what has to be carried over to the left. "
    other = "Now the product of nine and seven is what I need, for which I take ten times seven less seven. "
    once, twice = of((M, line + other, "x"), ANSWER), of((M, line + other + line + other, "x"), ANSWER)
    assert refusal(once, ngram_share=0.2) is None
    assert refusal(twice, ngram_share=0.2) == "repeated_ngrams"
    assert refusal(twice, ngram_share=0.5) is None


def test_repeated_lines() -> None:
    def saying(times: int, line: str = "Wait, let me check that.") -> Candidate:
        parts = [f"{line}\nI have {number} so far, I think, or {number * 37 + 11}.\n" for number in range(times)]
        return of((M, "".join(parts), "x"), ANSWER)

    assert refusal(saying(5), ngram_share=1, repeat_tokens=999) == "repeated_lines"
    assert refusal(saying(4), ngram_share=1, repeat_tokens=999) is None
    assert refusal(saying(5, "So be it."), ngram_share=1, repeat_tokens=999) is None  # a short one
    code = "```python\n" + "total = total + 1\n" * 6 + "```\n"
    assert not filters.repeated_lines(of((M, code, "code_close"), output("42"), ANSWER), FilterOptions())


def test_the_first_filter_in_the_order_stated_has_it() -> None:
    given = of(CODE, output("bad", "error"), (M, "So \\boxed{1}.\n", "x"), ANSWER, sandbox="none")
    names = list(filters.FILTERS)
    assert names.index("unsafe_sandbox") < names.index("failed_cells")
    assert refusal(given) == "unsafe_sandbox"
    assert refusal(given, allow_unsafe=True) == "failed_cells"
