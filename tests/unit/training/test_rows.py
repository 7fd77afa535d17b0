"""Rows: the labels of a trace, span by span, on several vocabularies."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hints import OPENING_FENCE, HintLibrary, join
from start_agent.data.alignment import fence_of
from start_agent.data.loss import HintLoss, InsertedLoss, LossPolicy
from start_agent.data.rows import Row, make_row
from start_agent.errors import RowError
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import IGNORE_INDEX, Span, SpanKind, Trace
from tests.support.traces import HINTED, H, M, N, P, T, dated, output, spelled
from tests.support.vocabularies import QWEN_RANKS, Vocabulary, vocabulary

THREE = ("pocket", "sentencepiece", *(("qwen",) if QWEN_RANKS.is_file() else ("bytes",)))
HINTS = tuple(HintLibrary.builtin())
TEXTS = st.text("ab 1`\n.é", max_size=12)


@st.composite
def random_traces(draw: st.DrawFn) -> tuple[Tokenizer, Trace]:
    """Spans of any kinds in any order; hints are those of the library, joined to what stands before them."""
    tokenizer = vocabulary(draw(st.sampled_from(THREE))).tokenizer
    spans = [Span(P, tuple(tokenizer.encode("Q: " + draw(TEXTS))))]
    for kind in draw(st.lists(st.sampled_from([M, M, H, T, N]), max_size=7)):
        text = draw(TEXTS)
        cause = ""
        if kind is H:
            text = join(text, draw(st.sampled_from(HINTS)))
        elif kind is M:
            cause = draw(st.sampled_from(["connective", "code_close", "think_end"]))
            text += draw(st.sampled_from(["Wait", " Alternatively,", ""]))
        spans.append(Span(kind, tuple(tokenizer.encode(text)), cause))
    spans.append(Span(M, (*tokenizer.encode("so 4"), min(tokenizer.eos_ids)), "eos"))
    return tokenizer, Trace(spans)


@given(made=random_traces())
def test_masked_is_exactly_what_the_model_did_not_write(made: tuple[Tokenizer, Trace]) -> None:
    tokenizer, trace = made
    row = make_row(trace, tokenizer)
    assert list(row.input_ids) == trace.token_ids
    for token_id, label, mask, kind in zip(row.input_ids, row.labels, row.assistant_masks, trace.kinds(), strict=True):
        assert label == (token_id if kind is M else IGNORE_INDEX)
        assert mask == (kind is M)
    assert row.labels[-1] in tokenizer.eos_ids
    assert [kind for kind, length in row.spans for _ in range(length)] == [kind.value for kind in trace.kinds()]


POLICIES = st.builds(
    LossPolicy,
    hint=st.sampled_from(HintLoss),
    train_hint_fence=st.booleans(),
    mask_connective=st.booleans(),
    tool_output=st.sampled_from(InsertedLoss),
    notice=st.sampled_from(InsertedLoss),
    mix_train=st.just(0.5),
)


@given(made=random_traces(), policy=POLICIES, key=st.text(max_size=3))
def test_every_policy_keeps_its_promises(made: tuple[Tokenizer, Trace], policy: LossPolicy, key: str) -> None:
    tokenizer, trace = made
    row = make_row(trace, tokenizer, policy, key=key)
    assert make_row(trace, tokenizer, policy, key=key) == row
    assert len(row.input_ids) == len(row.labels) == len(row.assistant_masks) == sum(size for _, size in row.spans)
    for token_id, label, mask in zip(row.input_ids, row.labels, row.assistant_masks, strict=True):
        assert label == (token_id if mask else IGNORE_INDEX)
    kinds = [SpanKind(kind) for kind, length in row.spans for _ in range(length)]
    learned = {
        kind: [mask for mask, of in zip(row.assistant_masks, kinds, strict=True) if of is kind] for kind in kinds
    }
    assert not any(learned[P])
    assert set(learned.get(T, [])) <= {int(policy.tool_output is InsertedLoss.TRAIN)}
    assert set(learned.get(N, [])) <= {int(policy.notice is InsertedLoss.TRAIN)}
    assert policy.mask_connective or all(learned[M])
    if row.hint_loss == "drop":
        without = tokenizer.bytes_of(
            token_id for token_id, kind in zip(row.input_ids, kinds, strict=True) if kind is not H
        )
        assert without == tokenizer.bytes_of(i for span in trace.spans if span.kind is not H for i in span.token_ids)
        assert all(learned.get(H, []))
    else:
        assert list(row.input_ids) == trace.token_ids
        hinted = learned.get(H, [])
        assert all(hinted) if row.hint_loss == "train" else policy.train_hint_fence or not any(hinted)


def texts(row: Row, tokenizer: Tokenizer, kind: SpanKind, learned: bool | None = None) -> list[str]:
    """The texts of the spans of a kind; only what is (not) learned of them, where asked."""
    found, at = [], 0
    for name, size in row.spans:
        ids: Iterable[int] = (
            row.input_ids[place]
            for place in range(at, at + size)
            if learned is None or row.assistant_masks[place] == learned
        )
        if name == kind:
            found.append(tokenizer.decode(ids))
        at += size
    return found


def test_the_fence_of_a_masked_hint_alone_is_learned(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    trace = spelled(tokenizer, *HINTED)
    row = make_row(trace, tokenizer, LossPolicy(train_hint_fence=True))
    [hint] = trace.of_kind(H)
    fence = fence_of(hint, tokenizer)
    assert fence is not None
    [learned] = texts(row, tokenizer, H, True)
    assert learned == OPENING_FENCE if fence.clean else OPENING_FENCE.endswith(learned)
    [masked] = texts(row, tokenizer, H, False)
    assert masked + learned == tokenizer.decode(hint.token_ids)


def test_a_dropped_hint_leaves_its_fence_on_a_line_of_its_own(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    row = make_row(spelled(tokenizer, *HINTED), tokenizer, LossPolicy(hint=HintLoss.DROP))
    assert texts(row, tokenizer, H) == ["\n" + OPENING_FENCE]
    text = tokenizer.decode(row.input_ids)
    assert "41.\n\nWait\n```python\nprint(6 * 7)\n```\n```output" in text
    assert "good idea" not in text


def test_a_hint_dropped_after_a_line_needs_no_line_break(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    trace = spelled(
        tokenizer,
        (M, "It is 41.\n", "think_end"),
        (H, "\nLet me run Python.\n```python\n", "end.1"),
        (M, "print(42)\n```\n", "code_close"),
        output("42"),
        (M, "</think>\\boxed{42}", "eos"),
    )
    row = make_row(trace, tokenizer, LossPolicy(hint=HintLoss.DROP))
    assert "It is 41.\n```python\nprint(42)" in tokenizer.decode(row.input_ids)


def test_what_follows_the_fence_in_a_debug_hint_is_no_fence(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    hint = (H, " let me run it.\n```python\n# Debug: print each output.\n", "code.1")
    trace = spelled(tokenizer, HINTED[0], hint, *HINTED[2:])
    dropped = make_row(trace, tokenizer, LossPolicy(hint=HintLoss.DROP))
    assert texts(dropped, tokenizer, H) == ["\n" + OPENING_FENCE]
    masked = make_row(trace, tokenizer, LossPolicy(train_hint_fence=True))
    assert "Debug" in texts(masked, tokenizer, H, False)[0]
    assert texts(masked, tokenizer, H, True)[0] in OPENING_FENCE


def test_a_hint_without_a_fence_is_dropped_whole(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    trace = spelled(tokenizer, HINTED[0], (H, ", I should think longer.\n", "deep"), HINTED[-1])
    assert texts(make_row(trace, tokenizer, LossPolicy(hint=HintLoss.DROP)), tokenizer, H) == []
    assert texts(make_row(trace, tokenizer, LossPolicy(train_hint_fence=True)), tokenizer, H, True) == [""]


def test_the_connective_before_a_hint_can_be_masked(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    trace = spelled(tokenizer, *HINTED)
    row = make_row(trace, tokenizer, LossPolicy(mask_connective=True))
    first, *others = texts(row, tokenizer, M, False)
    assert first.strip() == "Wait"
    assert not any(others)
    assert texts(make_row(trace, tokenizer), tokenizer, M, False) == ["", "", "", ""]


def test_a_mix_takes_whole_traces_in_its_proportions() -> None:
    policy = LossPolicy(hint=HintLoss.MIX, mix_mask=1, mix_drop=2, mix_train=1)
    drawn = [policy.hint_loss(str(number)) for number in range(2000)]
    shares = {kind: drawn.count(kind) / len(drawn) for kind in HintLoss}
    assert shares[HintLoss.MIX] == 0
    for kind, share in ((HintLoss.MASK, 0.25), (HintLoss.DROP, 0.5), (HintLoss.TRAIN, 0.25)):
        assert abs(shares[kind] - share) < 0.04
    other = policy.model_copy(update={"loss_seed": 1})
    assert [other.hint_loss(str(number)) for number in range(50)] != drawn[:50]
    with pytest.raises(ValidationError, match="positive weight"):
        LossPolicy(hint=HintLoss.MIX, mix_mask=0, mix_drop=0)


def test_a_row_in_which_nothing_is_learned_is_refused() -> None:
    tokenizer = vocabulary("pocket").tokenizer
    nothing = Trace([Span(P, (1, 2)), Span(H, (3,)), Span(T, (4,))])
    with pytest.raises(RowError, match="without a token in the loss") as caught:
        make_row(nothing, tokenizer, key="abc")
    assert caught.value.reason == "nothing_trained"
    only_first = Trace([Span(M, (1,)), Span(T, (4,))])  # no token comes before it: it is never predicted
    with pytest.raises(RowError, match="without a token in the loss"):
        make_row(only_first, tokenizer)
    assert make_row(nothing, tokenizer, LossPolicy(hint=HintLoss.TRAIN)).trained == 1


def test_a_row_that_is_too_long_is_refused_and_never_cut() -> None:
    tokenizer = vocabulary("pocket").tokenizer
    trace = spelled(tokenizer, *HINTED)
    size = trace.count()
    assert len(make_row(trace, tokenizer, max_length=size).input_ids) == size
    with pytest.raises(RowError, match=f"{size} tokens, above the maximum of {size - 1}") as caught:
        make_row(trace, tokenizer, max_length=size - 1)
    assert caught.value.reason == "too_long"


@pytest.mark.parametrize("hint", [HintLoss.MASK, HintLoss.DROP])
def test_a_row_says_where_its_answer_begins(vocabulary: Vocabulary, hint: HintLoss) -> None:
    tokenizer = vocabulary.tokenizer
    trace = dated(spelled(tokenizer, *HINTED), tokenizer)
    row = make_row(trace, tokenizer, LossPolicy(hint=hint))
    assert row.answer_begins is not None
    answer = tokenizer.decode(row.input_ids[row.answer_begins : -1])
    assert answer.strip() == "The answer is \\boxed{42}."
    assert "</think>" in tokenizer.decode(row.input_ids[: row.answer_begins])
    assert make_row(spelled(tokenizer, *HINTED), tokenizer).answer_begins is None  # a trace of the first schema
