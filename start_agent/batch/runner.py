"""The batch runner: many concurrent, independent traces; each is written to disk when it is finished.

Problems are read from their iterator as slots become free; only the keys of finished ones are kept in memory. There are
no lockstep rounds: a trace that waits for its kernel does not block others. Traces are made by an executor: the
``LocalExecutor`` of this process, or one for other machines (``start_agent.batch.ray``).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from start_agent.batch.executor import LocalExecutor, RolloutExecutor
from start_agent.batch.options import BatchOptions
from start_agent.batch.progress import Listener, Progress
from start_agent.batch.record import Job
from start_agent.batch.store import RunDirectory
from start_agent.decoding.solver import Solver
from start_agent.errors import BatchError
from start_agent.grading.registry import AnswerValue, Grade
from start_agent.problem import Problem
from start_agent.strategies.base import Strategy

_CHUNK = 64  # jobs that are read at a time, in a thread, since reading may wait for disk or network


def has_pending(problems: Iterable[Problem], directory: RunDirectory, samples: int) -> bool:
    """Whether any record is missing in the directory, to avoid loading a model for nothing."""
    return any(
        bytes.fromhex(Job(problem, sample).key) not in directory.done
        for problem in problems
        for sample in range(samples)
    )


async def run_batch(
    solver: Solver,
    problems: Iterable[Problem],
    directory: RunDirectory,
    options: BatchOptions,
    *,
    grade: Grade,
    seed: int | None = 0,
    instruction: str | None = None,
    listener: Listener | None = None,
    strategy: Strategy | None = None,
    value: AnswerValue | None = None,
) -> Progress:
    """Solve and grade all pending samples.

    Cancelling cancels all traces in flight; finished ones are on disk.

    Args:
        solver: an open solver.
        problems: read lazily, in order; duplicates are skipped.
        directory: an open run directory, which gets a record for each problem and sample.
        options: samples, concurrency and fault tolerance.
        grade: grades a trace.
        seed: seed of the run, from which those of traces are derived. None for unseeded traces.
        instruction: text after each question. None for the solver's, unless that is the model's default; then that of
            the problem's kind (a letter, a program, a boxed answer), or none for a model trained without instructions.
        listener: called with the progress.
        strategy: how traces are combined to an answer; None for a single trace.
        value: the value of an answer, for strategies that count votes: ``grading.votes.math_value``, ...

    Returns:
        The progress. ``failed`` traces are still pending: the same call tries them again.

    Raises:
        BatchError: ``options.max_faults`` traces have failed all attempts, or the directory cannot be written.
    """
    executor = LocalExecutor(
        solver,
        grade,
        seed=seed,
        instruction=instruction,
        retries=options.retries,
        strategy=strategy,
        value=value,
        concurrency=options.concurrency,
    )
    return await run_at(executor, problems, directory, options, listener=listener)


async def run_at(
    executor: RolloutExecutor,
    problems: Iterable[Problem],
    directory: RunDirectory,
    options: BatchOptions,
    *,
    listener: Listener | None = None,
) -> Progress:
    """As ``run_batch``, with an open executor. An executor serves one run, since the progress belongs to it."""
    if listener is not None:
        executor.listener = listener
    executor.progress.started = time.perf_counter()
    run = _Run(executor, problems, directory, options)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(options.concurrency):
                group.create_task(run.work())
    except BaseExceptionGroup as failed:  # the first error has cancelled the other tasks
        raise failed.exceptions[0] from None
    return executor.progress


class _Run:
    def __init__(
        self, executor: RolloutExecutor, problems: Iterable[Problem], directory: RunDirectory, options: BatchOptions
    ) -> None:
        self.executor, self.directory, self.options = executor, directory, options
        self.progress = executor.progress
        self._pending = self._all_pending(problems)
        self._read: deque[Job] = deque()
        self._reading = asyncio.Lock()
        self._taken: set[bytes] = set()  # jobs that are read, in flight or failed, without a record

    async def work(self) -> None:
        """One worker: run jobs one after another until there are none."""
        while (job := await self._next()) is not None:
            record = await self.executor.run(job)
            if record is None:
                self._give_up()
            else:
                self._keep(job, record)

    async def _next(self) -> Job | None:
        if not self._read:
            async with self._reading:
                if not self._read:
                    self._read.extend(await asyncio.to_thread(lambda: list(islice(self._pending, _CHUNK))))
        return self._read.popleft() if self._read else None

    def _all_pending(self, problems: Iterable[Problem]) -> Iterator[Job]:
        """Yield pending jobs. Consumed by one thread at a time."""
        for problem in problems:
            for sample in range(self.options.samples):
                job = Job(problem, sample)
                key = bytes.fromhex(job.key)
                if key in self._taken:
                    continue
                if key in self.directory.done:
                    self.progress.stored += 1
                    continue
                self._taken.add(key)
                yield job

    def _keep(self, job: Job, record: dict[str, Any]) -> None:
        self.directory.append(record)
        self._taken.discard(bytes.fromhex(job.key))
        self.progress.done += 1
        self.progress.right += record["correct"]
        self.progress.tokens += record["counts"]["tokens"]
        self.progress.tool_calls += record["counts"]["tool_calls"]
        self.executor.listener(self.progress)

    def _give_up(self) -> None:
        self.progress.failed += 1
        if self.progress.failed >= self.options.max_faults:
            raise BatchError(
                f"stopped: {self.progress.failed} traces failed all attempts, "
                f"the last with {self.progress.last_fault}. "
                "Finished traces are on disk; fix the problem and run the same command again"
            )
        self.executor.listener(self.progress)
