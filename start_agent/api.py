"""The Python API: one call each for what the commands do, with the same defaults.

::

    trace = start_agent.solve("What is 48613 * 7957?")
    run = start_agent.evaluate("gsm8k", model="Qwen/QwQ-32B", engine="vllm", limit=100)
    with start_agent.open(model="pocket") as solver:
        for event in solver.stream("What is 48613 * 7957?"):
            ...

Each takes the options of ``start-agent solve`` or ``start-agent batch``, named like the flags. Functions that are not
``async`` run on an event loop in a separate thread, so that they also work in notebooks.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from start_agent.analysis.run import Run
from start_agent.build import AnswerConfig, open_solver, question_for
from start_agent.decoding.events import Event
from start_agent.decoding.solver import Solver
from start_agent.decoding.trace_options import TraceOptions
from start_agent.evaluation import RunConfig, RunListener, run_evaluation
from start_agent.models import quiet_loading
from start_agent.strategies.base import Solution
from start_agent.strategies.registry import make
from start_agent.trace import Trace

T = TypeVar("T")

_SEED = object()  # stands for the options' seed


def solve(question: str, **options: Any) -> Trace:
    """Solve one question.

    Args:
        question: the question.
        options: options of ``start-agent solve``: ``model``, ``engine``, ``seed``, ``temperature``, ``strategy``, ...

    Returns:
        The trace with the answer. If the strategy makes several traces, ``SyncSolver.answer`` returns all of them.

    Raises:
        InputError: the question, an option or the model is invalid.
        EngineError, sandbox.SandboxError: the infrastructure failed.
        TypeError: the question is not a text.
    """
    _check_question(question)
    with open(**options) as solver:
        return solver.solve(question)


async def solve_async(question: str, **options: Any) -> Trace:
    """Async version of ``solve``."""
    _check_question(question)
    async with open(**options) as solver:
        return await solver.solve(question)


def evaluate(
    task: str | None = None,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    listener: RunListener | None = None,
    **options: Any,
) -> Run:
    """Solve and grade a set of problems. Calling it again computes only what is missing.

    Args:
        task: a known task, or one at ``module:object``; None if ``data`` and its columns are given.
        output_dir: the run directory; by default a new temporary one, which is not deleted.
        listener: receives the run's progress.
        options: options of ``start-agent batch``: ``model``, ``data``, ``limit``, ``samples``, ``concurrency``, ...

    Raises:
        InputError: an option, the data or the model is invalid, or the directory holds a run of other options.
        BatchError: too many traces failed at every try, or the disk is full.
        TypeError: the task, the directory or the listener has another type.
    """
    with _Loop() as loop:
        return loop.run(evaluate_async(task, output_dir=output_dir, listener=listener, **options))


async def evaluate_async(
    task: str | None = None,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    listener: RunListener | None = None,
    **options: Any,
) -> Run:
    """Async version of ``evaluate``."""
    _check("task", task, str | None, "the name of a task, such as 'gsm8k'; problems of your own are given by data=")
    _check("output_dir", output_dir, str | os.PathLike | None, "the path of a folder")
    _check("listener", listener, RunListener | None, "an instance of start_agent.RunListener")
    config = RunConfig.of(**({} if task is None else {"task": task}), **options)
    path = Path(tempfile.mkdtemp(prefix="start-agent-run-")) if output_dir is None else Path(output_dir)
    try:
        with quiet_loading(config.solver.solve.model):
            _, progress = await run_evaluation(config, path, listener)
    except BaseException:
        if output_dir is None:
            with suppress(OSError):  # it has records
                path.rmdir()
        raise
    return Run(path, progress.failed)


def open(**options: Any) -> Opened:
    """Open a solver, for ``with`` (a ``SyncSolver``) or ``async with`` (an ``AsyncSolver``).

    Args:
        options: options of ``start-agent solve``: ``model``, ``engine``, ``seed``, ``temperature``, ...

    Raises:
        ConfigError: an option is unknown or invalid. All other errors are raised on entering.
    """
    return Opened(AnswerConfig.of(**options))


class Opened:
    """Context manager that opens a solver; see ``open``."""

    def __init__(self, config: AnswerConfig) -> None:
        self.config = config
        self._loop: _Loop | None = None
        self._manager: AbstractAsyncContextManager[Solver] | None = None

    async def __aenter__(self) -> AsyncSolver:
        """Open the engine and the sandbox. Raises what ``build.open_solver`` raises."""
        self._manager = open_solver(self.config.solver, sessions=_SESSIONS)
        with quiet_loading(self.config.solver.solve.model):
            return AsyncSolver(await self._manager.__aenter__(), self.config)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._manager is not None
        await self._manager.__aexit__(kind, error, traceback)

    def __enter__(self) -> SyncSolver:
        """Open the engine and the sandbox, in a thread. Raises what ``build.open_solver`` raises."""
        self._loop = _Loop().__enter__()
        try:
            return SyncSolver(self._loop.run(self.__aenter__()), self._loop)
        except BaseException as error:
            self._loop.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._loop is not None
        try:
            self._loop.run(self.__aexit__(None, None, None))
        finally:
            self._loop.__exit__(kind, error, traceback)


_SESSIONS = 8  # maximum kernels of an opened solver: enough for interactive use


class AsyncSolver:
    """A solver with its options, for ``async`` code.

    Attributes:
        solver: generates the traces: the engine, the sandbox and the decoding settings.
    """

    def __init__(self, solver: Solver, config: AnswerConfig) -> None:
        self.solver = solver
        self._strategy, self._seed = make(config.strategy), config.solver.solve.seed

    async def solve(self, question: str, *, seed: Any = _SEED) -> Trace:
        """Return the trace with the answer; ``seed`` defaults to that of the options.

        Raises what ``Solver.solve`` raises, ConfigError if the strategy cannot compare answers, and TypeError if the
        question is not a text.
        """
        return (await self.answer(question, seed=seed)).trace

    async def answer(self, question: str, *, seed: Any = _SEED) -> Solution:
        """Return the answer, all traces that the strategy made, and their votes. Raises what ``solve`` raises."""
        _check_question(question)
        return await self._strategy.run(self.solver.solve, question_for(self.solver, question), self._seeded(seed))

    def stream(
        self, question: str | None = None, *, seed: Any = _SEED, live: bool = True, **options: Unpack[TraceOptions]
    ) -> AsyncGenerator[Event, None]:
        """Generate one trace, whatever the strategy, and yield its events; see ``Solver.stream``."""
        if question is not None:
            _check_question(question)
        return self.solver.stream(question, seed=self._seeded(seed), live=live, **options)

    def _seeded(self, seed: Any) -> Any:
        if seed is _SEED:
            return self._seed
        _check("seed", seed, int | None, "an integer, or None for traces without a seed")
        return seed


class SyncSolver:
    """A solver for code that is not ``async``.

    Attributes:
        solver: generates the traces; it runs on an event loop in another thread.
    """

    def __init__(self, asynchronous: AsyncSolver, loop: _Loop) -> None:
        self.solver, self._asynchronous, self._loop = asynchronous.solver, asynchronous, loop

    def solve(self, question: str, *, seed: Any = _SEED) -> Trace:
        """See ``AsyncSolver.solve``."""
        return self._loop.run(self._asynchronous.solve(question, seed=seed))

    def answer(self, question: str, *, seed: Any = _SEED) -> Solution:
        """See ``AsyncSolver.answer``."""
        return self._loop.run(self._asynchronous.answer(question, seed=seed))

    def stream(
        self, question: str | None = None, *, seed: Any = _SEED, **options: Unpack[TraceOptions]
    ) -> Iterator[Event]:
        """Generate one trace, whatever the strategy, and yield its events; see ``Solver.stream``.

        Closing the iterator early cancels the trace.
        """
        events = self._asynchronous.stream(question, seed=seed, **options)
        try:
            while (event := self._loop.run(_next(events))) is not None:
                yield event
        finally:
            self._loop.run(events.aclose())


def _check_question(question: object) -> None:
    _check("question", question, str, "a text, such as 'What is 48613 * 7957?'; for several questions, use `open`")


def _check(name: str, value: object, kind: Any, expected: str) -> None:
    """Raise TypeError if an argument has another type."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}; it is a {type(value).__name__}")


async def _next(events: AsyncGenerator[Event, None]) -> Event | None:
    return await anext(events, None)


class _Loop:
    """An event loop in a background thread."""

    def __enter__(self) -> Self:
        ready: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=_run_loop, args=[ready], name="start-agent", daemon=True)
        self._thread.start()
        self._loop = ready.result()
        return self

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                asyncio.run_coroutine_threadsafe(_settled(self._loop), self._loop).result()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def _run_loop(ready: Future[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ready.set_result(loop)
        loop.run_forever()


async def _settled(loop: asyncio.AbstractEventLoop) -> None:
    """Wait until cancelled tasks have ended."""
    others = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task() and task.cancelling()]
    await asyncio.gather(*others, return_exceptions=True)
