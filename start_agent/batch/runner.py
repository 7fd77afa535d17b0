"""The runner: many solvers at once, each trace on its own way, each finished one on disk before the next is begun.

Problems are taken from their iterator as there is room for them; nothing is kept of what is finished but its key.
There are no rounds: a trace that waits for its kernel holds up nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice

from sandbox import SandboxError
from start_agent.batch.options import BatchOptions
from start_agent.batch.record import Course, Job, make_record
from start_agent.batch.store import RunDirectory
from start_agent.decoding.solver import Solver
from start_agent.errors import BatchError, DataError, EngineError, GradingError, PromptError
from start_agent.events import CellFinished, CellStarted, TraceFinished
from start_agent.grading.verdict import Verdict
from start_agent.problem import Problem
from start_agent.tasks.prompts import prompt_text
from start_agent.trace import Trace

Grade = Callable[[Problem, Trace], Awaitable[Verdict]]
"""A finished trace's verdict. Raises GradingError or SandboxError where there can be none for now."""

FAULTS = (SandboxError, EngineError, GradingError)
"""What the infrastructure does wrong: tried again, never graded."""

_CHUNK = 64  # problems that are read at a time: reading may wait for a disk or a network, in a thread of its own


@dataclass(slots=True)
class Tally:
    """A run in numbers, as it goes on.

    Attributes:
        stored: records of these problems that were there before.
        done: records that this run has added; ``right`` of them are right, with so many ``tokens`` after their
            prompts and so many ``tool_calls``.
        faults: of the infrastructure, by the name of the exception, those that a further try repaired among them.
        failed: traces that failed at every try: still owed.
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


Listener = Callable[[Tally], None]
"""Hears of each record, each fault and each trace given up, right after it is counted."""


def anything_owed(problems: Iterable[Problem], directory: RunDirectory, samples: int) -> bool:
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
    seed: int = 0,
    instruction: str | None = None,
    listener: Listener | None = None,
) -> Tally:
    """Solve and grade what the directory lacks.

    Cancelling it cancels every trace in flight; what is finished is on disk.

    Args:
        solver: open; its own ``instruction`` follows each prompt, and so is empty in most cases.
        problems: read lazily, in order; repeated ones are left out.
        directory: open; gets a record for each problem and sample.
        options: how many samples, how many at once.
        grade: judges a trace.
        seed: of the run; that of each trace follows from it.
        instruction: follows each question; that of the problem's kind where it is None.
        listener: is told of the progress.

    Returns:
        The tally. ``failed`` traces are owed still: the same call goes on with them.

    Raises:
        BatchError: ``options.max_faults`` traces have failed at every try, or the directory cannot be written.
    """
    run = _Run(solver, problems, directory, options, grade, seed, instruction, listener or (lambda tally: None))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(options.concurrency):
                group.create_task(run.work())
    except BaseExceptionGroup as failed:  # one is enough: the first has cancelled the others
        raise failed.exceptions[0] from None
    return run.tally


class _Run:
    def __init__(
        self,
        solver: Solver,
        problems: Iterable[Problem],
        directory: RunDirectory,
        options: BatchOptions,
        grade: Grade,
        seed: int,
        instruction: str | None,
        listener: Listener,
    ) -> None:
        self.solver, self.directory, self.options = solver, directory, options
        self.grade, self.seed, self.instruction, self.listener = grade, seed, instruction, listener
        self.tally = Tally()
        self._owed = self._all_owed(problems)
        self._read: deque[Job] = deque()
        self._reading = asyncio.Lock()
        self._taken: set[bytes] = set()  # read or in flight, or given up: not yet among the directory's

    async def work(self) -> None:
        """One place: a trace after the other, as long as there are any."""
        while (job := await self._next()) is not None:
            await self._do(job)

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
                    self.tally.stored += 1
                    continue
                self._taken.add(key)
                yield job

    async def _do(self, job: Job) -> None:
        """Try until there is a verdict; a failing grader does not cost the trace."""
        trace: Trace | None = None
        course, begun = Course(), time.perf_counter()
        for course.tries in range(1, self.options.retries + 2):
            try:
                if trace is None:
                    trace = await self._solve(job, course)
                verdict = await self._judge(job, trace)
            except FAULTS as error:
                self._count_fault(job, error)
            except (PromptError, DataError) as error:  # of this problem alone: it makes no prompt, its tests no sense
                self._count_fault(job, error)
                break
            else:
                course.seconds = time.perf_counter() - begun
                self._keep(job, trace, verdict, course)
                return
        self._give_up()

    async def _solve(self, job: Job, course: Course) -> Trace:
        """Grow the trace, and know where it is meanwhile."""
        text = prompt_text(job.problem, self.instruction)
        place, entered = "engine", time.perf_counter()
        self.tally.move(None, place)
        try:
            async with aclosing(self.solver.stream(text, seed=job.seed(self.seed), live=False)) as events:
                async for event in events:
                    match event:
                        case CellStarted():
                            self.tally.move(place, "kernel")
                            place, entered = "kernel", time.perf_counter()
                        case CellFinished(result):
                            self.tally.move(place, "engine")
                            place = "engine"
                            waited = max(time.perf_counter() - entered - result.duration_s, 0.0)
                            course.kernel_seconds += result.duration_s
                            course.wait_seconds += waited
                            self.tally.wait_seconds += waited
                        case TraceFinished(trace, cost):
                            course.cost = cost
                            return trace
        finally:
            self.tally.move(place, None)
        raise AssertionError("a stream ended without a trace")

    async def _judge(self, job: Job, trace: Trace) -> Verdict:
        self.tally.move(None, "grading")
        try:
            return await self.grade(job.problem, trace)
        finally:
            self.tally.move("grading", None)

    def _keep(self, job: Job, trace: Trace, verdict: Verdict, course: Course) -> None:
        decode = self.solver.engine.tokenizer.decode
        record = make_record(job, job.seed(self.seed), trace, verdict, course, decode)
        self.directory.append(record)
        self._taken.discard(bytes.fromhex(job.key))
        self.tally.done += 1
        self.tally.right += verdict.correct
        self.tally.tokens += record["counts"]["tokens"]
        self.tally.tool_calls += record["counts"]["tool_calls"]
        self.listener(self.tally)

    def _count_fault(self, job: Job, error: Exception) -> None:
        self.tally.faults[type(error).__name__] += 1
        what = " ".join(str(error).split())[:300]
        self.tally.last_fault = f"{type(error).__name__}: {what} (problem {job.problem.key[:12]}, sample {job.sample})"
        self.listener(self.tally)

    def _give_up(self) -> None:
        self.tally.failed += 1
        if self.tally.failed >= self.options.max_faults:
            raise BatchError(
                f"stopped: {self.tally.failed} traces failed at every try, the last with {self.tally.last_fault}. "
                "What is finished is on disk; mend that and run the same command again"
            )
        self.listener(self.tally)
