"""The executor of many machines: workers on a Ray cluster, each with an engine, a sandbox and a grader of its own.

The driver alone reads the problems and writes the run directory. It hands a job to the worker that has most room, as
soon as there is any, and gets a record back. When a worker dies, what it was at is handed to the others, and it is
begun again, so many times.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from start_agent.batch.cluster import import_ray
from start_agent.batch.executor import FAULTS, LocalExecutor
from start_agent.batch.progress import Listener, Progress
from start_agent.batch.record import Job
from start_agent.errors import BatchError, EngineError, InputError, PromptError, WorkerError, first_line

_log = logging.getLogger(__name__)

_CLOSING = 30.0  # seconds that a worker has to close its engine and its kernels

OpenExecutor = Callable[[], AbstractAsyncContextManager[LocalExecutor]]
"""Makes a worker's executor; it is called on the worker's machine, and so must be picklable."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker says of a job: its record, where there is one, and how the worker is doing.

    ``number`` counts its replies: they may arrive in another order than that in which they were given.
    """

    number: int
    record: dict[str, Any] | None
    progress: Progress
    engine_failed: bool = False


class Worker:
    """What runs in a Ray actor: one executor, many jobs at once."""

    def __init__(self, open_executor: OpenExecutor) -> None:
        self._open_executor, self._stack = open_executor, AsyncExitStack()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._replies = 0

    async def open(self) -> str:
        """Load the model, start the sandbox; the name of the machine. Raises InputError or EngineError."""
        try:
            self._executor = await self._stack.enter_async_context(self._open_executor())
        except InputError as error:
            raise InputError(str(error)) from None  # a type that unpickles whatever its subclass asks for
        except FAULTS as error:
            raise EngineError(f"{type(error).__name__}: {error}") from None
        return platform.node()

    async def run(self, job: Job) -> Reply:
        """Make a job's record."""
        task = asyncio.current_task()
        assert task is not None
        self._jobs.add(task)
        try:
            return self._reply(await self._executor.rollout(job))
        except EngineError:
            return self._reply(None, engine_failed=True)
        except (*FAULTS, PromptError):
            return self._reply(None)
        finally:
            self._jobs.discard(task)

    def _reply(self, record: dict[str, Any] | None, *, engine_failed: bool = False) -> Reply:
        self._replies += 1
        progress = self._executor.progress
        return Reply(self._replies, record, replace(progress, faults=Counter(progress.faults)), engine_failed)

    async def close(self) -> None:
        """End all jobs; leave no engine and no kernel behind."""
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await self._stack.aclose()


@dataclass(slots=True, eq=False)
class _Life:
    """A worker from its beginning to its death, as the driver sees it."""

    number: int
    actor: Any
    host: str = ""
    busy: int = 0
    place: int = 0  # of its latest progress in the driver's list
    replies_seen: int = 0  # the number of that reply
    death: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def died(self, reason: str) -> None:
        """Take no more jobs."""
        if not self.death.done():
            self.death.set_result(reason)


class RayExecutor:
    """A ``RolloutExecutor`` of several workers, for ``async with``, on a cluster that ``cluster.connect`` prepared.

    Args:
        open_executor: see there.
        workers: how many.
        slots: jobs that one worker has at once.
        retries: times that a job whose worker died is handed on.
        restarts: times that a worker is begun again.
        gpus: that a worker needs.
    """

    def __init__(
        self,
        open_executor: OpenExecutor,
        *,
        workers: int,
        slots: int,
        retries: int = 2,
        restarts: int = 3,
        gpus: int = 0,
    ) -> None:
        self.progress = Progress()
        self.listener: Listener = lambda progress: None
        self._open_executor, self._workers, self._slots = open_executor, workers, slots
        self._retries, self._restarts, self._gpus = retries, restarts, gpus
        self._alive: list[_Life] = []
        self._reported: list[Progress] = [Progress()]  # by the driver itself, and by each life of each worker
        self._left = workers
        self._end: InputError | BatchError | None = None
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        """Begin the workers. Returns when one is ready; the others come when they are. Raises what ``do`` raises."""
        self._ray = import_ray()
        self._keepers = [asyncio.create_task(self._keep(number + 1)) for number in range(self._workers)]
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._alive or self._end)
            if self._end is not None:
                raise self._end
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def run(self, job: Job) -> dict[str, Any] | None:
        """See ``RolloutExecutor.run``. Raises also InputError: a worker's machine lacks what the user must add."""
        for _ in range(self._retries + 1):
            worker = await self._take()
            try:
                reply: Reply = await worker.actor.run.remote(job)
            except self._ray.exceptions.RayTaskError:  # a mistake of ours
                raise
            except self._ray.exceptions.RayError as error:  # of the worker, its memory, its machine
                worker.died(first_line(error))
                lost = WorkerError(f"worker {worker.number} on {worker.host} died: {first_line(error)}")
                self._reported[0].count_fault(job, lost)
                self._gather(self._reported[0])
            else:
                if reply.number > worker.replies_seen:
                    worker.replies_seen, self._reported[worker.place] = reply.number, reply.progress
                self._gather(reply.progress)
                if not reply.engine_failed:
                    return reply.record
                worker.died(reply.progress.last_fault)
            finally:
                worker.busy -= 1
                async with self._changed:
                    self._changed.notify()
        return None

    async def _take(self) -> _Life:
        """A place at the worker that has most room; waits for one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._end or any(self._has_room(life) for life in self._alive))
            if self._end is not None:
                raise self._end
            worker = min(filter(self._has_room, self._alive), key=lambda life: life.busy)
            worker.busy += 1
            return worker

    def _has_room(self, life: _Life) -> bool:
        return life.busy < self._slots and not life.death.done()

    async def _keep(self, number: int) -> None:
        """Begin a worker, and again when it has died, until its restarts are used up."""
        options = {"num_cpus": 0, "num_gpus": self._gpus, "scheduling_strategy": "SPREAD"}
        kind = self._ray.remote(Worker).options(max_concurrency=self._slots + 1, **options)
        for left in range(self._restarts, -1, -1):
            life = _Life(number, kind.remote(self._open_executor))
            try:
                reason = await self._live(life)
            except InputError as error:
                await self._finish(error)
                return
            finally:
                self._ray.kill(life.actor)
            what = f"it is begun again, {left} more times at most" if left else "it is given up"
            _log.warning("worker %d on %s died, %s: %s", number, life.host or "its machine", what, reason)
        self._left -= 1
        if not self._left:
            await self._finish(
                BatchError(
                    f"stopped: all {self._workers} workers have died {self._restarts + 1} times, the last: {reason}. "
                    "What is finished is on disk; mend that and run the same command again"
                )
            )

    async def _live(self, life: _Life) -> str:
        """A worker from its beginning to its death: of what it died. Raises InputError."""
        errors = self._ray.exceptions
        try:
            life.host = await life.actor.open.remote()
        except errors.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None
            return str(error.cause) if isinstance(error.cause, EngineError) else first_line(error)
        except errors.RayError as error:
            return first_line(error)
        life.place = len(self._reported)
        self._reported.append(Progress())
        self._alive.append(life)
        try:
            async with self._changed:
                self._changed.notify_all()
            return await life.death
        finally:
            self._alive.remove(life)

    async def _finish(self, end: InputError | BatchError) -> None:
        self._end = self._end or end
        async with self._changed:
            self._changed.notify_all()

    def _gather(self, latest: Progress) -> None:
        """The run's progress from that of the workers, as each reported it last."""
        found, alive = self.progress, [self._reported[life.place] for life in self._alive if not life.death.done()]
        found.in_engine = sum(progress.in_engine for progress in alive)
        found.in_kernel = sum(progress.in_kernel for progress in alive)
        found.in_grading = sum(progress.in_grading for progress in alive)
        found.wait_seconds = sum(progress.wait_seconds for progress in self._reported)
        found.idle_seconds = sum(progress.idle_seconds for progress in self._reported) / self._workers
        found.faults = sum((progress.faults for progress in self._reported), Counter())
        if latest.last_fault:
            found.last_fault = latest.last_fault
        self.listener(found)

    async def _close(self) -> None:
        alive = list(self._alive)
        with suppress(TimeoutError):
            closing = (_answer(life.actor.close.remote()) for life in alive if not life.death.done())
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), _CLOSING)
        for keeper in self._keepers:
            keeper.cancel()  # and with it its actor
        await asyncio.gather(*self._keepers, return_exceptions=True)


async def _answer(reference: Any) -> Any:
    """What an actor answers: ``wait_for`` and ``gather`` want a coroutine."""
    return await reference
