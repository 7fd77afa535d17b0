"""Continuous batching over a slot cache: the synchronous heart of the transformers engine.

A ``Row`` is an open trace. A turn makes it active: it owes the model some tokens (its new ones, at the first turn the
whole prompt), then one token after each sampled one. ``Batch.step`` feeds what is owed: rows that owe several tokens
in prefill passes, then all rows that owe one in one decoding pass.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from start_agent.engines.base import Turn, TurnRequest, Usage
from start_agent.engines.sampling import sample
from start_agent.engines.slots import SlotCache
from start_agent.watch import Stop, StopKind, Watch


@dataclass(slots=True, eq=False)
class Job:
    """A turn under way."""

    request: TurnRequest
    watch: Watch
    random: random.Random
    reused: int
    fed: int = 0
    written: list[int] = field(default_factory=list)
    told: int = 0


@dataclass(slots=True, eq=False)
class Row:
    """An open trace: the ids whose keys and values lie in its slot, those that it owes the model, and its turn."""

    slot: int
    cached: list[int] = field(default_factory=list)
    owed: Sequence[int] = ()
    job: Job | None = None


class Batch:
    """The rows, the active ones in the first slots.

    Args:
        model: a causal LM of transformers, in evaluation mode, with SDPA attention.
        context_length: the most tokens in a row.
        prefill_tokens: the most tokens, padding included, in one prefill pass.
    """

    def __init__(self, model: Any, *, context_length: int, prefill_tokens: int = 4096) -> None:
        self.model, self.device = model, model.device
        self.prefill_tokens = prefill_tokens
        self.cache = SlotCache(model.config.get_text_config().num_hidden_layers, context_length)
        self.rows: list[Row] = []  # by slot
        self.active = 0

    def open(self) -> Row:
        """A slot for a new trace."""
        row = Row(len(self.rows))
        self.rows.append(row)
        self.cache.reserve(len(self.rows), 0)
        return row

    def close(self, row: Row) -> None:
        """Give a slot back, whatever the row is doing."""
        self.pause(row)
        self._place(row, len(self.rows) - 1)
        self.rows.pop()

    def clear(self) -> None:
        """Forget all rows, whatever they are doing."""
        self.rows.clear()
        self.active = 0

    def begin(self, row: Row, request: TurnRequest) -> Job:
        """A turn: of the request's ids only those are fed that the slot does not hold yet."""
        reused = min(_common_prefix(row.cached, request.token_ids), len(request.token_ids) - 1)
        del row.cached[reused:]
        row.owed = request.token_ids[reused:]
        row.job = Job(request, request.new_watch(), random.Random(request.seed), reused)
        self._place(row, self.active)
        self.active += 1
        return row.job

    def pause(self, row: Row) -> None:
        """The row's turn is over, or given up; its slot keeps what was computed."""
        if row.job is not None:
            row.job, row.owed = None, ()
            self.active -= 1
            self._place(row, self.active)

    def step(self) -> list[tuple[Job, Turn | None]]:
        """One pass of the model over what the active rows owe; a token is sampled for each row that owes no more.

        Returns the turns that got a token; with its ``Turn`` each that ended by it, whose row is paused.
        """
        active = self.rows[: self.active]
        if not active:
            return []
        self.cache.reserve(len(self.rows), max(len(row.cached) + len(row.owed) for row in active))
        owing = [row for row in active if len(row.owed) > 1]
        return self._sampled(*(self._prefill(self._alike(owing)) if owing else self._decode(active)))

    def _alike(self, rows: list[Row]) -> list[Row]:
        """Those that owe most, and with them those that owe at least half as much, as far as one pass holds them."""
        rows = sorted(rows, key=lambda row: -len(row.owed))
        width = min(len(rows[0].owed), self.prefill_tokens)
        return [row for row in rows if 2 * len(row.owed) >= width][: self.prefill_tokens // width]

    def _prefill(self, rows: list[Row]) -> tuple[list[Row], torch.Tensor]:
        """Feed a chunk of what the rows owe: those that owe nothing then, and their logits (rows, vocabulary)."""
        chunks = [list(row.owed[: self.prefill_tokens]) for row in rows]
        counts = [len(chunk) for chunk in chunks]
        self.cache.aim([row.slot for row in rows], [len(row.cached) for row in rows], counts, self.device)
        padded = [chunk + [0] * (max(counts) - len(chunk)) for chunk in chunks]
        ends = sorted({count - 1 for count in counts})
        logits = self._forward(torch.tensor(padded, device=self.device), torch.tensor(ends, device=self.device))
        for row, chunk in zip(rows, chunks, strict=True):
            self._fed(row, chunk)
        done = [index for index, row in enumerate(rows) if not row.owed]
        return [rows[index] for index in done], logits[done, [ends.index(counts[index] - 1) for index in done]]

    def _decode(self, rows: list[Row]) -> tuple[list[Row], torch.Tensor]:
        """Feed one token to each of the rows, all of the first slots: the rows and their logits (rows, vocabulary)."""
        self.cache.aim(slice(0, len(rows)), [len(row.cached) for row in rows], [1] * len(rows), self.device)
        logits = self._forward(torch.tensor([[row.owed[0]] for row in rows], device=self.device), 1)
        for row in rows:
            self._fed(row, row.owed)
        return rows, logits[:, 0]

    def _forward(self, ids: torch.Tensor, keep: torch.Tensor | int) -> torch.Tensor:
        """The model's logits (rows, kept positions, vocabulary) for ids (rows, width), aimed before."""
        positions = self.cache.positions[:, None] + torch.arange(ids.shape[1], device=self.device)
        output = self.model(
            input_ids=ids,
            attention_mask=self.cache.mask(ids.shape[1]),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: torch.Tensor = output.logits
        return logits

    def _fed(self, row: Row, token_ids: Sequence[int]) -> None:
        row.cached += token_ids
        row.owed = row.owed[len(token_ids) :]
        if row.job is not None:
            row.job.fed += len(token_ids)

    def _sampled(self, rows: list[Row], logits: torch.Tensor) -> list[tuple[Job, Turn | None]]:
        jobs = [row.job for row in rows if row.job is not None]
        tokens = sample(logits, [job.request.sampling for job in jobs], [job.random for job in jobs])
        results: list[tuple[Job, Turn | None]] = []
        for row, job, token in zip(rows, jobs, tokens, strict=True):
            row.owed = [token]
            job.written.append(token)
            stop = job.watch.push(token)
            if stop is None and len(job.written) == job.request.max_tokens:
                stop = Stop(StopKind.LENGTH, len(job.written))
            if stop is not None:
                self.pause(row)
            results.append((job, None if stop is None else _ended(job, stop)))
        return results

    def _place(self, row: Row, slot: int) -> None:
        """Trade places with the row in another slot."""
        other = self.rows[slot]
        if other is row:
            return
        self.cache.swap(row.slot, slot, max(len(row.cached), len(other.cached)))
        self.rows[row.slot], self.rows[slot] = other, row
        row.slot, other.slot = slot, row.slot


def _ended(job: Job, stop: Stop) -> Turn:
    return Turn(tuple(job.written[: stop.keep]), stop.kind, Usage(job.reused, job.fed, len(job.written)))


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    if list(other[: len(one)]) == list(one):
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
