"""What a batch holds: rows of open and of ended traces, and the turns that run on them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from start_agent.engines.base import Turn, TurnRequest, Usage
from start_agent.engines.transformers.sampling import logprobs_of
from start_agent.errors import EngineError
from start_agent.logprobs import TokenLogprob
from start_agent.tokens.stopping import Stop, StopChecker

LEAST_SHARED = 16
"""Tokens that two rows must have in common at their beginnings, for one to be spared what the other has computed."""


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

    def turn(self, stop: Stop) -> Turn:
        """How it ended."""
        usage = Usage(
            self.cached_tokens,
            self.computed_tokens,
            len(self.written),
            round(self.queue_seconds, 6),
            self.preempted,
            self.recomputed_tokens,
        )
        kept = tuple(self.written[: stop.num_kept])
        return Turn(kept, stop.kind, usage, self.logprobs_of(0, stop.num_kept))


@dataclass(slots=True, eq=False)
class Row:
    """A trace: the ids whose keys and values lie in its slot, those that are to be fed, and its turn.

    ``number`` counts the rows as they were opened. A row without a slot has nothing cached. A row whose trace has ended
    (``released``, which counts them as they ended or were of use again) keeps its slot until its room is needed.
    """

    number: int
    slot: int | None = None
    admitted: bool = False
    cached: list[int] = field(default_factory=list)
    pending: Sequence[int] = ()
    job: Job | None = None
    released: int | None = None

    def __len__(self) -> int:
        return len(self.cached) + len(self.pending)

    def fed(self, token_ids: Sequence[int]) -> None:
        """The first of what is pending has been computed."""
        self.cached += token_ids
        self.pending = self.pending[len(token_ids) :]
        if self.job is not None:
            self.job.computed_tokens += len(token_ids)


Progress = tuple[Job, Turn | EngineError | None]
"""A turn that got a token, and how it ended where it did."""


class Shared(NamedTuple):
    """A row, and how many of its first tokens are those of another one."""

    row: Row
    length: int


def longest_shared(rows: Iterable[Row], token_ids: Sequence[int]) -> Shared | None:
    """Of what rows have computed, the longest beginning of these ids; None where none has a useful one.

    The last id does not count: it must be fed for what follows it.
    """
    ids, best = list(token_ids[:-1]), None
    head = ids[:LEAST_SHARED]
    for row in rows:
        if len(row.cached) >= LEAST_SHARED and row.cached[:LEAST_SHARED] == head:
            length = common_prefix(row.cached, ids)
            if best is None or length > best.length:
                best = Shared(row, length)
    return best


def soon_shared(rows: Iterable[Row], token_ids: Sequence[int]) -> int:
    """How many of the first of these ids one of the rows will have computed once its prompt is fed."""
    ids = list(token_ids[:-1])
    return max(
        (common_prefix([*row.cached, *row.pending], ids) for row in rows if len(row.pending) > 1),
        default=0,
    )


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many of their first ids are the same; found by halves, since slices compare fast."""
    one, other = list(one), list(other)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def note_logprobs(logits: torch.Tensor, jobs: Sequence[Job], tokens: Sequence[int]) -> None:
    """Add the log-probabilities of what was just sampled to the turns that ask for them."""
    asking = [index for index, job in enumerate(jobs) if job.request.num_logprobs is not None]
    if not asking:
        return
    numbers = [jobs[index].request.num_logprobs or 0 for index in asking]
    found = logprobs_of(logits[asking], [tokens[index] for index in asking], numbers)
    for index, one in zip(asking, found, strict=True):
        jobs[index].logprobs.append(one)
