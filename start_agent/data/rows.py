"""A trace → a row: the ids that a trainer feeds, and the labels that its loss sees.

Everything is derived from the spans. What becomes of each kind is a ``LossPolicy``:

===========  ==============================================================================================
the model's  learned, the end of sequence included where the model wrote it
prompt       never learned
hint, mask   no loss; with ``train_hint_fence``, its opening fence is learned (the tokens that hold nothing else)
hint, drop   gone from the ids, but for its opening fence, which is learned: the code after it would be bare
             otherwise. The fence keeps its own tokens; where one of them also holds a piece of the sentence, or
             of the comment behind the fence, the fence is encoded anew. Where the text before it is inside a
             line, a line break is put before it (learned too). A hint without a fence is gone altogether.
hint, train  learned like the model's own words
tool output  no loss, or learned
notice       likewise
before       what comes before the first hint is the model's own, so learned; with ``mask_before_hint`` it is not
connective   the model's own, so learned; with ``mask_connective`` no loss on the one that a hint follows
===========  ==============================================================================================

With every policy but ``drop`` the ids of a row are the trace's, id for id. A row is never cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from start_agent.data.alignment import connective_of, fence_of
from start_agent.data.loss import HintLoss, InsertedLoss, LossPolicy
from start_agent.errors import RowError
from start_agent.tokens.dialects import dialect_of
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import IGNORE_INDEX, Span, SpanKind, Trace

MODIFICATIONS = "modifications"
"""The key of a trace's ``meta`` that lists what was repaired in it."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one trace gives a trainer. ``input_ids``, ``labels`` and ``assistant_masks`` have the same length.

    Attributes:
        key: of the record that the row was made of.
        input_ids: what the model is fed.
        labels: the id where the loss looks, ``IGNORE_INDEX`` elsewhere. Not shifted: trainers do that.
        assistant_masks: 1 where the loss looks.
        spans: the kind and the length of each span of the row, in order; for showing it.
        hint_loss: what became of its hints: mask, drop or train.
        modifications: what was repaired in the trace before.
        answer_begins: the first token of the answer, after the thinking; None where the trace does not say it.
    """

    key: str
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    assistant_masks: tuple[int, ...]
    spans: tuple[tuple[str, int], ...]
    hint_loss: str
    modifications: tuple[str, ...] = ()
    answer_begins: int | None = None

    @property
    def trained(self) -> int:
        """Tokens that the loss sees. The first of a row is predicted from nothing: it never counts."""
        return sum(self.assistant_masks[1:])

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready object: the columns of a training set."""
        row = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return row | {"spans": [{"kind": kind, "length": length} for kind, length in self.spans]}


def make_row(
    trace: Trace,
    tokenizer: Tokenizer,
    policy: LossPolicy | None = None,
    *,
    key: str = "",
    max_length: int | None = None,
) -> Row:
    """The row of a trace.

    Args:
        trace: complete.
        tokenizer: the model's.
        policy: what the loss sees; the paper's way where it is None.
        key: of the trace's record; decides a mix.
        max_length: tokens that a row may have; None for any number.

    Raises:
        RowError: the row would be longer, or no token of it is learned.
    """
    policy = policy or LossPolicy()
    hint_loss = policy.hint_loss(key)
    ids: list[int] = []
    labels: list[int] = []
    spans: list[tuple[str, int]] = []
    for span, learned in _pieces(trace, tokenizer, policy, hint_loss):
        ids += span.token_ids
        labels += (
            token_id if wanted else IGNORE_INDEX for token_id, wanted in zip(span.token_ids, learned, strict=True)
        )
        if span.token_ids:
            spans.append((span.kind.value, len(span.token_ids)))
    masks = tuple(int(label != IGNORE_INDEX) for label in labels)
    modifications = tuple(trace.meta.get(MODIFICATIONS, ()))
    answer_begins = None
    if trace.answer_begins is not None:
        token, byte = trace.answer_begins
        # Nothing is dropped after the thinking. A token that also holds the end of the thinking is not the answer's.
        answer_begins = len(ids) - (trace.count() - token) + bool(byte)
    row = Row(key, tuple(ids), tuple(labels), masks, tuple(spans), hint_loss.value, modifications, answer_begins)
    name = f"the trace {key[:12]}" if key else "the trace"
    if max_length is not None and len(ids) > max_length:
        told = f"{name} makes a row of {len(ids)} tokens where {max_length} are allowed: rows are never cut"
        raise RowError(told, "too_long")
    if not row.trained:
        raise RowError(f"{name} makes a row in which no token is learned: it would train nothing", "nothing_trained")
    return row


def _pieces(
    trace: Trace, tokenizer: Tokenizer, policy: LossPolicy, hint_loss: HintLoss
) -> Iterator[tuple[Span, Sequence[bool]]]:
    """The spans of the row, each with what is learned of it, token by token."""
    text, opening = b"", dialect_of(trace.meta).opening  # the end of what came before
    hints = [at for at, span in enumerate(trace.spans) if span.kind is SpanKind.HINT]
    learned_from = hints[0] if policy.mask_before_hint and hints else 0
    for at, span in enumerate(trace.spans):
        learned: Sequence[bool]
        size = len(span.token_ids)
        match span.kind:
            case SpanKind.PROMPT:
                learned = [False] * size
            case SpanKind.MODEL:
                masked_from = connective_of(trace, at, tokenizer) if policy.mask_connective else None
                learned = [at >= learned_from and (masked_from is None or place < masked_from) for place in range(size)]
            case SpanKind.TOOL_OUTPUT:
                learned = [policy.tool_output is InsertedLoss.TRAIN] * size
            case SpanKind.NOTICE:
                learned = [policy.notice is InsertedLoss.TRAIN] * size
            case SpanKind.HINT if hint_loss is HintLoss.DROP:
                span = _fence_alone(span, tokenizer, text, opening)
                learned = [True] * len(span.token_ids)
            case SpanKind.HINT:
                fence = fence_of(span, tokenizer, opening) if policy.train_hint_fence else None
                inner = fence.inner if fence else ()
                learned = [hint_loss is HintLoss.TRAIN or place in inner for place in range(size)]
        text = tokenizer.bytes_of(span.token_ids)[-1:] or text
        yield span, learned


def _fence_alone(hint: Span, tokenizer: Tokenizer, text: bytes, opening: str) -> Span:
    """What is left of a dropped hint: its opening fence, on a line of its own."""
    place = fence_of(hint, tokenizer, opening)
    if place is None:
        return Span(SpanKind.HINT, (), hint.cause)
    fence = hint.token_ids[place.begin : place.end] if place.clean else tokenizer.encode(opening)
    line_break = () if text in (b"", b"\n") else tokenizer.encode("\n")
    return Span(SpanKind.HINT, (*line_break, *fence), hint.cause)
