"""A record: one finished, graded trace, as a line of the run directory (``store`` writes and reads the lines)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from start_agent.batch.store import record_key
from start_agent.decoding.events import Cost
from start_agent.grading.verdict import Verdict
from start_agent.problem import Problem
from start_agent.seeds import derive_seed
from start_agent.trace import SpanKind, Trace


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
    """How a trace came to be: all of a record that may differ when the same run is done again.

    Attributes:
        seconds: from its start to its verdict.
        kernel_seconds: in which its cells ran.
        wait_seconds: for a kernel, and for the sandbox around the cells.
        tries: 1 where nothing failed.
        cost: what it cost the engine, at the last try.
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


def counts_of(trace: Trace) -> dict[str, int]:
    """What is counted of a trace; ``tokens`` are those after the prompt, inserted ones included."""
    prompt = trace.count(SpanKind.PROMPT)
    return {
        "tokens": trace.count() - prompt,
        "prompt_tokens": prompt,
        "model_tokens": trace.count(SpanKind.MODEL),
        "tool_calls": trace.tool_calls,
        "unhinted_tool_calls": trace.unhinted_tool_calls,
        "hints": sum(1 for _ in trace.of_kind(SpanKind.HINT)),
    }


def make_record(
    job: Job,
    seed: int | None,
    trace: Trace,
    verdict: Verdict,
    stats: RolloutStats,
    decode: Callable[[Iterable[int]], str],
) -> dict[str, Any]:
    """The JSON-able record: the key first and the trace last, as the store wants them."""
    problem = job.problem
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
        "counts": counts_of(trace),
        "meta": dict(problem.meta),
        "course": stats.to_json(),
        "trace": trace.to_json(decode),
    }
