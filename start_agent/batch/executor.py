"""The rollout executor: turns a job, one sample of a problem, into a record."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol

from hints import Domain, Template
from sandbox import SandboxError
from start_agent.batch.progress import Listener, Progress
from start_agent.batch.record import Job, RolloutStats, make_record
from start_agent.decoding.events import CellFinished, CellStarted, TraceFinished
from start_agent.decoding.solver import Solver
from start_agent.errors import DataError, EngineError, GradingError, PromptError, QuestionError
from start_agent.grading.verdict import Reason, Verdict
from start_agent.problem import Problem
from start_agent.tasks.prompts import code_template, prompt_text
from start_agent.trace import Trace, TraceOutcome

Grade = Callable[[Problem, Trace], Awaitable[Verdict]]
"""A finished trace's verdict. Raises GradingError or SandboxError where there can be none for now."""

FAULTS = (SandboxError, EngineError, GradingError)
"""What the infrastructure does wrong: tried again, never graded."""


class RolloutExecutor(Protocol):
    """Where traces are made and judged.

    Attributes:
        progress: of the run; the executor counts in it the faults, and where traces are.
        listener: to be told of each fault.
    """

    progress: Progress
    listener: Listener

    async def run(self, job: Job) -> dict[str, Any] | None:
        """The record of a job; None where it failed at every try. Raises BatchError where nothing can be made more."""


class LocalExecutor:
    """The executor of one process: a solver and a grader.

    Args:
        solver: open. See ``run_batch``.
        grade, seed, instruction: see ``run_batch``.
        retries: further tries of a trace whose engine, sandbox or grader failed.
    """

    def __init__(
        self, solver: Solver, grade: Grade, *, seed: int | None = 0, instruction: str | None = None, retries: int = 2
    ) -> None:
        if instruction is None and (not solver.instruction or solver.instruction != solver.engine.instruction):
            instruction = solver.instruction  # the bare question is wanted, or a sentence of the user's own
        self.solver, self.grade, self.seed = solver.changed(instruction=""), grade, seed
        self.instruction, self.retries = instruction, retries
        self.progress = Progress()
        self.listener: Listener = lambda progress: None
        self._templated: dict[Template, Solver] = {}

    async def run(self, job: Job) -> dict[str, Any] | None:
        """See ``RolloutExecutor.run``."""
        try:
            return await self.rollout(job)
        except (*FAULTS, PromptError):
            return None

    async def rollout(self, job: Job) -> dict[str, Any]:
        """The record of a job. Tries until there is a verdict; a failing grader does not cost the trace.

        Raises:
            SandboxError, EngineError, GradingError: of the last try.
            PromptError: the model takes no prompts.
        """
        trace: Trace | None = None
        stats, begun = RolloutStats(), time.perf_counter()
        for stats.tries in range(1, self.retries + 2):
            try:
                if trace is None:
                    trace = await self._solve(job, stats)
                verdict = await self._judge(job, trace)
            except PromptError as error:  # of the model, not of the question: another try says the same
                self._count_fault(job, error)
                raise
            except FAULTS as error:
                self._count_fault(job, error)
                if stats.tries > self.retries:
                    raise
            else:
                stats.seconds = time.perf_counter() - begun
                decode = self.solver.engine.tokenizer.decode
                return make_record(job, job.seed(self.seed), trace, verdict, stats, decode)
        raise AssertionError("the last try returns or raises")

    async def _solve(self, job: Job, stats: RolloutStats) -> Trace:
        """Grow the trace, and know where it is meanwhile."""
        text = prompt_text(job.problem, self.instruction)
        place, entered = "engine", time.perf_counter()
        self.progress.move(None, place)
        try:
            async with aclosing(
                self._solver_for(job.problem).stream(text, seed=job.seed(self.seed), live=False)
            ) as events:
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
                            stats.cost = cost
                            return trace
        except QuestionError as error:  # no rollout can be worse than one that cannot begin: data, like the others
            meta = {"question": text, "seed": job.seed(self.seed), "error": str(error)}
            return Trace(outcome=TraceOutcome.UNPROMPTABLE, meta=meta)
        finally:
            self.progress.move(place, None)
        raise AssertionError("a stream ended without a trace")

    def _solver_for(self, problem: Problem) -> Solver:
        """The solver; for a code problem one whose debug hints speak of programs of its form, if none is set."""
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

    def _count_fault(self, job: Job, error: Exception) -> None:
        self.progress.count_fault(job, error)
        self.listener(self.progress)
