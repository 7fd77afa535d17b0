"""A record: one graded sample of a problem, stored as a line of the run directory by ``store``.

Its trace is the one with the answer. If a strategy made several traces, ``strategy`` describes the others, and
``counts`` and ``course`` are sums over all of them, i.e. the cost of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from start_agent.batch.store import record_key
from start_agent.decoding.events import Cost
from start_agent.grading.verdict import Verdict
from start_agent.problem import Problem
from start_agent.seeds import derive_seed
from start_agent.strategies.base import Solution, counts_of


@dataclass(frozen=True, slots=True)
class Job:
    """One sample of a problem; it is pending until it has a record."""

    problem: Problem
    sample: int

    @property
    def key(self) -> str:
        """See ``record_key``."""
        return record_key(self.problem.key, self.sample)

    def seed(self, of_run: int | None) -> int | None:
        """The seed of the trace, derived from the run's seed, the problem and the sample, independent of the order.

        None in a run without a seed.
        """
        return None if of_run is None else derive_seed(of_run, f"{self.problem.key}:{self.sample}")


@dataclass(slots=True)
class RolloutStats:
    """Timing and cost of a rollout; not reproducible between runs.

    Attributes:
        seconds: time from start to verdict.
        kernel_seconds: total time of running cells, over all traces; may exceed ``seconds`` if they run concurrently.
        wait_seconds: total time of waiting for a kernel, including the overhead of the sandbox.
        tries: number of attempts; 1 if nothing failed.
        cost: cost of its traces in the engine, each in its last attempt.
    """

    seconds: float = 0.0
    kernel_seconds: float = 0.0
    wait_seconds: float = 0.0
    tries: int = 1
    cost: Cost = field(default_factory=Cost)

    def to_json(self) -> dict[str, float]:
        """A flat object, the engine's counts after the others."""
        cost = self.cost
        return {
            "seconds": round(self.seconds, 6),
            "kernel_seconds": round(self.kernel_seconds, 6),
            "wait_seconds": round(self.wait_seconds, 6),
            "queue_seconds": round(cost.queue_seconds, 6),
            "tries": self.tries,
            "turns": cost.turns,
            "decoded": cost.generated_tokens,
            "fed": cost.computed_tokens,
            "again": cost.recomputed_tokens,
            "reused": cost.cached_tokens,
            "preempted": cost.preempted,
        }


def make_record(
    job: Job,
    seed: int | None,
    solution: Solution,
    verdict: Verdict,
    stats: RolloutStats,
    decode: Callable[[Iterable[int]], str],
    *,
    single: bool,
) -> dict[str, Any]:
    """The JSON-able record, with the key first and the trace last, as the store requires.

    Args:
        job, seed: the job and its seed.
        solution: its traces, and which of them has the answer.
        verdict: verdict on that answer.
        stats: timing and cost.
        decode: the tokenizer's ``decode``.
        single: whether the strategy makes only one trace: then the record has no ``strategy``.
    """
    problem, trace = job.problem, solution.trace
    return {
        "key": job.key,
        "problem": problem.key,
        "sample": job.sample,
        "seed": seed,
        "kind": problem.kind.value,
        "question": problem.question,
        "gold": problem.answer,
        "answer": trace.answer,
        "correct": verdict.correct,
        "verdict": verdict.to_json(),
        "outcome": None if trace.outcome is None else trace.outcome.value,
        "counts": counts_of(*solution.traces),
        "meta": dict(problem.meta),
        "course": stats.to_json(),
        **({} if single else {"strategy": solution.to_json()}),
        "trace": trace.to_json(decode),
    }


def traces_of(record: Mapping[str, Any]) -> int:
    """The number of traces of a record's answer."""
    return len(record["strategy"]["traces"]) if "strategy" in record else 1
