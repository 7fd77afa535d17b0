"""Continuous batching over a slot cache: the synchronous heart of the transformers engine.

A ``Row`` is an open trace. A turn makes it active: tokens are pending (its new ones, at the first turn the whole
prompt), then one token after each sampled one. ``Batch.step`` feeds what is pending: rows with several tokens in
prefill passes, then all rows with one in one decoding pass.

The cache has a budget. A turn that begins waits until there is room, the oldest trace first. Where the rows outgrow
the budget, or memory runs out, the youngest are preempted: their keys and values are dropped, and computed again once
there is room. The oldest is preempted last, so that something always comes to its end.
"""

from __future__ import annotations

import logging
import random
import time
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from start_agent.engines.base import Turn, TurnRequest, Usage
from start_agent.engines.transformers.architecture import Architecture
from start_agent.engines.transformers.memory import give_back, out_of_memory
from start_agent.engines.transformers.passes import Passes
from start_agent.engines.transformers.sampling import logprobs_of, sample
from start_agent.errors import EngineError
from start_agent.logprobs import TokenLogprob
from start_agent.tokens.stopping import Stop, StopChecker, StopKind

logger = logging.getLogger(__name__)

_MARGIN = 256  # tokens that each row may grow before one more is let in; else it would soon be preempted again
_LEAST_PREFILL = 64  # tokens in a pass, below which a smaller one saves no memory worth the time


@dataclass(slots=True, eq=False)
class Job:
    """A running turn; ``since`` is when it began to wait, on ``perf_counter``, ``queue_seconds`` how long it waited.

    ``logprobs`` are as many as ``written`` where the request asks for some, else none.
    """

    request: TurnRequest
    checker: StopChecker
    random: random.Random
    cached_tokens: int
    computed_tokens: int = 0
    written: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reported: int = 0
    since: float = 0.0
    queue_seconds: float = 0.0
    preempted: int = 0
    recomputed_tokens: int = 0

    def logprobs_of(self, begin: int, end: int) -> tuple[TokenLogprob, ...] | None:
        """Those of a run of what is written; None where the request asks for none."""
        return None if self.request.num_logprobs is None else tuple(self.logprobs[begin:end])


@dataclass(slots=True, eq=False)
class Row:
    """An open trace: the ids whose keys and values lie in its slot, those that are to be fed, and its turn.

    ``number`` counts the rows as they were opened. A row without a slot has nothing cached.
    """

    number: int
    slot: int | None = None
    admitted: bool = False
    cached: list[int] = field(default_factory=list)
    pending: Sequence[int] = ()
    job: Job | None = None

    def __len__(self) -> int:
        return len(self.cached) + len(self.pending)


Progress = tuple[Job, Turn | EngineError | None]
"""A turn that got a token, and how it ended where it did."""


def _age(row: Row) -> int:
    return row.number


class Batch:
    """The rows, the active ones in the first slots.

    Args:
        model: a causal LM of transformers, in evaluation mode.
        architecture: how it attends.
        context_length: the most tokens in a row.
        places: rows that are open at once; others wait.
        prefill_tokens: the most tokens, padding included, in one prefill pass.

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
    ) -> None:
        self.passes = Passes(model, architecture, context_length)
        self.cache = self.passes.cache
        self.places, self.prefill_tokens = places, prefill_tokens
        self.rows: list[Row] = []  # by slot
        self.active = 0
        self.waiting: list[Row] = []  # with a turn and without a slot, by age
        self.preempted = 0
        self._limits: tuple[int | None, int] = None, prefill_tokens
        self._opened = self._admitted = 0
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
        """Forget a trace, whatever it is doing."""
        self.pause(row)
        if row.slot is not None:
            self._leave(row)
        if row.admitted:
            row.admitted = False
            self._admitted -= 1
        if not self.rows and not self.waiting:
            self.cache.budget, self.prefill_tokens = self._limits  # what ran out may be there again

    def begin(self, row: Row, request: TurnRequest) -> Job:
        """A turn: of the request's ids only those are fed that the slot does not hold yet."""
        reused = min(_common_prefix(row.cached, request.token_ids), len(request.token_ids) - 1)
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
            _fed(row, chunk)
        done = [index for index, row in enumerate(rows) if not row.pending]
        return [rows[index] for index in done], logits[done]

    def _decode(self, rows: list[Row]) -> tuple[list[Row], torch.Tensor]:
        """Feed one token to each of the rows, all of the first slots: the rows and their logits (rows, vocabulary)."""
        logits = self.passes.decode([len(row.cached) for row in rows], [row.pending[0] for row in rows])
        for row in rows:
            _fed(row, row.pending)
        return rows, logits

    def _sampled(self, rows: list[Row], logits: torch.Tensor) -> list[Progress]:
        jobs = [row.job for row in rows if row.job is not None]
        tokens = sample(logits, [job.request.sampling for job in jobs], [job.random for job in jobs])
        _note_logprobs(logits, jobs, tokens)
        results: list[Progress] = []
        for row, job, token in zip(rows, jobs, tokens, strict=True):
            row.pending = [token]
            job.written.append(token)
            stop = job.checker.push(token)
            if stop is None and len(job.written) == job.request.max_tokens:
                stop = Stop(StopKind.LENGTH, len(job.written))
            if stop is not None:
                self.pause(row)
            results.append((job, None if stop is None else _ended(job, stop)))
        return results

    def _admit(self) -> None:
        """Give slots to rows that wait, as far as there are places and room; idle rows give way to them last."""
        while self.waiting:
            row = self.waiting[0]
            if not row.admitted and self._admitted >= self.places:
                return
            while self.rows and not self.cache.fits(len(self.rows) + 1, max(self._longest(), len(row)) + _MARGIN):
                if self.active:
                    return
                self._preempt(max(self.rows, key=_age))
            if not self.cache.fits(len(self.rows) + 1, len(row)):
                self._fail(row)
                continue
            self.cache.reserve(len(self.rows) + 1, max(self._longest(), len(row)))
            self.waiting.remove(row)
            if row.job is not None:
                row.job.queue_seconds += time.perf_counter() - row.job.since
            if not row.admitted:
                row.admitted = True
                self._admitted += 1
            row.slot = len(self.rows)
            self.rows.append(row)
            self._activate(row)

    def _make_room(self) -> None:
        """Room for all that is pending; where the budget does not hold it, rows are preempted: idle ones first."""
        while self.rows and not self.cache.fits(len(self.rows), self._longest()):
            if len(self.rows) == 1 and self.active:
                self._fail(self.rows[0])
            else:
                self._preempt(max(self.rows[self.active :] or self.rows, key=_age))
        if self.rows:
            self.cache.reserve(len(self.rows), self._longest())

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
            self._preempt(self.rows[-1])
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
        self._place(row, len(self.rows) - 1)
        self.rows.pop()
        row.slot = None
        row.cached.clear()

    def _longest(self) -> int:
        return max(map(len, self.rows), default=0)

    def _place(self, row: Row, slot: int) -> None:
        """Trade places with the row in another slot."""
        other = self.rows[slot]
        if other is row or row.slot is None:
            return
        self.cache.swap(row.slot, slot, max(len(row.cached), len(other.cached)))
        self.rows[row.slot], self.rows[slot] = other, row
        row.slot, other.slot = slot, row.slot


def _fed(row: Row, token_ids: Sequence[int]) -> None:
    row.cached += token_ids
    row.pending = row.pending[len(token_ids) :]
    if row.job is not None:
        row.job.computed_tokens += len(token_ids)


def _note_logprobs(logits: torch.Tensor, jobs: Sequence[Job], tokens: Sequence[int]) -> None:
    """Add the log-probabilities of what was just sampled to the turns that ask for them."""
    asking = [index for index, job in enumerate(jobs) if job.request.num_logprobs is not None]
    if not asking:
        return
    numbers = [jobs[index].request.num_logprobs or 0 for index in asking]
    found = logprobs_of(logits[asking], [tokens[index] for index in asking], numbers)
    for index, one in zip(asking, found, strict=True):
        jobs[index].logprobs.append(one)


def _ended(job: Job, stop: Stop) -> Turn:
    usage = Usage(
        job.cached_tokens,
        job.computed_tokens,
        len(job.written),
        round(job.queue_seconds, 6),
        job.preempted,
        job.recomputed_tokens,
    )
    return Turn(tuple(job.written[: stop.num_kept]), stop.kind, usage, job.logprobs_of(0, stop.num_kept))


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    if list(other[: len(one)]) == list(one):
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
