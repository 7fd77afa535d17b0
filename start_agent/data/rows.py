"""Converts a trace to a row: the input ids and the labels for a trainer.

Everything is derived from the spans, and a ``LossPolicy`` determines which kinds are in the loss:

===========  ==============================================================================================
model        in the loss, including the end of sequence if the model wrote it
prompt       never in the loss
hint, mask   no loss; with ``train_hint_fence``, its opening fence is in the loss (the tokens of nothing else)
hint, drop   removed from the ids, except its opening fence, which is in the loss and without which the code
             would not be in a block. The fence keeps its own tokens; if one of them also contains a part of the
             sentence, or of the comment after the fence, the fence is encoded again. If the text before it ends
             within a line, a line break is inserted (in the loss, too). A hint without a fence is removed.
hint, train  in the loss, like the model's own tokens
tool output  no loss, or in the loss
notice       likewise
before hint  the model's own text, so in the loss; with ``mask_before_hint``, no loss before the first hint
connective   the model's own text, so in the loss; with ``mask_connective``, no loss on one before a hint
===========  ==============================================================================================

With all policies but ``drop``, the ids of a row are exactly those of the trace. A row is never truncated.
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
"""The key in a trace's ``meta`` of the list of its repairs."""


@dataclass(frozen=True, slots=True)
class Row:
    """A training row. ``input_ids``, ``labels`` and ``assistant_masks`` have the same length.

    Attributes:
        key: key of the record.
        input_ids: input of the model.
        labels: the id for tokens in the loss, otherwise ``IGNORE_INDEX``. Not shifted: trainers do that.
        assistant_masks: 1 for tokens in the loss.
        spans: kind and length of each span of the row, in order, for display.
        hint_loss: how hints are treated: mask, drop or train.
        modifications: names of the repairs of the trace.
        answer_begins: index of the first token of the answer, after the thinking; None if unknown.
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
        """Number of tokens in the loss. The first token of a row never is, since nothing precedes it."""
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
        trace: a complete trace.
        tokenizer: tokenizer of the model.
        policy: which tokens are in the loss; None for that of the paper.
        key: key of the trace's record; determines the draw of a mix.
        max_length: maximum tokens of a row; None for no limit.

    Raises:
        RowError: the row would be too long, or no token would be in the loss.
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
        # Nothing is dropped after the thinking. A token that also contains the end of thinking is not in the answer.
        answer_begins = len(ids) - (trace.count() - token) + bool(byte)
    row = Row(key, tuple(ids), tuple(labels), masks, tuple(spans), hint_loss.value, modifications, answer_begins)
    name = f"the trace {key[:12]}" if key else "the trace"
    if max_length is not None and len(ids) > max_length:
        message = f"{name} makes a row of {len(ids)} tokens, above the maximum of {max_length}"
        raise RowError(message, "too_long")
    if not row.trained:
        raise RowError(f"{name} makes a row without a token in the loss", "nothing_trained")
    return row


def _pieces(
    trace: Trace, tokenizer: Tokenizer, policy: LossPolicy, hint_loss: HintLoss
) -> Iterator[tuple[Span, Sequence[bool]]]:
    """The spans of the row, each with a flag per token: whether it is in the loss."""
    text, opening = b"", dialect_of(trace.meta).opening  # `text`: the last byte of the preceding text
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
                span = _fence_only(span, tokenizer, text, opening)
                learned = [True] * len(span.token_ids)
            case SpanKind.HINT:
                fence = fence_of(span, tokenizer, opening) if policy.train_hint_fence else None
                inner = fence.inner if fence else ()
                learned = [hint_loss is HintLoss.TRAIN or place in inner for place in range(size)]
        text = tokenizer.bytes_of(span.token_ids)[-1:] or text
        yield span, learned


def _fence_only(hint: Span, tokenizer: Tokenizer, text: bytes, opening: str) -> Span:
    """The rest of a dropped hint: its opening fence, on its own line."""
    place = fence_of(hint, tokenizer, opening)
    if place is None:
        return Span(SpanKind.HINT, (), hint.cause)
    fence = hint.token_ids[place.begin : place.end] if place.clean else tokenizer.encode(opening)
    line_break = () if text in (b"", b"\n") else tokenizer.encode("\n")
    return Span(SpanKind.HINT, (*line_break, *fence), hint.cause)
