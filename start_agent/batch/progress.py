"""A run in numbers, while it goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from start_agent.batch.record import Job


@dataclass(slots=True)
class Progress:
    """A run in numbers, as it goes on.

    Attributes:
        stored: records of these problems that were there before.
        done: records that this run has added; ``right`` of them are right, with so many ``tokens`` after their
            prompts and so many ``tool_calls``.
        faults: of the infrastructure, by the name of the exception, those that a further try repaired among them.
        failed: traces that failed at every try: still pending.
        last_fault: the latest of them, in words.
        in_engine, in_kernel, in_grading: traces that are there now.
        wait_seconds: for kernels, over all traces.
        idle_seconds: in which traces were in flight but none of them in the engine.
        started: on the clock of ``time.perf_counter``.
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
        """Traces begun and not finished."""
        return self.in_engine + self.in_kernel + self.in_grading

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self.started

    def count_fault(self, job: Job, error: Exception) -> None:
        """The infrastructure failed a trace."""
        self.faults[type(error).__name__] += 1
        what = " ".join(str(error).split())[:300]
        self.last_fault = f"{type(error).__name__}: {what} (problem {job.problem.key[:12]}, sample {job.sample})"

    def move(self, origin: str | None, target: str | None) -> None:
        """A trace goes from one place to another: ``engine``, ``kernel``, ``grading``, or None for outside."""
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
"""Hears of each record, each fault and each trace given up, right after it is counted."""
