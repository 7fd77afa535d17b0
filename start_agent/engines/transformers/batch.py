"""Continuous batching over a slot cache: the synchronous core of the transformers engine.

A ``Row`` is a trace. A turn makes it active: first its new tokens are pending (in the first turn the complete prompt),
then each sampled token. ``Batch.step`` feeds pending tokens: rows with several of them in prefill passes, then all rows
with one token in one decoding pass.

The cache has a budget. A new turn waits until there is room, the oldest trace first. If the rows outgrow the budget, or
memory runs out, the newest rows are preempted: their keys and values are dropped, and computed again when there is
room. The oldest row is preempted last, so that some trace always makes progress.

What an ended trace has computed stays in the cache until the room is needed. A turn with the same prefix need not
compute it again: it takes the slot of the ended trace, or gets a copy of the prefix from an ended or open trace. Rows
of ended traces never make an open one wait: they are dropped first, the least recently used one before the others.
"""

from __future__ import annotations

import logging
import random
import time
from bisect import insort
from collections.abc import Sequence
from typing import Any

import torch

from start_agent.engines.base import TurnRequest
from start_agent.engines.transformers.architecture import Architecture
from start_agent.engines.transformers.memory import out_of_memory, release_memory
from start_agent.engines.transformers.passes import Passes
from start_agent.engines.transformers.rows import (
    LEAST_SHARED,
    Job,
    Progress,
    Row,
    Shared,
    common_prefix,
    longest_shared,
    note_logprobs,
    soon_shared,
)
from start_agent.engines.transformers.sampling import sample
from start_agent.errors import EngineError
from start_agent.tokens.stopping import Stop, StopKind

logger = logging.getLogger(__name__)

_MARGIN = 256  # tokens of free room per row needed to admit another; otherwise it would soon be preempted
_LEAST_PREFILL = 64  # tokens in a pass; smaller passes hardly save memory


def _age(row: Row) -> int:
    return row.number


def _released(row: Row) -> int:
    """0 for an open trace; for an ended one, the smaller the longer it has not been used."""
    return row.released or 0


class Batch:
    """The rows, with the active ones in the first slots.

    Args:
        model: a causal LM of transformers, in evaluation mode.
        architecture: its attention.
        context_length: the most tokens in a row.
        places: the most open rows; others wait.
        prefill_tokens: the most tokens in one prefill pass, including padding.
        prefix_caching: whether traces reuse the prefixes of others.

    Attributes:
        preempted: the number of preemptions so far.
    """

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        *,
        context_length: int,
        places: int = 64,
        prefill_tokens: int = 4096,
        prefix_caching: bool = True,
    ) -> None:
        self.passes = Passes(model, architecture, context_length)
        self.cache = self.passes.cache
        self.places, self.prefill_tokens, self.prefix_caching = places, prefill_tokens, prefix_caching
        self.rows: list[Row] = []  # by slot
        self.active = 0
        self.waiting: list[Row] = []  # rows with a turn and without a slot, by age
        self.preempted = 0
        self._limits: tuple[int | None, int] = None, prefill_tokens
        self._opened = self._admitted = self._released = 0
        self._failed: list[Progress] = []

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        admissible = self.waiting and (self.waiting[0].admitted or self._admitted < self.places)
        return bool(self.active or admissible or self._failed)

    def limit(self, tokens: int) -> None:
        """Limit the cache to this number of tokens (slots times capacity)."""
        self.cache.budget = tokens
        self._limits = tokens, self.prefill_tokens

    def open(self) -> Row:
        """Open a new trace."""
        self._opened += 1
        return Row(self._opened)

    def close(self, row: Row) -> None:
        """Close a trace, and cancel its turn; what it has computed may stay in the cache."""
        self.pause(row)
        if row.slot is not None:
            if self.prefix_caching and len(row.cached) >= LEAST_SHARED:
                self._touch(row)
            else:
                self._leave(row)
        if row.admitted:
            row.admitted = False
            self._admitted -= 1
        if not self.waiting and all(map(_released, self.rows)):
            self.cache.budget, self.prefill_tokens = self._limits  # there may be enough memory again

    def begin(self, row: Row, request: TurnRequest) -> Job:
        """Begin a turn; only ids of the request that are not in the slot yet will be fed."""
        reused = min(common_prefix(row.cached, request.token_ids), len(request.token_ids) - 1)
        del row.cached[reused:]
        row.pending = request.token_ids[reused:]
        row.job = Job(request, request.new_checker(), random.Random(request.seed), reused)
        if row.slot is None:
            self._queue(row, row.job)
        else:
            self._activate(row)
        return row.job

    def pause(self, row: Row) -> None:
        """End or cancel the row's turn; its slot keeps what was computed."""
        if row.job is None:
            return
        row.job, row.pending = None, ()
        if row.slot is None:
            self.waiting.remove(row)
        else:
            self.active -= 1
            self._place(row, self.active)

    def step(self) -> list[Progress]:
        """Run one pass over pending tokens, and sample a token for each row that has no more of them.

        Returns the turns that got a token, with the ``Turn`` if that ended it, and the failed ones.
        """
        results, self._failed = self._failed, []
        exhausted = False
        try:
            self._admit()
            self._make_room()
            if self.active:
                results += self._advance()
        except Exception as error:  # torch has no type for running out of memory on all devices
            if not out_of_memory(error):
                raise
            exhausted = True  # handled below, because the error's frames still refer to the memory of the pass
        if exhausted:
            self._reset_after_exhaustion()
        return results

    def _advance(self) -> list[Progress]:
        active = self.rows[: self.active]
        pending = [row for row in active if len(row.pending) > 1]
        return self._sampled(*(self._prefill(self._similar(pending)) if pending else self._decode(active)))

    def _similar(self, rows: list[Row]) -> list[Row]:
        """The row with most pending tokens, and those with at least half as many, as far as they fit one pass."""
        rows = sorted(rows, key=lambda row: -len(row.pending))
        width = min(len(rows[0].pending), self.prefill_tokens)
        return [row for row in rows if 2 * len(row.pending) >= width][: self.prefill_tokens // width]

    def _prefill(self, rows: list[Row]) -> tuple[list[Row], torch.Tensor]:
        """Feed a chunk of pending tokens; returns rows without further ones, and their logits (rows, vocabulary)."""
        chunks = [row.pending[: self.prefill_tokens] for row in rows]
        slots = [row.slot for row in rows if row.slot is not None]
        logits = self.passes.prefill(slots, [len(row.cached) for row in rows], chunks)
        for row, chunk in zip(rows, chunks, strict=True):
            row.fed(chunk)
        done = [index for index, row in enumerate(rows) if not row.pending]
        return [rows[index] for index in done], logits[done]

    def _decode(self, rows: list[Row]) -> tuple[list[Row], torch.Tensor]:
        """Feed one token to each row, in the first slots; returns the rows and their logits (rows, vocabulary)."""
        logits = self.passes.decode([len(row.cached) for row in rows], [row.pending[0] for row in rows])
        for row in rows:
            row.fed(row.pending)
        return rows, logits

    def _sampled(self, rows: list[Row], logits: torch.Tensor) -> list[Progress]:
        jobs = [row.job for row in rows if row.job is not None]
        tokens = sample(logits, [job.request.sampling for job in jobs], [job.random for job in jobs])
        note_logprobs(logits, jobs, tokens)
        results: list[Progress] = []
        for row, job, token in zip(rows, jobs, tokens, strict=True):
            row.pending = [token]
            job.written.append(token)
            stop = job.checker.push(token)
            if stop is None and len(job.written) == job.request.max_tokens:
                stop = Stop(StopKind.LENGTH, len(job.written))
            if stop is not None:
                self.pause(row)
            results.append((job, None if stop is None else job.turn(stop)))
        return results

    def _admit(self) -> None:
        """Give slots to waiting rows while there are places and room; idle rows may be preempted for them."""
        while self.waiting:
            row = self.waiting[0]
            if not row.admitted and self._admitted >= self.places:
                return
            source = None
            # A preempted turn computes its own tokens again, so that recomputed_tokens is right.
            if self.prefix_caching and row.job is not None and not row.job.preempted:
                source = longest_shared(self.rows, row.pending)
                known = 0 if source is None else source.length
                if 2 * (soon_shared(self.rows[: self.active], row.pending) - known) > len(row):
                    return  # another row is computing most of its prompt
            found = self._find_slot(row, source)
            if found is None:
                return
            others, source = found
            slots, length = len(others) + 1, max(len(row), _longest(others))
            if not self.cache.fits(slots, len(row)):
                self._fail(row)
                continue
            self.cache.reserve(slots, length)
            self.waiting.remove(row)
            if row.job is not None:
                row.job.queue_seconds += time.perf_counter() - row.job.since
            if not row.admitted:
                row.admitted = True
                self._admitted += 1
            if len(others) == len(self.rows):
                row.slot = len(self.rows)
                self.rows.append(row)
            if source is not None:
                self._share(row, source)
            self._activate(row)

    def _find_slot(self, row: Row, source: Shared | None) -> tuple[list[Row], Shared | None] | None:
        """Make room for one more row; returns the other rows and the source of its prefix.

        If the row takes over the source's slot, the other rows do not include the source. None: wait for active rows.
        """
        ended = source is not None and source.row.released is not None
        # An ended trace that has hardly more than the prefix is not worth keeping.
        takes_over = source is not None and ended and 2 * source.length >= len(source.row.cached)
        while True:
            others = [one for one in self.rows if not (takes_over and source is not None and one is source.row)]
            if self._has_room(others, len(row)):
                return others, source
            spare = [one for one in others if one.released is not None and not (source and one is source.row)]
            if spare:
                self._leave(min(spare, key=_released))
            elif ended and not takes_over:
                takes_over = True
            elif self.active:
                return None
            else:
                newest = max(others, key=_age)
                source = None if source is not None and newest is source.row else source
                self._preempt(newest)

    def _has_room(self, others: list[Row], length: int) -> bool:
        """Whether there is room for a row of this length beside the others; a single row is always admitted."""
        if not others:
            return True
        slots, longest = len(others) + 1, max(length, _longest(others))
        if slots > self.places or not self.cache.fits(slots, longest + _MARGIN):
            return False
        return self._may_keep_ended(others, slots, longest)

    def _may_keep_ended(self, rows: Sequence[Row], slots: int, length: int) -> bool:
        """Whether ended rows among these may stay, although the cache may have to grow for it."""
        return not any(map(_released, rows)) or not self.cache.grows(slots, length) or self.cache.small(slots, length)

    def _share(self, row: Row, source: Shared) -> None:
        """Give a row the prefix of another one: a copy of it, or its slot if the row has none yet."""
        other = source.row
        assert other.slot is not None, "a prefix is in a slot"
        if row.slot is None:
            row.slot, other.slot = other.slot, None
            self.rows[row.slot] = row
        else:
            self.cache.copy(other.slot, row.slot, source.length)
            if other.released is not None:
                self._touch(other)
        row.cached = other.cached[: source.length]
        row.pending = row.pending[source.length :]
        if row.job is not None:
            row.job.cached_tokens = source.length

    def _touch(self, row: Row) -> None:
        """Mark an ended row as just used."""
        self._released += 1
        row.released = self._released

    def _make_room(self) -> None:
        """Make room for pending tokens; if needed drop ended rows, then preempt others, idle ones first."""
        while self.rows and not self._fits_all():
            if any(map(_released, self.rows)):
                self._leave(min(filter(_released, self.rows), key=_released))
            elif len(self.rows) == 1 and self.active:
                self._fail(self.rows[0])
            else:
                self._preempt(max(self.rows[self.active :] or self.rows, key=_age))
        if self.rows:
            self.cache.reserve(len(self.rows), _longest(self.rows))

    def _fits_all(self) -> bool:
        """Whether the cache has room for its rows, or may grow to have it."""
        slots, longest = len(self.rows), _longest(self.rows)
        return self.cache.fits(slots, longest) and self._may_keep_ended(self.rows, slots, longest)

    def _reset_after_exhaustion(self) -> None:
        """Preempt all rows after running out of memory; they continue with a smaller budget."""
        self.cache.budget = self.cache.slots * self.cache.capacity * 3 // 4
        self.prefill_tokens = max(_LEAST_PREFILL, self.prefill_tokens // 2)
        logger.warning(
            "out of memory with %d traces: the KV cache is now limited to %d tokens; other traces wait",
            len(self.rows),
            self.cache.budget,
        )
        while self.rows:
            if self.rows[-1].released is None:
                self._preempt(self.rows[-1])
            else:
                self._leave(self.rows[-1])
        self.cache.drop()
        release_memory(self.passes.device)

    def _preempt(self, row: Row) -> None:
        """Take a row's slot; a running turn waits for another."""
        job, cached = row.job, len(row.cached)
        self.pause(row)
        self._leave(row)
        self.preempted += 1
        if job is not None:
            job.preempted += 1
            job.recomputed_tokens += cached
            row.job, row.pending = job, [*job.request.token_ids, *job.written]
            self._queue(row, job)

    def _fail(self, row: Row) -> None:
        """End a turn for which there is not enough memory."""
        job, length = row.job, len(row)
        self.pause(row)
        if row.slot is not None:
            self._leave(row)
        if job is not None:
            room = f"{length} tokens, but the KV cache has memory for {self.cache.budget}"
            self._failed.append((job, EngineError(f"a trace has {room}; lower --max-tokens or raise --kv-cache-gib")))

    def _queue(self, row: Row, job: Job) -> None:
        job.since = time.perf_counter()
        insort(self.waiting, row, key=_age)

    def _activate(self, row: Row) -> None:
        self._place(row, self.active)
        self.active += 1

    def _leave(self, row: Row) -> None:
        """Free the slot of a row without a turn."""
        row.cached.clear()
        self._place(row, len(self.rows) - 1)
        self.rows.pop()
        row.slot = row.released = None

    def _place(self, row: Row, slot: int) -> None:
        """Swap slots with the row in another slot."""
        other = self.rows[slot]
        if other is row or row.slot is None:
            return
        self.cache.swap(row.slot, slot, len(row.cached), len(other.cached))
        self.rows[row.slot], self.rows[slot] = other, row
        row.slot, other.slot = slot, row.slot


def _longest(rows: Sequence[Row]) -> int:
    return max(map(len, rows), default=0)
