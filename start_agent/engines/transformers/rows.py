"""The rows of a batch, for open and ended traces, and their running turns."""

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
"""The shortest prefix that one row reuses from another, in tokens."""


@dataclass(slots=True, eq=False)
class Job:
    """A running turn; ``since`` is when it began to wait (``perf_counter``), ``queue_seconds`` how long it has waited.

    ``logprobs`` has one entry for each of ``written`` if the request asks for log-probabilities, otherwise none.
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
        """The log-probabilities of a range of ``written``; None if the request asks for none."""
        return None if self.request.num_logprobs is None else tuple(self.logprobs[begin:end])

    def turn(self, stop: Stop) -> Turn:
        """The result of the turn."""
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
    """A trace: the ids whose keys and values are in its slot, the pending ids, and its turn.

    ``number`` is the order in which rows were opened. A row without a slot has nothing cached. A row whose trace has
    ended keeps its slot until the room is needed; ``released`` is the order in which such rows ended or were last used.
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
        """Move the first pending ids to the cached ones, after they were computed."""
        self.cached += token_ids
        self.pending = self.pending[len(token_ids) :]
        if self.job is not None:
            self.job.computed_tokens += len(token_ids)


Progress = tuple[Job, Turn | EngineError | None]
"""A turn that got a token, and its result if it has ended."""


class Shared(NamedTuple):
    """A row, and the length of the prefix that another one shares with it."""

    row: Row
    length: int


def longest_shared(rows: Iterable[Row], token_ids: Sequence[int]) -> Shared | None:
    """The longest prefix of these ids that a row has computed; None if no row has a long enough one.

    The last id does not count, because it must be fed to predict the next one.
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
    """The length of the longest prefix of these ids that a row will have computed after its prompt is fed."""
    ids = list(token_ids[:-1])
    return max(
        (common_prefix([*row.cached, *row.pending], ids) for row in rows if len(row.pending) > 1),
        default=0,
    )


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the common prefix, by binary search, because comparing slices is fast."""
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
    """Add the log-probabilities of the sampled tokens to the turns that ask for them."""
    wanted = [index for index, job in enumerate(jobs) if job.request.num_logprobs is not None]
    if not wanted:
        return
    numbers = [jobs[index].request.num_logprobs or 0 for index in wanted]
    found = logprobs_of(logits[wanted], [tokens[index] for index in wanted], numbers)
    for index, one in zip(wanted, found, strict=True):
        jobs[index].logprobs.append(one)
