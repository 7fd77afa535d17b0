"""Rows in TRL: its collator, its packing and a real training step use exactly our labels; the effect of the mask."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from start_agent.data.loss import HintLoss, LossPolicy
from start_agent.data.rows import Row, make_row
from start_agent.trace import IGNORE_INDEX, SpanKind, Trace
from tests.support.traces import HINTED, H, spelled
from tests.support.vocabularies import QWEN_RANKS, vocabulary

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("datasets")
pytest.importorskip("trl")

pytestmark = pytest.mark.slow

COLUMNS = ("input_ids", "labels", "assistant_masks")
THREE = ("pocket", "sentencepiece", *(("qwen",) if QWEN_RANKS.is_file() else ("bytes",)))


def rows(name: str) -> list[Row]:
    """Rows of different lengths and policies."""
    tokenizer = vocabulary(name).tokenizer
    traces = [spelled(tokenizer, *HINTED), spelled(tokenizer, *HINTED[3:]), spelled(tokenizer, HINTED[-1])]
    found = [make_row(trace, tokenizer, LossPolicy(hint=hint)) for trace in traces for hint in list(HintLoss)[:3]]
    return [*found, make_row(traces[0], tokenizer, LossPolicy(train_hint_fence=True, mask_connective=True))]


def plain(found: list[Row]) -> list[dict[str, list[int]]]:
    return [{column: row.to_json()[column] for column in COLUMNS} for row in found]


def predicted(ids: list[int], labels: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A row and its labels but the first, which is never predicted: packing masks it."""
    return tuple(ids), tuple(labels[1:])


@pytest.mark.parametrize("name", THREE)
def test_the_collator_pads_and_changes_nothing_else(name: str) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    found = rows(name)
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(plain(found))
    for row, ids, labels, attention in zip(
        found, batch["input_ids"].tolist(), batch["labels"].tolist(), batch["attention_mask"].tolist(), strict=True
    ):
        size = sum(attention)
        assert (ids[:size], labels[:size]) == (list(row.input_ids), list(row.labels))
        assert set(labels[size:]) <= {IGNORE_INDEX}


@pytest.mark.parametrize("name", THREE)
def test_packing_keeps_the_labels(name: str) -> None:
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    found = rows(name)
    longest = max(len(row.input_ids) for row in found)
    packed = pack_dataset(datasets.Dataset.from_list(plain(found)), 2 * longest, "bfd")
    assert len(packed) < len(found)
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(list(packed))
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    starts = [*(at for at, place in enumerate(batch["position_ids"][0].tolist()) if place == 0), len(ids)]
    seen = sorted(predicted(ids[begin:end], labels[begin:end]) for begin, end in pairwise(starts))
    assert seen == sorted(predicted(list(row.input_ids), list(row.labels)) for row in found)


def tiny(vocabulary_size: int) -> Any:
    """A Llama of one layer, with fixed weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=1024,
        )
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("packing", [False, True])
def test_a_real_training_step_sees_exactly_these_labels(
    tmp_path: Path, packing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from start_agent.pocket import weights_path

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    processing = AutoTokenizer.from_pretrained(str(weights_path()))
    found = rows("pocket")
    model = tiny(len(processing))
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def listen(module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
        ids, labels = inputs["input_ids"], inputs["labels"]
        if packing:  # sequences one after another in one line
            starts = [*(inputs["position_ids"][0] == 0).nonzero().flatten().tolist(), ids.shape[1]]
            pairs = [(ids[0, begin:end], labels[0, begin:end]) for begin, end in pairwise(starts)]
        else:
            sizes = inputs["attention_mask"].sum(1).tolist()
            pairs = [(one[:size], other[:size]) for one, other, size in zip(ids, labels, sizes, strict=True)]
        seen.extend(predicted(one.tolist(), other.tolist()) for one, other in pairs)

    model.register_forward_pre_hook(listen, with_kwargs=True)
    before = model.model.embed_tokens.weight.detach().clone()
    trainer = SFTTrainer(
        model,
        args=SFTConfig(
            output_dir=str(tmp_path / "out"),
            max_length=2 * max(len(row.input_ids) for row in found),
            packing=packing,
            per_device_train_batch_size=len(found),
            max_steps=1,
            learning_rate=0.1,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_list(plain(found)),
        processing_class=processing,
    )
    trainer.train()
    assert set(seen) == {predicted(list(row.input_ids), list(row.labels)) for row in found}
    assert not torch.equal(before, model.model.embed_tokens.weight)


def loss_and_gradients(model: Any, row: Row, labels: list[int]) -> tuple[float, list[Any]]:
    model.zero_grad()
    loss = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([labels])).loss
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


def written_out(model: Any, row: Row, targets: Any) -> tuple[float, list[Any]]:
    """The loss and its gradients from targets for all tokens and the row's mask as their weights."""
    model.zero_grad()
    logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
    each = torch.nn.functional.cross_entropy(logits, targets[1:], reduction="none")
    weights = torch.tensor(row.assistant_masks[1:])
    loss = (each * weights).sum() / weights.sum()
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


def changed_hint(trace: Trace) -> Trace:
    """The same trace with another word in its hint."""
    spans = [
        span if span.kind is not H else type(span)(span.kind, (*span.token_ids[:2], 7, *span.token_ids[3:]), span.cause)
        for span in trace.spans
    ]
    return Trace(spans, trace.outcome, trace.answer, trace.meta)


def test_a_masked_hint_is_read_and_not_learned() -> None:
    """What its labels would have been changes nothing; what its ids are does: it is attended to."""
    tokenizer = vocabulary("pocket").tokenizer
    model = tiny(len(tokenizer.pieces))
    trace = spelled(tokenizer, *HINTED)
    masked = make_row(trace, tokenizer)
    loss, gradients = loss_and_gradients(model, masked, list(masked.labels))

    # The same loss written out: each token's own, weighted by the mask. Whatever the labels of masked tokens would
    # have been, neither it nor a gradient changes.
    targets = torch.tensor(masked.input_ids)
    unlearned = torch.tensor(masked.assistant_masks) == 0
    elsewhere = torch.where(unlearned, (targets + 5) % 50, targets)
    for wanted in (targets, elsewhere):
        same_loss, same_gradients = written_out(model, masked, wanted)
        assert same_loss == pytest.approx(loss, rel=1e-5)
        assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(gradients, same_gradients, strict=True))
    assert written_out(model, masked, (targets + 5) % 50)[0] != pytest.approx(loss, rel=1e-3)

    other = make_row(changed_hint(trace), tokenizer)
    assert other.labels == masked.labels  # the masked label says nothing of the id that stands there
    # The hint's words themselves are context of all that is learned after them.
    other_loss, other_gradients = loss_and_gradients(model, other, list(other.labels))
    assert other_loss != loss
    assert not all(torch.equal(one, two) for one, two in zip(gradients, other_gradients, strict=True))


def test_at_a_masked_place_the_gradient_of_the_logits_is_zero() -> None:
    """And nowhere else: the logits that predict a token get a gradient exactly where its label is learned."""
    tokenizer = vocabulary("pocket").tokenizer
    model = tiny(len(tokenizer.pieces))
    trained = {}
    for hint in (HintLoss.MASK, HintLoss.TRAIN):
        row = make_row(spelled(tokenizer, *HINTED), tokenizer, LossPolicy(hint=hint))
        logits = model(input_ids=torch.tensor([row.input_ids])).logits
        logits.retain_grad()
        model.loss_function(logits, torch.tensor([row.labels]), vocab_size=logits.shape[-1]).backward()
        touched = logits.grad[0, :-1].abs().sum(-1) > 0
        assert touched.tolist() == [mask == 1 for mask in row.assistant_masks[1:]]
        trained[hint] = row.trained
    [hint_span] = spelled(tokenizer, *HINTED).of_kind(SpanKind.HINT)
    assert trained[HintLoss.TRAIN] - trained[HintLoss.MASK] == len(hint_span.token_ids)
