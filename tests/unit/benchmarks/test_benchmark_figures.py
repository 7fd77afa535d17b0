from __future__ import annotations

import pytest

from benchmarks.engine import Comparison, Run, cut
from benchmarks.engine import figures_of as engine_figures
from benchmarks.injection import Run as InjectionRun
from benchmarks.injection import figures_of as injection_figures
from benchmarks.pocket import Attempt, figures_of, summary
from start_agent.problem import Problem
from start_agent.trace import Span, SpanKind, Trace, TraceOutcome

PROBLEM = Problem("What is 1 + 1?", "2", meta={"level": 1, "subject": "sums"})


def attempt(answer: str | None, *kinds: SpanKind, outcome: TraceOutcome = TraceOutcome.ANSWERED) -> Attempt:
    spans = [Span(SpanKind.PROMPT, (1, 2, 3)), *(Span(kind, (4, 5)) for kind in kinds)]
    return Attempt(PROBLEM, Trace(spans, outcome, answer))


@pytest.mark.parametrize(
    ("answer", "correct"), [("2", True), (" 2\n", True), ("2.0", False), ("", False), (None, False)]
)
def test_an_answer_is_right_character_for_character(answer: str | None, correct: bool) -> None:
    assert attempt(answer).correct is correct


def test_the_summary_of_a_condition() -> None:
    hint, model, output = SpanKind.HINT, SpanKind.MODEL, SpanKind.TOOL_OUTPUT
    found = summary(
        [
            attempt("2", model, hint, model, output, model),
            attempt("2", model, hint, model, output, model, output),  # the second call is its own idea
            attempt("3", model),
            attempt(None, model, outcome=TraceOutcome.REPETITION),
        ]
    )
    assert found["accuracy"] == 0.5
    assert found["accuracy_low"] < 0.5 < found["accuracy_high"]
    assert found["tool_calls"] == 0.75
    assert found["tool_rate"] == 0.5
    assert found["tokens"] == (10 + 12 + 2 + 2) / 4
    assert found["finished_rate"] == 0.75
    assert found["unhinted_repeat_rate"] == 0.5


def test_without_hints_no_rate_of_hinted_traces() -> None:
    assert "unhinted_repeat_rate" not in summary([attempt("2", SpanKind.MODEL)])


def test_the_report_compares_greedy_and_hinted() -> None:
    right, wrong = attempt("2", SpanKind.HINT), attempt("3")
    figures = figures_of({"greedy": [right, wrong, wrong, wrong], "hint": [right, right, right, wrong]})
    assert figures["hint_gain"] == 0.5
    assert figures["greedy_headroom"] == 0.75
    assert figures["hint_gain_p_value"] == 0.5
    assert figures["unhinted_repeat_rate"] == 0.0


def test_the_engine_figures_are_medians_of_ratios() -> None:
    def pair(ours: float, theirs: float) -> tuple[Run, Run]:
        return Run(ours, [[1, 2], [3, 4]], fed=10), Run(theirs, [[1, 2], [3, 5]], fed=40)

    figures = engine_figures(
        {
            "generate_64": Comparison("", [pair(1.0, 1.0), pair(2.0, 3.0), pair(1.0, 9.0)]),
            "resubmit_1k": Comparison("", [pair(1.0, 2.0)]),
        }
    )
    assert figures["ratio_generate_64"] == 1.5
    assert figures["tokens_per_second_generate_64"] == 4.0
    assert figures["same_text_generate_64"] == 0.5
    assert figures["resubmit_tokens_ratio_1k"] == 4.0
    assert figures["resubmit_time_ratio_1k"] == 2.0


def test_cut_reads_in_a_circle() -> None:
    assert cut([0, 1, 2, 3, 4], 2, 3) == [[0, 1, 2], [3, 4, 0]]
    assert cut([0, 1, 2], 1, 2, start=2) == [[2, 0]]


def test_the_figures_of_insertions_are_of_the_worst_one_and_of_the_larger_number_of_traces() -> None:
    seconds = {(64, 0): 1.0, (64, 1): 1.0, (64, 3): 1.0, (64, 6): 2.0}
    seconds |= {(256, 0): 4.0, (256, 1): 4.2, (256, 3): 4.4, (256, 6): 5.0}
    runs = {
        key: [InjectionRun(time, 100, [20, 33] if key == (64, 3) else [5] * key[1])] for key, time in seconds.items()
    }
    longer, more, off = (InjectionRun(time, 100, again) for time, again in ((4.5, []), (6.25, []), (9.0, [400])))
    figures = injection_figures(runs, [longer], [more], [off], 32)
    assert figures["reprefilled_minus_block"] == 1
    assert figures["overhead_6"] == 1.25
    assert figures["overhead_6_same_context"] == pytest.approx(10 / 9)
    assert figures["overhead_6_all_tokens"] == 0.8
    assert figures["cache_off_ratio_6"] == 4.5
    assert figures["tokens_per_second_0"] == 25
