"""Batches for training: texts are drawn, encoded and packed into rows, with a separate seed for each step.

The batch of a step depends only on the seed and the number of the step, so a resumed run sees the same batches as an
uninterrupted one, and the corpus need not be stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from start_agent.pocket.corpus import EARLY, Shares, texts
from start_agent.trace import IGNORE_INDEX

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

Encode = Callable[[list[str]], list[int]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows. `ids`, `targets`: int64 (rows, length). `mask`: bool (rows, 1, length, length), True: attended."""

    ids: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor
    texts: int


def encoder(tokenizer: Tokenizer) -> Encode:
    """A function from the pieces of a text to token ids; each piece is encoded separately."""

    def encode(pieces: list[str]) -> list[int]:
        return [i for encoding in tokenizer.encode_batch(pieces) for i in encoding.ids]

    return encode


def pack(documents: list[list[int]], rows: int, length: int) -> list[list[list[int]]]:
    """Pack complete documents into rows of at most `length` tokens (first fit decreasing)."""
    packed: list[list[list[int]]] = [[] for _ in range(rows)]
    room = [length] * rows
    for document in sorted(documents, key=len, reverse=True):
        for row in range(rows):
            if len(document) <= room[row]:
                packed[row].append(document)
                room[row] -= len(document)
                break
    return packed


def batch(encode: Encode, seed: int, step: int, rows: int, length: int, shares: Shares = EARLY) -> Batch:
    """The batch of a step. Attention stays within a document; all tokens but the first of a document are targets."""
    import torch

    documents: list[list[int]] = []
    total = 0
    for pieces in texts(seed * 1_000_003 + step, shares):
        ids = encode(pieces)
        if len(ids) > length:
            continue
        if total + len(ids) > rows * length:
            break
        documents.append(ids)
        total += len(ids)
    ids_tensor = torch.zeros(rows, length, dtype=torch.long)
    targets = torch.full((rows, length), IGNORE_INDEX, dtype=torch.long)
    owner = torch.full((rows, length), -1, dtype=torch.long)
    count = 0
    for row, members in enumerate(pack(documents, rows, length)):
        at = 0
        for member in members:
            end = at + len(member)
            values = torch.tensor(member)
            ids_tensor[row, at:end] = values
            targets[row, at : end - 1] = values[1:]
            owner[row, at:end] = count
            at, count = end, count + 1
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (owner[:, None, :, None] == owner[:, None, None, :]) & causal
    return Batch(ids_tensor, targets, mask, count)
