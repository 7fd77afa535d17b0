"""The trace: values computed from its spans, and its JSON format."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.engines.scripted import byte_tokenizer, scripted_logprob
from start_agent.errors import TraceFormatError
from start_agent.trace import IGNORE_INDEX, SCHEMA_VERSION, Span, SpanKind, Trace, TraceOutcome

TOKENIZER = byte_tokenizer()
IDS = st.lists(st.integers(0, 258), max_size=6)


def _measured(span: Span, number: int) -> Span:
    """With log-probabilities, where a span may have some."""
    if span.kind is not SpanKind.MODEL:
        return span
    return replace(span, logprobs=tuple(scripted_logprob(token_id, number, 259) for token_id in span.token_ids))


BARE = st.builds(Span, kind=st.sampled_from(SpanKind), token_ids=IDS.map(tuple), cause=st.text(max_size=8))
SPANS = st.lists(BARE | st.builds(_measured, BARE, st.integers(0, 3)), max_size=10)
VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
TRACES = st.builds(
    Trace,
    spans=SPANS,
    outcome=st.none() | st.sampled_from(TraceOutcome),
    answer=st.none() | st.text(),
    meta=st.dictionaries(st.text(), VALUES, max_size=4),
    answer_begins=st.none() | st.tuples(st.integers(0, 99), st.integers(0, 9)),
)


@given(trace=TRACES, trained=st.sets(st.sampled_from(SpanKind)))
def test_views_are_as_long_as_the_ids_and_agree(trace: Trace, trained: set[SpanKind]) -> None:
    ids, kinds, labels = trace.token_ids, trace.kinds(), trace.labels(trained)
    assert ids == [token_id for span in trace.spans for token_id in span.token_ids]
    assert len(ids) == len(kinds) == len(labels) == trace.count() == sum(map(trace.count, SpanKind))
    assert trace.count(*trained) == (sum(kind in trained for kind in kinds) if trained else len(ids))
    for token_id, kind, label in zip(ids, kinds, labels, strict=True):
        assert label == (token_id if kind in trained else IGNORE_INDEX)
    assert trace.labels(iter(trained)) == labels
    assert trace.labels() == trace.labels([SpanKind.MODEL])
    for token_id, kind, logprob in zip(ids, kinds, trace.logprobs(), strict=True):
        assert logprob is None or (
            kind is SpanKind.MODEL and logprob == scripted_logprob(token_id, 0, 259).logprob != 0.0
        )
    bare = trace.without_logprobs()
    assert set(bare.logprobs()) <= {None} and bare.token_ids == ids
    assert bare.labels(trained) == labels
    for kind in SpanKind:
        assert [span.kind for span in trace.of_kind(kind)] == [kind] * sum(span.kind is kind for span in trace.spans)


@given(trace=TRACES, spelled=st.booleans())
def test_json_round_trip(trace: Trace, spelled: bool) -> None:
    data = json.loads(json.dumps(trace.to_json(TOKENIZER.decode if spelled else None)))
    assert Trace.from_json(data) == trace
    assert data["schema"] == SCHEMA_VERSION
    assert Trace.from_json(trace.without_logprobs().to_json()) == trace.without_logprobs()
    for row, span in zip(data["spans"], trace.spans, strict=True):
        assert ("logprobs" in row) is (span.logprobs is not None)
        assert row.get("text") == (TOKENIZER.decode(span.token_ids) if spelled else None)


def test_text_is_decoded_in_one_piece() -> None:
    first, second = TOKENIZER.encode("é")
    trace = Trace([Span(SpanKind.MODEL, (first,)), Span(SpanKind.HINT, ()), Span(SpanKind.MODEL, (second,))])
    assert trace.text(decode=TOKENIZER.decode) == "é" == trace.text(SpanKind.MODEL, decode=TOKENIZER.decode)
    assert trace.text(SpanKind.HINT, decode=TOKENIZER.decode) == ""


def test_a_trace_that_has_ended_grows_no_more() -> None:
    trace = Trace()
    trace.append(Span(SpanKind.MODEL, ()))
    trace.outcome = TraceOutcome.NO_ANSWER
    with pytest.raises(ValueError, match="no_answer"):
        trace.append(Span(SpanKind.MODEL, (1,)))
    assert len(trace.spans) == 1


M, H, T, N = SpanKind.MODEL, SpanKind.HINT, SpanKind.TOOL_OUTPUT, SpanKind.NOTICE


@pytest.mark.parametrize(
    ("kinds", "calls", "unhinted"),
    [
        ([M], 0, 0),
        ([M, T, M], 1, 1),
        ([M, H, M, T, M], 1, 0),
        ([M, H, M, T, M, T, M], 2, 1),
        ([M, T, M, H, M, T], 2, 1),
        ([M, H, H, M, T, M, T, M, H, M, T], 3, 1),
        ([M, H, M, N, M, T], 1, 0),
    ],
)
def test_tool_calls(kinds: list[SpanKind], calls: int, unhinted: int) -> None:
    trace = Trace([Span(kind, ()) for kind in kinds])
    assert (trace.tool_calls, trace.unhinted_tool_calls) == (calls, unhinted)


GOOD: dict[str, Any] = {
    "schema": 2,
    "outcome": "answered",
    "answer": "42",
    "answer_begins": [1, 0],
    "spans": [{"kind": "prompt", "token_ids": [1]}, {"kind": "model", "token_ids": [2], "cause": "eos"}],
    "meta": {"seed": 1},
}


def changed(**changes: Any) -> dict[str, Any]:
    return GOOD | changes


def span(**changes: Any) -> dict[str, Any]:
    return changed(spans=[{"kind": "model", "token_ids": [1], "cause": "eos"} | changes])


WRONG: dict[str, list[Any]] = {
    "schema": [0, 3, "1", True, 1.0, [], None],
    "answer_begins": ["", 1, [1], [1, -1], [1, 2, 3], {"1": 1}],
    "outcome": ["gone", 1, [], ""],
    "answer": [42, [], False],
    "meta": [None, [], "x", 1],
    "spans": [None, {}, "", 1, ["x"], [None], [{}], [{"kind": "model"}]],
}
WRONG_IN_SPAN: dict[str, list[Any]] = {
    "kind": ["user", None, 1, []],
    "token_ids": [None, "12", [1.0], [True], [-1], ["1"], [[1]], {"1": 1}],
    "cause": [None, 1, []],
    "logprobs": [None, 1, [], [-1, -1], ["x"], [1.0]],
}


@pytest.mark.parametrize(
    "data",
    [
        *(None, [], "x", 1, {}),
        *({key: value for key, value in GOOD.items() if key != missing} for missing in GOOD),
        *(changed(**{name: value}) for name, values in WRONG.items() for value in values),
        *(span(**{name: value}) for name, values in WRONG_IN_SPAN.items() for value in values),
    ],
    ids=lambda data: repr(data)[-60:],
)
def test_what_is_no_trace_is_refused_in_one_line(data: Any) -> None:
    with pytest.raises(TraceFormatError) as caught:
        Trace.from_json(data)
    assert "\n" not in str(caught.value)


def test_the_good_one_is_good() -> None:
    trace = Trace.from_json(GOOD)
    assert trace.to_json() == GOOD and trace.answer_begins == (1, 0)
    old = {key: value for key, value in GOOD.items() if key != "answer_begins"} | {"schema": 1}
    assert Trace.from_json(old).answer_begins is None
    assert Trace.from_json(old).to_json() == old  # what is not known is not made up by storing it again
    assert trace.labels() == [IGNORE_INDEX, 2]


@pytest.mark.parametrize("kind", SpanKind)
def test_only_what_the_model_wrote_has_log_probabilities_one_for_each_token(kind: SpanKind) -> None:
    one = scripted_logprob(5, 0, 259)
    wrong = [(one,), (one,) * 3] if kind is SpanKind.MODEL else [(one,) * 2, ()]
    for logprobs in wrong:
        with pytest.raises(ValueError, match="log-probabilities"):
            Span(kind, (1, 2), "", logprobs)
