"""Continuous batching over a slot cache: the synchronous heart of the transformers engine.

A ``Row`` is a trace. A turn makes it active: tokens are pending (its new ones, at the first turn the whole
prompt), then one token after each sampled one. ``Batch.step`` feeds what is pending: rows with several tokens in
prefill passes, then all rows with one in one decoding pass.

The cache has a budget. A turn that begins waits until there is room, the oldest trace first. Where the rows outgrow
the budget, or memory runs out, the youngest are preempted: their keys and values are dropped, and computed again once
there is room. The oldest is preempted last, so that something always comes to its end.

What a trace has computed stays after its end, until the room is needed. A turn that begins with the same tokens need
not compute them: it goes on in the slot of the ended trace, or gets a copy of its beginning, or of an open trace's.
Rows of ended traces never keep an open one waiting: they are the first to go, the least recently used one first.
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
from start_agent.engines.transformers.memory import give_back, out_of_memory
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

_MARGIN = 256  # tokens that each row may grow before one more is let in; else it would soon be preempted again
_LEAST_PREFILL = 64  # tokens in a pass, below which a smaller one saves no memory worth the time


def _age(row: Row) -> int:
    return row.number


def _released(row: Row) -> int:
    """0 for an open trace; else the less, the longer it has been of no use."""
    return row.released or 0


class Batch:
    """The rows, the active ones in the first slots.

    Args:
        model: a causal LM of transformers, in evaluation mode.
        architecture: how it attends.
        context_length: the most tokens in a row.
        places: rows that are open at once; others wait.
        prefill_tokens: the most tokens, padding included, in one prefill pass.
        prefix_caching: whether what a trace has computed is of use to others.

    Attributes:
        preempted: rows that lost their keys and values to others, so far.
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
        self.waiting: list[Row] = []  # with a turn and without a slot, by age
        self.preempted = 0
        self._limits: tuple[int | None, int] = None, prefill_tokens
        self._opened = self._admitted = self._released = 0
        self._failed: list[Progress] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        admissible = self.waiting and (self.waiting[0].admitted or self._admitted < self.places)
        return bool(self.active or admissible or self._failed)

    def limit(self, tokens: int) -> None:
        """Bound the cache: slots times capacity."""
        self.cache.budget = tokens
        self._limits = tokens, self.prefill_tokens

    def open(self) -> Row:
        """A new trace."""
        self._opened += 1
        return Row(self._opened)

    def close(self, row: Row) -> None:
        """End a trace, whatever it is doing; what it has computed may stay."""
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
            self.cache.budget, self.prefill_tokens = self._limits  # what ran out may be there again

    def begin(self, row: Row, request: TurnRequest) -> Job:
        """A turn: of the request's ids only those are fed that the slot does not hold yet."""
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
        """The row's turn is over, or given up; its slot keeps what was computed."""
        if row.job is None:
            return
        row.job, row.pending = None, ()
        if row.slot is None:
            self.waiting.remove(row)
        else:
            self.active -= 1
            self._place(row, self.active)

    def step(self) -> list[Progress]:
        """One pass of the model over what is pending; a token is sampled for each row with nothing pending then.

        Returns the turns that got a token, each with its ``Turn`` where that ended it, and those that failed.
        """
        results, self._failed = self._failed, []
        exhausted = False
        try:
            self._admit()
            self._make_room()
            if self.active:
                results += self._advance()
        except Exception as error:  # only its message tells what kind of error it is
            if not out_of_memory(error):
                raise
            exhausted = True  # dealt with below: here the error still holds the memory of the pass
        if exhausted:
            self._start_over()
        return results

    def _advance(self) -> list[Progress]:
        active = self.rows[: self.active]
        pending = [row for row in active if len(row.pending) > 1]
        return self._sampled(*(self._prefill(self._alike(pending)) if pending else self._decode(active)))

    def _alike(self, rows: list[Row]) -> list[Row]:
        """Those with most pending, and with them those with at least half as much, as far as one pass holds them."""
        rows = sorted(rows, key=lambda row: -len(row.pending))
        width = min(len(rows[0].pending), self.prefill_tokens)
        return [row for row in rows if 2 * len(row.pending) >= width][: self.prefill_tokens // width]

    def _prefill(self, rows: list[Row]) -> tuple[list[Row], torch.Tensor]:
        """Feed a chunk of what is pending: the rows with nothing pending then, and their logits (rows, vocabulary)."""
        chunks = [row.pending[: self.prefill_tokens] for row in rows]
        slots = [row.slot for row in rows if row.slot is not None]
        logits = self.passes.prefill(slots, [len(row.cached) for row in rows], chunks)
        for row, chunk in zip(rows, chunks, strict=True):
            row.fed(chunk)
        done = [index for index, row in enumerate(rows) if not row.pending]
        return [rows[index] for index in done], logits[done]

    def _decode(self, rows: list[Row]) -> tuple[list[Row], torch.Tensor]:
        """Feed one token to each of the rows, all of the first slots: the rows and their logits (rows, vocabulary)."""
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
        """Give slots to rows that wait, as far as there are places and room; idle rows give way to them."""
        while self.waiting:
            row = self.waiting[0]
            if not row.admitted and self._admitted >= self.places:
                return
            source = None
            # A turn that was preempted computes its own tokens again, as it is counted.
            if self.prefix_caching and row.job is not None and not row.job.preempted:
                source = longest_shared(self.rows, row.pending)
                known = 0 if source is None else source.length
                if 2 * (soon_shared(self.rows[: self.active], row.pending) - known) > len(row):
                    return  # most of its prompt is just being computed
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
        """Make room for one more row: those that are beside it then, and whose beginning it takes.

        The source is not among those beside it where its slot is taken. None: it waits, for active rows.
        """
        ended = source is not None and source.row.released is not None
        # An ended trace that has little more than the row takes is of no further use.
        takes = source is not None and ended and 2 * source.length >= len(source.row.cached)
        while True:
            others = [one for one in self.rows if not (takes and source is not None and one is source.row)]
            if self._has_room(others, len(row)):
                return others, source
            spare = [one for one in others if one.released is not None and not (source and one is source.row)]
            if spare:
                self._leave(min(spare, key=_released))
            elif ended and not takes:
                takes = True
            elif self.active:
                return None
            else:
                youngest = max(others, key=_age)
                source = None if source is not None and youngest is source.row else source
                self._preempt(youngest)

    def _has_room(self, others: list[Row], length: int) -> bool:
        """Whether a row of so many tokens may join the others; alone, it is let in whatever its size."""
        if not others:
            return True
        slots, longest = len(others) + 1, max(length, _longest(others))
        if slots > self.places or not self.cache.fits(slots, longest + _MARGIN):
            return False
        return self._worth_it(others, slots, longest)

    def _worth_it(self, rows: Sequence[Row], slots: int, length: int) -> bool:
        """Whether the rows of ended traces among these may stay, though the cache might have to grow for it."""
        return not any(map(_released, rows)) or not self.cache.grows(slots, length) or self.cache.small(slots, length)

    def _share(self, row: Row, source: Shared) -> None:
        """Give a row the beginning of another: a copy of it, or its slot where the row has none yet."""
        giver = source.row
        if row.slot is None:
            assert giver.slot is not None, "what is taken is in a slot"
            row.slot, giver.slot = giver.slot, None
            self.rows[row.slot] = row
        else:
            assert giver.slot is not None, "what is copied is in a slot"
            self.cache.copy(giver.slot, row.slot, source.length)
            if giver.released is not None:
                self._touch(giver)
        row.cached = giver.cached[: source.length]
        row.pending = row.pending[source.length :]
        if row.job is not None:
            row.job.cached_tokens = source.length

    def _touch(self, row: Row) -> None:
        """The row of an ended trace was just of use."""
        self._released += 1
        row.released = self._released

    def _make_room(self) -> None:
        """Room for all that is pending; where the budget does not hold it, rows are preempted: idle ones first."""
        while self.rows and not self._holds_all():
            if any(map(_released, self.rows)):
                self._leave(min(filter(_released, self.rows), key=_released))
            elif len(self.rows) == 1 and self.active:
                self._fail(self.rows[0])
            else:
                self._preempt(max(self.rows[self.active :] or self.rows, key=_age))
        if self.rows:
            self.cache.reserve(len(self.rows), _longest(self.rows))

    def _holds_all(self) -> bool:
        """Whether the cache holds its rows, or may grow so far that it does."""
        slots, longest = len(self.rows), _longest(self.rows)
        return self.cache.fits(slots, longest) and self._worth_it(self.rows, slots, longest)

    def _start_over(self) -> None:
        """Memory ran out: all rows are preempted, and go on as far as a smaller budget allows."""
        self.cache.budget = self.cache.slots * self.cache.capacity * 3 // 4
        self.prefill_tokens = max(_LEAST_PREFILL, self.prefill_tokens // 2)
        logger.warning(
            "out of memory with %d traces: the KV cache now holds %d tokens; traces beyond it wait",
            len(self.rows),
            self.cache.budget,
        )
        while self.rows:
            if self.rows[-1].released is None:
                self._preempt(self.rows[-1])
            else:
                self._leave(self.rows[-1])
        self.cache.drop()
        give_back(self.passes.device)

    def _preempt(self, row: Row) -> None:
        """Take a row's slot; a turn under way waits for another."""
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
        """End a turn that no memory is left for."""
        job, length = row.job, len(row)
        self.pause(row)
        if row.slot is not None:
            self._leave(row)
        if job is not None:
            room = f"{length} tokens, and the KV cache has memory for {self.cache.budget}"
            self._failed.append((job, EngineError(f"a trace has {room}: lower --max-tokens, or raise --kv-cache-gib")))

    def _queue(self, row: Row, job: Job) -> None:
        job.since = time.perf_counter()
        insort(self.waiting, row, key=_age)

    def _activate(self, row: Row) -> None:
        self._place(row, self.active)
        self.active += 1

    def _leave(self, row: Row) -> None:
        """Take the slot of a row without a turn."""
        row.cached.clear()
        self._place(row, len(self.rows) - 1)
        self.rows.pop()
        row.slot = row.released = None

    def _place(self, row: Row, slot: int) -> None:
        """Trade places with the row in another slot."""
        other = self.rows[slot]
        if other is row or row.slot is None:
            return
        self.cache.swap(row.slot, slot, len(row.cached), len(other.cached))
        self.rows[row.slot], self.rows[slot] = other, row
        row.slot, other.slot = slot, row.slot


def _longest(rows: Sequence[Row]) -> int:
    return max(map(len, rows), default=0)
