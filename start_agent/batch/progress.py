"""The progress of a running batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from start_agent.batch.record import Job


@dataclass(slots=True)
class Progress:
    """Counts of a running batch.

    Attributes:
        stored: records of these problems from earlier runs.
        done: records added by this run.
        right: number of correct ones among them.
        tokens, tool_calls: their total tokens after the prompt, and their tool calls.
        faults: infrastructure faults by exception name, including those resolved by a retry.
        failed: traces that failed all attempts and are still pending.
        last_fault: message of the latest fault.
        in_engine, in_kernel, in_grading: traces in each stage now.
        wait_seconds: total time of waiting for kernels.
        idle_seconds: time in which traces were in flight but none was in the engine.
        started: start time on the clock of ``time.perf_counter``.
    """

    stored: int = 0
    done: int = 0
    right: int = 0
    tokens: int = 0
    tool_calls: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    last_fault: str = ""
    in_engine: int = 0
    in_kernel: int = 0
    in_grading: int = 0
    wait_seconds: float = 0.0
    idle_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    _idle_since: float | None = None

    @property
    def in_flight(self) -> int:
        """Traces started but not finished."""
        return self.in_engine + self.in_kernel + self.in_grading

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    def count_fault(self, job: Job, error: Exception) -> None:
        """Count an infrastructure fault of a trace."""
        self.faults[type(error).__name__] += 1
        what = " ".join(str(error).split())[:300]
        self.last_fault = f"{type(error).__name__}: {what} (problem {job.problem.key[:12]}, sample {job.sample})"

    def move(self, origin: str | None, target: str | None) -> None:
        """Move a trace between stages: ``engine``, ``kernel``, ``grading``, or None for not in flight."""
        for place, step in ((origin, -1), (target, 1)):
            match place:
                case "engine":
                    self.in_engine += step
                case "kernel":
                    self.in_kernel += step
                case "grading":
                    self.in_grading += step
        idle = not self.in_engine and self.in_flight > 0
        if idle and self._idle_since is None:
            self._idle_since = time.perf_counter()
        elif not idle and self._idle_since is not None:
            self.idle_seconds += time.perf_counter() - self._idle_since
            self._idle_since = None


Listener = Callable[[Progress], None]
"""Called after each record, fault and failed trace is counted."""
