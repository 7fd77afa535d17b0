"""The runner: many traces at once, each on its own way, each finished one on disk before the next is begun.

Problems are taken from their iterator as there is room for them; nothing is kept of what is finished but its key.
There are no rounds: a trace that waits for its kernel holds up nobody. Traces are made by an executor: the
``LocalExecutor`` of this process, or those of other machines (``start_agent.batch.ray``).
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

_CHUNK = 64  # problems that are read at a time: reading may wait for a disk or a network, in a thread of its own


def has_pending(problems: Iterable[Problem], directory: RunDirectory, samples: int) -> bool:
    """Whether the directory lacks a record: known before a model is loaded in vain."""
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
    """Solve and grade what the directory lacks.

    Cancelling it cancels every trace in flight; what is finished is on disk.

    Args:
        solver: open.
        problems: read lazily, in order; repeated ones are left out.
        directory: open; gets a record for each problem and sample.
        options: how many samples, how many at once.
        grade: judges a trace.
        seed: of the run; that of each trace follows from it. None: traces are not seeded.
        instruction: follows each question. Unset, it is the solver's if that is not the model's default; else that of
            the problem's kind (a letter, a program, a boxed answer), or none for a model that wants the bare question.
        listener: is told of the progress.
        strategy: how traces become an answer; one trace where unset.
        value: what an answer is worth, for strategies that count votes: ``grading.votes.math_value``, ...

    Returns:
        The progress. ``failed`` traces are still pending: the same call goes on with them.

    Raises:
        BatchError: ``options.max_faults`` traces have failed at every try, or the directory cannot be written.
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
    """As ``run_batch``, by an executor that is open. It serves one run: the progress is its own."""
    if listener is not None:
        executor.listener = listener
    executor.progress.started = time.perf_counter()
    run = _Run(executor, problems, directory, options)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(options.concurrency):
                group.create_task(run.work())
    except BaseExceptionGroup as failed:  # one is enough: the first has cancelled the others
        raise failed.exceptions[0] from None
    return executor.progress


class _Run:
    def __init__(
        self, executor: RolloutExecutor, problems: Iterable[Problem], directory: RunDirectory, options: BatchOptions
    ) -> None:
        self.executor, self.directory, self.options = executor, directory, options
        self.progress = executor.progress
        self._owed = self._all_owed(problems)
        self._read: deque[Job] = deque()
        self._reading = asyncio.Lock()
        self._taken: set[bytes] = set()  # read or in flight, or given up: not yet among the directory's

    async def work(self) -> None:
        """One place: a trace after the other, as long as there are any."""
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
                    self._read.extend(await asyncio.to_thread(lambda: list(islice(self._owed, _CHUNK))))
        return self._read.popleft() if self._read else None

    def _all_owed(self, problems: Iterable[Problem]) -> Iterator[Job]:
        """Runs in a thread, in one at a time."""
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
                f"stopped: {self.progress.failed} traces failed at every try, "
                f"the last with {self.progress.last_fault}. "
                "What is finished is on disk; mend that and run the same command again"
            )
        self.executor.listener(self.progress)
