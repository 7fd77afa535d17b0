"""Repairs: what they remove, and what they leave unchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from start_agent.data.repairs import repair
from start_agent.data.rows import MODIFICATIONS, make_row
from start_agent.data.views import TraceView
from start_agent.logprobs import token_logprob
from start_agent.trace import SpanKind, Trace
from tests.support.traces import HINTED, H, M, Spelled, dated, output, spelled
from tests.support.vocabularies import Vocabulary, vocabulary

POCKET = vocabulary("pocket").tokenizer
END: Spelled = (M, "So 42.\n</think>\n\nThe answer is \\boxed{42}.", "eos")
FIRST: Spelled = (M, "Let me see, it is 41.\n\nWait", "connective")
HINT: Spelled = (H, ", maybe using Python here is a good idea.\n```python\n", "math.hint.1")


def text(trace: Trace) -> str:
    return POCKET.decode(trace.token_ids)


def spans(trace: Trace) -> list[tuple[SpanKind, str]]:
    return [(span.kind, POCKET.decode(span.token_ids)) for span in trace.spans[1:]]


def test_a_good_trace_is_left_as_it_is(vocabulary: Vocabulary) -> None:
    trace = spelled(vocabulary.tokenizer, *HINTED)
    assert repair(trace, vocabulary.tokenizer) is trace


def test_what_follows_the_answer_is_cut(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    rambling = (M, "So 42.\n</think>\n\nThe answer is \\boxed{42}.\n\nLet me talk on. It is \\boxed{42}.", "eos")
    trace = spelled(tokenizer, *HINTED[:-1], rambling)
    repaired = repair(trace, tokenizer)
    assert repaired.meta[MODIFICATIONS] == ["cut_after_answer"]
    assert MODIFICATIONS not in trace.meta
    ids = repaired.token_ids
    assert ids[-1] in tokenizer.eos_ids
    assert tokenizer.decode(ids[:-1]).rstrip("\n").endswith("The answer is \\boxed{42}.")
    assert ids[:-1] == trace.token_ids[: len(ids) - 1]  # nothing is encoded again
    assert make_row(repaired, tokenizer).modifications == ("cut_after_answer",)
    assert repair(repaired, tokenizer) is repaired


def test_a_repaired_trace_has_no_log_probabilities_and_others_keep_theirs(vocabulary: Vocabulary) -> None:
    def measured(trace: Trace) -> Trace:
        """With log-probabilities of all that the model wrote."""
        spans = [
            replace(span, logprobs=(token_logprob(-1.0),) * len(span.token_ids))
            if span.kind is SpanKind.MODEL
            else span
            for span in trace.spans
        ]
        return replace(trace, spans=spans)

    tokenizer = vocabulary.tokenizer
    good = measured(spelled(tokenizer, *HINTED))
    assert repair(good, tokenizer) is good
    rambling = (M, "So 42.\n</think>\n\nThe answer is \\boxed{42}.\n\nLet me talk on. It is \\boxed{42}.", "eos")
    trace = spelled(tokenizer, *HINTED[:-1], rambling)
    assert repair(measured(trace), tokenizer) == repair(trace, tokenizer)


@pytest.mark.parametrize(
    "last",
    [
        "</think>\n\n\\boxed{42}",
        "</think>\n\nThe answer is \\boxed{42}. That was easy.",  # on the answer's own line
        "</think>\n\n\\boxed{42}\n\n",
        "So \\boxed{42}.\nOr not.\n</think>\n\n\\boxed{42}",  # thinking is not cut
    ],
)
def test_nothing_is_cut_where_nothing_follows_the_answer(last: str) -> None:
    trace = spelled(POCKET, (M, last, "eos"))
    assert repair(trace, POCKET) is trace


def test_a_hinted_cell_that_failed_goes_with_its_hint_and_connective() -> None:
    trace = spelled(
        POCKET,
        FIRST,
        HINT,
        (M, "print(6 * y)\n```\n", "code_close"),
        output("NameError: name 'y' is not defined", "error"),
        (M, "I forgot to set y.\n```python\nprint(6 * 7)\n```\n", "code_close"),
        output("42"),
        END,
    )
    repaired = repair(trace, POCKET)
    assert repaired.meta[MODIFICATIONS] == ["drop_failed_cell"]
    assert spans(repaired)[:2] == [
        (M, "Let me see, it is 41.\n\n```python\nprint(6 * 7)\n```\n"),
        (SpanKind.TOOL_OUTPUT, "```output\n42\n```\n"),
    ]
    assert repaired.spans[-1] == trace.spans[-1]
    kept = iter(trace.token_ids)
    assert all(token_id in kept for token_id in repaired.token_ids)  # in this order: nothing is made up
    assert repaired.unhinted_tool_calls == repaired.tool_calls == 1


def test_a_twin_keeps_its_own_hint() -> None:
    trace = spelled(
        POCKET,
        (M, "Let me run it:\n```python\nprint(6 * y)\n```\n", "code_close"),
        output("NameError", "error"),
        (M, "Hm.\n\nWait", "connective"),
        HINT,
        (M, "print(6 * 7)\n```\n", "code_close"),
        output("42"),
        END,
    )
    assert (
        text(repair(trace, POCKET))
        .split("\n", 1)[1]
        .startswith(
            "Let me run it:\nWait, maybe using Python here is a good idea.\n```python\nprint(6 * 7)\n```\n```output\n42"
        )
    )


def test_one_failure_after_the_other_goes() -> None:
    trace = spelled(
        POCKET,
        (M, "Let me run it:\n```python\nprint(6 * x)\n```\n", "code_close"),
        output("NameError", "error"),
        (M, "Again:\n```python\nprint(6 * y)\n```\n", "code_close"),
        output("NameError", "error"),
        (M, "Again:\n```python\nprint(6 * 7)\n```\n", "code_close"),
        output("42"),
        END,
    )
    repaired = repair(trace, POCKET)
    assert repaired.meta[MODIFICATIONS] == ["drop_failed_cell"] * 2
    assert "Let me run it:\n```python\nprint(6 * 7)\n```\n```output\n42\n```\nSo 42." in text(repaired)
    assert repaired.tool_calls == 1


def failed_and_again(failed: str, twin: str) -> Trace:
    """A cell that failed, and the next one."""
    return spelled(
        POCKET,
        (M, f"Let me run it:\n```python\n{failed}\n```\n", "code_close"),
        output("NameError", "error"),
        (M, f"Again:\n```python\n{twin}\n```\n", "code_close"),
        output("42"),
        END,
    )


@pytest.mark.parametrize(
    ("failed", "twin"),
    [
        ("print(6 * y)", "import math\nprint(math.factorial(20) // 3)"),  # another program
        ("x = 6\nprint(x * y)", "y = 7\nprint(x * y)"),  # reads what only the failed one has set
        ("x = 6\nprint(x * y)", "x = x + 1\nprint(x * 6)"),
        ("import math\nprint(math.sqr(4))", "print(math.sqrt(4))"),
        ("def f(n):\n    return n * y\nprint(f(6))", "y = 7\nprint(f(6))"),
    ],
)
def test_a_failure_that_the_next_cell_needs_stays(failed: str, twin: str) -> None:
    trace = failed_and_again(failed, twin)
    assert repair(trace, POCKET) is trace


@pytest.mark.parametrize(
    ("failed", "twin"),
    [
        ("x = 6\nprint(x * y)", "x = 6\ny = 7\nprint(x * y)"),
        ("print(6 * 7", "print(6 * 7)"),
        ("for k in range(3):\n    print(k * y)", "for k in range(3):\n    print(k * 6)"),
        ("def f(n):\n    r = n\n    return r * y\nprint(f(6))", "def f(n):\n    r = n\n    return r * 7\nprint(f(6))"),
        ("print(sum(k * y for k in range(3)))", "print(sum(k * 7 for k in range(3)))"),
    ],
)
def test_a_failure_with_a_twin_that_stands_alone_goes(failed: str, twin: str) -> None:
    trace = failed_and_again(failed, twin)
    assert repair(trace, POCKET).meta[MODIFICATIONS] == ["drop_failed_cell"]


def test_a_failure_stays_where_its_twins_fence_would_not_begin_a_line() -> None:
    trace = spelled(
        POCKET,
        (M, "Let me see, it is 41. Wait", "connective"),
        HINT,
        (M, "print(6 * x)\n```\n", "code_close"),
        output("NameError", "error"),
        (M, "```python\nprint(6 * 7)\n```\n", "code_close"),
        output("42"),
        END,
    )
    assert repair(trace, POCKET) is trace


def test_a_last_failure_stays() -> None:
    trace = spelled(POCKET, FIRST, HINT, (M, "print(y)\n```\n", "code_close"), output("NameError", "error"), END)
    assert repair(trace, POCKET) is trace


def test_a_repaired_trace_says_where_its_answer_begins() -> None:
    tokenizer = POCKET
    failed: tuple[Spelled, ...] = (
        (M, "Let me run it:\n```python\nprint(6 * y)\n```\n", "code_close"),
        output("NameError", "error"),
        (M, "Again:\n```python\nprint(6 * 7)\n```\n", "code_close"),
        output("42"),
    )
    rambling = (M, "So 42.\n</think>\n\nThe answer is \\boxed{42}.\n\nLet me talk on.", "eos")
    for last in (END, rambling):
        trace = dated(spelled(tokenizer, *failed, last), tokenizer)
        repaired = repair(trace, tokenizer)
        assert "drop_failed_cell" in repaired.meta[MODIFICATIONS]
        derived = TraceView(replace(repaired, answer_begins=None, schema=1), tokenizer).answer_begins
        assert derived is not None and TraceView(repaired, tokenizer).answer_begins == derived
        assert TraceView(repaired, tokenizer).string(derived).startswith("\n\nThe answer is")
