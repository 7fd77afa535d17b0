"""Checks before the first step, so that a run learns exactly what its rows say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from start_agent.errors import ConfigError, DataError
from start_agent.trace import IGNORE_INDEX

if TYPE_CHECKING:
    import torch

_NAMED = 3  # rows named in an error
_PROBE = 12  # tokens of each of the two rows that test whether packed rows see each other
_PROBE_TOLERANCE = 1e-2  # of the largest logit: above bfloat16 rounding, far below the effect of another context


@dataclass(frozen=True, slots=True)
class RowsFacts:
    """Facts about the rows.

    Attributes:
        rows: number of rows.
        tokens: total tokens.
        trained: tokens in the loss. The first token of a row never is: nothing precedes it.
        longest: tokens of the longest row.
        digest: sha256 of the ids and labels of all rows, in order.
    """

    rows: int
    tokens: int
    trained: int
    longest: int
    digest: str


def check_rows(rows: Iterable[Mapping[str, Any]], *, max_length: int, vocabulary: int) -> RowsFacts:
    """Validate all rows.

    Args:
        rows: mappings with ``input_ids`` and ``labels``, and optionally ``assistant_masks`` and ``key``.
        max_length: maximum tokens of a row.
        vocabulary: size of the model's vocabulary.

    Raises:
        DataError: there are no rows, or some are malformed, too long, or have no trained token.
    """
    digest = sha256()
    count = tokens = trained = longest = 0
    too_long: list[str] = []
    untrained: list[str] = []
    for number, row in enumerate(rows):
        name = str(row.get("key") or f"number {number}")
        ids, labels = _columns(row, name)
        _check_labels(row, name, ids, labels, vocabulary)
        learned = int((labels[1:] != IGNORE_INDEX).sum())
        if len(ids) > max_length:
            too_long.append(name)
        if not learned:
            untrained.append(name)
        count, tokens, trained, longest = count + 1, tokens + len(ids), trained + learned, max(longest, len(ids))
        for column in (ids, labels):
            digest.update(len(column).to_bytes(8, "little"))
            digest.update(column.tobytes())
    if not count:
        raise DataError("there are no rows to train on")
    if too_long:
        raise DataError(
            f"{len(too_long)} of {count} rows are longer than {max_length} tokens, the longest {longest} "
            f"({_first(too_long)}): filter them with  start-agent select, or train with --max-length {longest}"
        )
    if untrained:
        raise DataError(
            f"{len(untrained)} of {count} rows have no trained token ({_first(untrained)}): "
            "remove them, or mask fewer kinds of spans"
        )
    return RowsFacts(count, tokens, trained, longest, digest.hexdigest())


def spans(labels: Iterable[int]) -> list[tuple[bool, int]]:
    """A row's labels as runs: whether they are in the loss, and the number of tokens."""
    return [(kept, len(list(run))) for kept, run in groupby(int(label) != IGNORE_INDEX for label in labels)]


def check_batch(batch: Mapping[str, torch.Tensor], rows: Iterable[Mapping[str, Any]]) -> None:
    """Check that a collated batch consists of complete rows with exactly their labels.

    Args:
        batch: the model's input: ``input_ids`` and ``labels``, (sequences, length), and either ``attention_mask`` or,
            for packed rows, ``position_ids``, which are 0 at the beginning of each row.
        rows: the rows that the batch was drawn from.

    Raises:
        DataError: a sequence is not a row, or its labels were changed by padding or packing.
    """
    pending: dict[bytes, list[np.ndarray[Any, Any]]] = {}
    for ids, labels in _sequences(batch):
        pending.setdefault(ids.tobytes(), []).append(labels)
    for row in rows:
        found = pending.get(np.asarray(row["input_ids"], dtype=np.int64).tobytes())
        if found is None:
            continue
        wanted = np.asarray(row["labels"], dtype=np.int64)
        # The first label is never predicted; packing sets it to IGNORE_INDEX, as the row before must not predict it.
        found[:] = [labels for labels in found if not np.array_equal(labels[1:], wanted[1:])]
        if not any(pending.values()):
            return
    left = [labels for found in pending.values() for labels in found]
    if left:
        raise DataError(
            f"{len(left)} sequences of the first batch do not have the labels of their rows: "
            "the data collator cut, padded or masked them differently"
        )


def check_packing(model: Any, collate: Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]]) -> None:
    """Check, by running the model, that rows packed into one sequence do not attend to each other.

    The same tokens are run after two different rows: their logits must not depend on these.

    Args:
        model: the model as it will be trained.
        collate: the collator used in training.

    Raises:
        ConfigError: packed rows attend to each other.
    """
    import torch

    probe, before = list(range(8, 8 + _PROBE)), (list(range(1, 1 + _PROBE)), list(range(2, 2 + _PROBE))[::-1])
    made = []
    training = model.training
    model.eval()
    try:
        for other in before:
            row = {"input_ids": other + probe, "labels": other + probe, "seq_lengths": [len(other), len(probe)]}
            batch = {
                name: value.to(model.device) if isinstance(value, torch.Tensor) else value
                for name, value in collate([row]).items()
                if name != "labels"
            }
            with torch.no_grad():
                made.append(model(**batch, use_cache=False).logits[0, _PROBE:].float())
    finally:
        model.train(training)
    difference = float((made[0] - made[1]).abs().max() / made[0].abs().max())
    if difference > _PROBE_TOLERANCE:
        raise ConfigError(
            "packed rows would attend to each other with this model and this --attn-implementation: "
            "use flash_attention_2, or train with --no-packing"
        )


def _columns(row: Mapping[str, Any], name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    for column in ("input_ids", "labels"):
        if column not in row:
            raise DataError(f"row {name} has no column {column!r}; it has {', '.join(map(str, row))}")
    ids, labels = (np.asarray(row[column], dtype=np.int64) for column in ("input_ids", "labels"))
    if ids.shape != labels.shape or ids.ndim != 1:
        raise DataError(f"row {name} has {ids.size} input_ids and {labels.size} labels")
    return ids, labels


def _check_labels(
    row: Mapping[str, Any], name: str, ids: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], vocabulary: int
) -> None:
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= vocabulary):
        raise DataError(f"row {name} has ids from {ids.min()} to {ids.max()}; the model has 0 to {vocabulary - 1}")
    learned = labels != IGNORE_INDEX
    if not np.array_equal(ids[learned], labels[learned]):
        raise DataError(f"row {name} has labels that are neither {IGNORE_INDEX} nor the id at their position")
    masks = row.get("assistant_masks")
    if masks is not None and not np.array_equal(np.asarray(masks, dtype=bool), learned):
        raise DataError(f"row {name} has assistant_masks that do not agree with its labels")


def _sequences(batch: Mapping[str, torch.Tensor]) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """The ids and labels of each sequence of a batch, without its padding."""
    ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    if "attention_mask" in batch:
        kept = batch["attention_mask"].numpy().astype(bool)
        return [(one[mask], other[mask]) for one, other, mask in zip(ids, labels, kept, strict=True)]
    starts = np.flatnonzero(batch["position_ids"].numpy()[0] == 0)
    return list(zip(np.split(ids[0], starts[1:]), np.split(labels[0], starts[1:]), strict=True))


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
