"""What is looked at before the first step, so that no run learns something else than its rows say."""

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
_PROBE = 12  # tokens of each of the two rows that show whether packed rows see each other
_PROBE_TOLERANCE = 1e-2  # of the largest logit: above what bfloat16 rounds, far below what another context changes


@dataclass(frozen=True, slots=True)
class RowsFacts:
    """What the rows hold.

    Attributes:
        rows: how many.
        tokens: in all of them.
        trained: tokens that count in the loss. A row's first never does: nothing precedes it.
        longest: tokens of the longest.
        digest: sha256 over the ids and the labels of all rows, in their order.
    """

    rows: int
    tokens: int
    trained: int
    longest: int
    digest: str


def check_rows(rows: Iterable[Mapping[str, Any]], *, max_length: int, vocabulary: int) -> RowsFacts:
    """Look at every row.

    Args:
        rows: mappings with ``input_ids`` and ``labels``; ``assistant_masks`` and ``key`` are looked at where present.
        max_length: tokens that a row may have.
        vocabulary: ids that the model knows.

    Raises:
        DataError: there is none, one is malformed, is too long, or has no trained token. The message says how many.
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
            f"({_first(too_long)}): leave them out when rows are made, or train with --max-length {longest}"
        )
    if untrained:
        raise DataError(
            f"{len(untrained)} of {count} rows have no trained token ({_first(untrained)}): "
            "leave them out, or let fewer kinds of spans be masked"
        )
    return RowsFacts(count, tokens, trained, longest, digest.hexdigest())


def spans(labels: Iterable[int]) -> list[tuple[bool, int]]:
    """A row's labels as runs: whether the loss sees them, and how many tokens they are."""
    return [(kept, len(list(run))) for kept, run in groupby(int(label) != IGNORE_INDEX for label in labels)]


def check_batch(batch: Mapping[str, torch.Tensor], rows: Iterable[Mapping[str, Any]]) -> None:
    """See that a collated batch holds whole rows with exactly their labels.

    Args:
        batch: what the model will be given: ``input_ids`` and ``labels``, (sequences, length); with them either
            ``attention_mask`` or, where rows are packed, ``position_ids`` that are 0 where one begins.
        rows: where the batch was drawn from.

    Raises:
        DataError: a sequence is no row's, or its labels differ from the row's: padding or packing changed them.
    """
    pending: dict[bytes, list[np.ndarray[Any, Any]]] = {}
    for ids, labels in _sequences(batch):
        pending.setdefault(ids.tobytes(), []).append(labels)
    for row in rows:
        found = pending.get(np.asarray(row["input_ids"], dtype=np.int64).tobytes())
        if found is None:
            continue
        wanted = np.asarray(row["labels"], dtype=np.int64)
        # The first label is never predicted; packing sets it to IGNORE_INDEX, for the row before must not predict it.
        found[:] = [labels for labels in found if not np.array_equal(labels[1:], wanted[1:])]
        if not any(pending.values()):
            return
    left = [labels for found in pending.values() for labels in found]
    if left:
        raise DataError(
            f"{len(left)} sequences of the first batch do not carry the labels of their rows: "
            "the data collator cut, padded or masked them differently"
        )


def check_packing(model: Any, collate: Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]]) -> None:
    """See, by running the model, that rows packed into one sequence do not see each other.

    The same tokens are run behind two different rows: what the model makes of them must not depend on these.

    Args:
        model: as it will train.
        collate: the collator that it will train with.

    Raises:
        ConfigError: they do see each other: the attention takes a packed sequence for one text.
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
            "packed rows would see each other with this model and this --attn-implementation: "
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
        raise DataError(f"row {name} has ids from {ids.min()} to {ids.max()}; the model knows 0 to {vocabulary - 1}")
    learned = labels != IGNORE_INDEX
    if not np.array_equal(ids[learned], labels[learned]):
        raise DataError(f"row {name} has labels that are neither {IGNORE_INDEX} nor the id of their place")
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
