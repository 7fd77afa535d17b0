"""Evaluation on held-out rows: their loss, and how many of their answers the model reproduces.

The loss is the mean over all trained tokens of all rows, like the training loss, not a mean of batches. An answer
counts as reproduced if greedy decoding from the end of the row's thinking yields exactly the row's answer: each of its
tokens is the most likely one given those before it. This is a cheap measure of progress, not an accuracy on problems;
``start-agent batch`` measures that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from start_agent.errors import DataError
from start_agent.trace import IGNORE_INDEX


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result on held-out rows after ``step`` optimizer steps.

    Attributes:
        step: optimizer steps done.
        loss: nats per trained token.
        right: rows whose answer the model reproduces.
        answers: rows with a known beginning of the answer.
    """

    step: int
    loss: float
    right: int
    answers: int


def refuse_overlap(rows: Sequence[Mapping[str, Any]], held_back: Sequence[Mapping[str, Any]]) -> None:
    """Raise DataError if a held-out row is also trained on, compared by problem or by ids."""
    trained = {name for row in rows for name in _names(row)}
    both = sum(any(name in trained for name in _names(row)) for row in held_back)
    if both:
        raise DataError(
            f"{both} of {len(held_back)} rows of --eval-data belong to problems that are trained on: "
            "use other problems for evaluation"
        )


def evaluate(trainer: Any, rows: Sequence[Mapping[str, Any]]) -> Evaluation:
    """Evaluate the current model of a ``transformers.Trainer``; with several processes, all of them must call it.

    Args:
        trainer: provides the model, the processes and the precision.
        rows: mappings with ``input_ids`` and ``labels``, and ``answer_begins`` if known.
    """
    model, accelerator = trainer.model_wrapped, trainer.accelerator
    pad = trainer.processing_class.pad_token_id or 0
    size = trainer.args.per_device_train_batch_size
    held_back: Any = rows  # torch accepts any sequence as a data set
    loader = accelerator.prepare_data_loader(DataLoader(held_back, size, collate_fn=lambda some: _padded(some, pad)))
    training = model.training
    model.eval()
    found: list[torch.Tensor] = []
    try:
        for batch in loader:
            with torch.no_grad(), trainer.compute_loss_context_manager():
                logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            found.append(accelerator.gather_for_metrics(_of_each_row(logits, batch["labels"])))
    finally:
        model.train(training)
    nats, count, last_wrong = torch.cat(found).double().cpu().numpy().T
    begins = [row.get("answer_begins") for row in rows]
    known = [(int(begin), wrong) for begin, wrong in zip(begins, last_wrong, strict=True) if begin is not None]
    return Evaluation(
        step=trainer.state.global_step,
        loss=float(nats.sum() / count.sum()),
        right=sum(int(wrong) < begin for begin, wrong in known),
        answers=len(known),
    )


def _names(row: Mapping[str, Any]) -> set[str]:
    ids = np.asarray(row["input_ids"], dtype=np.int64).tobytes().hex()
    return {ids, f"problem {row['problem']}"} if row.get("problem") else {ids}


def _padded(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """Rows of different lengths as tensors of shape (rows, longest), padded on the right."""
    longest = max(len(row["input_ids"]) for row in rows)
    shape = (len(rows), longest)
    ids, labels = torch.full(shape, pad), torch.full(shape, IGNORE_INDEX)
    mask = torch.zeros(shape, dtype=torch.long)
    for number, row in enumerate(rows):
        size = len(row["input_ids"])
        ids[number, :size] = torch.as_tensor(np.asarray(row["input_ids"], dtype=np.int64))
        labels[number, :size] = torch.as_tensor(np.asarray(row["labels"], dtype=np.int64))
        mask[number, :size] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def _of_each_row(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each row: total nats, trained tokens, and the position of the last one that was not the most likely, or -1.

    Args:
        logits: (rows, length, vocabulary).
        labels: (rows, length).
    """
    logits, targets = logits[:, :-1], labels[:, 1:]
    nats = cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    ).view_as(targets)
    learned = targets != IGNORE_INDEX
    wrong = learned & (logits.argmax(-1) != targets)
    places = torch.arange(1, targets.shape[1] + 1, device=targets.device)
    last = torch.where(wrong, places, -1).amax(-1)
    return torch.stack([nats.sum(-1), learned.sum(-1).float(), last.float()], dim=-1)
