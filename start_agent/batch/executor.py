"""The rollout executor: turns a job, one sample of a problem, into a record."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import replace
from typing import Any, Protocol

from hints import Domain, Template
from sandbox import SandboxError
from start_agent.batch.progress import Listener, Progress
from start_agent.batch.record import Job, RolloutStats, make_record
from start_agent.decoding.events import CellFinished, CellStarted, TraceFinished
from start_agent.decoding.solver import Solver
from start_agent.errors import DataError, EngineError, GradingError, PromptError, QuestionError
from start_agent.grading.registry import AnswerValue, Grade
from start_agent.grading.verdict import Reason, Verdict
from start_agent.problem import Problem
from start_agent.strategies.base import Question, Solution, Strategy
from start_agent.strategies.single import Single
from start_agent.tasks.prompts import code_template, prompt_text
from start_agent.trace import Trace, TraceOutcome

FAULTS = (SandboxError, EngineError, GradingError)
"""Infrastructure faults: retried, never graded."""


class RolloutExecutor(Protocol):
    """Produces and grades traces.

    Attributes:
        progress: progress of the run; the executor updates the counts of faults and of traces in each stage.
        listener: called after each fault.
    """

    progress: Progress
    listener: Listener

    async def run(self, job: Job) -> dict[str, Any] | None:
        """The record of a job; None if all attempts failed. Raises BatchError if no further job can be run."""


class LocalExecutor:
    """The executor for one process: a solver, a strategy and a grader.

    Args:
        solver: an open solver. See ``run_batch``.
        grade, seed, instruction, strategy, value: see ``run_batch``.
        retries: retries of a trace whose engine, sandbox or grader failed.
        concurrency: maximum traces in flight, over all jobs; None for no limit.
    """

    def __init__(
        self,
        solver: Solver,
        grade: Grade,
        *,
        seed: int | None = 0,
        instruction: str | None = None,
        retries: int = 2,
        strategy: Strategy | None = None,
        value: AnswerValue | None = None,
        concurrency: int | None = None,
    ) -> None:
        if instruction is None and (not solver.instruction or solver.instruction != solver.engine.instruction):
            instruction = solver.instruction  # the user's own, or explicitly none
        self.solver, self.grade, self.seed = solver.changed(instruction=""), grade, seed
        self.instruction, self.retries = instruction, retries
        self.strategy, self.value = strategy or Single(), value
        self.progress = Progress()
        self.listener: Listener = lambda progress: None
        self._places: AbstractAsyncContextManager[Any] = (
            nullcontext() if concurrency is None else asyncio.Semaphore(concurrency)
        )
        self._templated: dict[Template, Solver] = {}

    async def run(self, job: Job) -> dict[str, Any] | None:
        """See ``RolloutExecutor.run``."""
        try:
            return await self.rollout(job)
        except (*FAULTS, PromptError):
            return None

    async def rollout(self, job: Job) -> dict[str, Any]:
        """Produce the record of a job, with retries. Finished traces are kept when the grader or another trace fails.

        Raises:
            SandboxError, EngineError, GradingError: the error of the last attempt.
            PromptError: no prompt can be made for this model.
        """
        solution: Solution | None = None
        stats, begun, seed = RolloutStats(), time.perf_counter(), job.seed(self.seed)
        traces, question = _Traces(self, job, stats), self._question(job.problem)
        for stats.tries in range(1, self.retries + 2):
            try:
                if solution is None:
                    traces.begin()
                    solution = await self.strategy.run(traces.solve, question, seed)
                verdict = await self._judge(job, solution.trace)
            except PromptError as error:  # depends on the model, not on the question: a retry would fail, too
                traces.count_fault(error)
                raise
            except FAULTS as error:
                traces.count_fault(error)
                if stats.tries > self.retries:
                    raise
            else:
                stats.seconds = time.perf_counter() - begun
                decode, single = self.solver.engine.tokenizer.decode, isinstance(self.strategy, Single)
                return make_record(job, seed, solution, verdict, stats, decode, single=single)
        raise AssertionError("the last try returns or raises")

    def _question(self, problem: Problem) -> Question:
        """The question for the strategy, which must not see the gold answer."""
        text, value = prompt_text(problem, self.instruction), self.value
        if value is None or isinstance(self.strategy, Single):
            return Question(text)
        known = replace(problem, answer="", tests=None)
        return Question(text, lambda answer: value(known, answer))

    async def grow(self, job: Job, text: str, seed: int | None, stats: RolloutStats) -> Trace:
        """Produce a trace, and track which stage it is in."""
        async with self._places:
            place, entered = "engine", time.perf_counter()
            self.progress.move(None, place)
            try:
                async with aclosing(self._solver_for(job.problem).stream(text, seed=seed, live=False)) as events:
                    async for event in events:
                        match event:
                            case CellStarted():
                                self.progress.move(place, "kernel")
                                place, entered = "kernel", time.perf_counter()
                            case CellFinished(result):
                                self.progress.move(place, "engine")
                                place = "engine"
                                waited = max(time.perf_counter() - entered - result.duration_s, 0.0)
                                stats.kernel_seconds += result.duration_s
                                stats.wait_seconds += waited
                                self.progress.wait_seconds += waited
                            case TraceFinished(trace, cost):
                                stats.cost.include(cost)
                                return trace
            except QuestionError as error:  # a question without a valid prompt is an outcome, not a fault
                meta = {"question": text, "seed": seed, "error": str(error)}
                return Trace(outcome=TraceOutcome.UNPROMPTABLE, meta=meta)
            finally:
                self.progress.move(place, None)
            raise AssertionError("a stream ended without a trace")

    def _solver_for(self, problem: Problem) -> Solver:
        """The solver; for a code problem, one with debug hints for its form of program, unless a template is set."""
        settings, template = self.solver.settings, code_template(problem)
        if template is None or settings.domain is not Domain.CODE or settings.template is not None:
            return self.solver
        if template not in self._templated:
            self._templated[template] = self.solver.changed(settings=settings.model_copy(update={"template": template}))
        return self._templated[template]

    async def _judge(self, job: Job, trace: Trace) -> Verdict:
        self.progress.move(None, "grading")
        try:
            return await self.grade(job.problem, trace)
        except DataError as error:
            return Verdict(False, None, Reason.UNGRADABLE, detail=str(error))
        finally:
            self.progress.move("grading", None)


class _Traces:
    """The traces of a job: each is made only once, even if the strategy is restarted because another one failed."""

    def __init__(self, executor: LocalExecutor, job: Job, stats: RolloutStats) -> None:
        self._executor, self._job, self._stats = executor, job, stats
        self._made: dict[tuple[str, int | None, int], Trace] = {}
        self._asked: Counter[tuple[str, int | None]] = Counter()
        self._counted: list[Exception] = []

    def begin(self) -> None:
        """Called before each attempt of the strategy, which will request the same traces."""
        self._asked.clear()
        self._counted.clear()

    async def solve(self, question: str, *, seed: int | None = 0) -> Trace:
        """See ``strategies.base.Solve``."""
        same = self._asked[question, seed]  # without seeds, repeated questions need different traces
        self._asked[question, seed] += 1
        if (question, seed, same) not in self._made:
            try:
                trace = await self._executor.grow(self._job, question, seed, self._stats)
            except (*FAULTS, PromptError) as error:
                self.count_fault(error)
                raise
            self._made[question, seed, same] = trace
        return self._made[question, seed, same]

    def count_fault(self, error: Exception) -> None:
        """Count an error once, even if it is reported again; errors of concurrent traces are counted separately."""
        if not any(error is known for known in self._counted):
            self._counted.append(error)
            self._executor.progress.count_fault(self._job, error)
            self._executor.listener(self._executor.progress)
