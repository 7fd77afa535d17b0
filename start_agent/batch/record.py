"""A record: one answered, graded sample of a problem; a line of the run directory, which ``store`` writes and reads.

Its trace is the one that has the answer. Where a strategy made several, ``strategy`` says how each of the others ended,
and ``counts`` and ``course`` are sums over all of them: what the answer cost.
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
    """One sample of a problem: what a record is made of, and what is pending until there is one."""

    problem: Problem
    sample: int

    @property
    def key(self) -> str:
        """See ``record_key``."""
        return record_key(self.problem.key, self.sample)

    def seed(self, of_run: int | None) -> int | None:
        """The trace's seed: it follows from the run's, the problem and the sample, whatever the order of the run.

        None in a run without a seed.
        """
        return None if of_run is None else derive_seed(of_run, f"{self.problem.key}:{self.sample}")


@dataclass(slots=True)
class RolloutStats:
    """How an answer came to be: all of a record that may differ when the same run is done again.

    Attributes:
        seconds: from its start to its verdict.
        kernel_seconds: in which cells ran, over all traces; more than ``seconds`` where several run at once.
        wait_seconds: likewise, for a kernel, and for the sandbox around the cells.
        tries: 1 where nothing failed.
        cost: what its traces cost the engine, each at its last try.
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
    """The JSON-able record: the key first and the trace last, as the store wants them.

    Args:
        job, seed: what was asked.
        solution: its traces, and which of them has the answer.
        verdict: of that answer.
        stats: how it came to be.
        decode: the tokenizer's.
        single: whether one trace is all that there can be: then nothing is said of the strategy.
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
    """How many traces a record's answer took."""
    return len(record["strategy"]["traces"]) if "strategy" in record else 1
