"""The executor for many machines: workers on a Ray cluster, each with its own engine, sandbox and grader.

Only the driver reads problems and writes the run directory. It sends each job to the worker with the most free slots
and receives a record. When a worker dies, its jobs go to other workers and it is restarted, up to a maximum.
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

_CLOSING = 30.0  # seconds for a worker to close its engine and kernels

OpenExecutor = Callable[[], AbstractAsyncContextManager[LocalExecutor]]
"""Makes the executor of a worker; called on the worker's machine, so it must be picklable."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's reply to a job: the record, if there is one, and the worker's progress.

    ``number`` counts the worker's replies, which may arrive out of order.
    """

    number: int
    record: dict[str, Any] | None
    progress: Progress
    engine_failed: bool = False


class Worker:
    """The Ray actor: one executor that runs many jobs concurrently."""

    def __init__(self, open_executor: OpenExecutor) -> None:
        self._open_executor, self._stack = open_executor, AsyncExitStack()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._replies = 0

    async def open(self) -> str:
        """Load the model and start the sandbox. Returns the machine's name. Raises InputError or EngineError."""
        try:
            self._executor = await self._stack.enter_async_context(self._open_executor())
        except InputError as error:
            raise InputError(str(error)) from None  # subclasses may not be unpicklable on the driver
        except FAULTS as error:
            raise EngineError(f"{type(error).__name__}: {error}") from None
        return platform.node()

    async def run(self, job: Job) -> Reply:
        """Run a job."""
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
        """Cancel all jobs, and close the engine and kernels."""
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await self._stack.aclose()


@dataclass(slots=True, eq=False)
class _Life:
    """One start of a worker, until it dies, as seen by the driver."""

    number: int
    actor: Any
    host: str = ""
    busy: int = 0
    place: int = 0  # index of its latest progress in the driver's list
    replies_seen: int = 0  # number of the latest reply
    death: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def died(self, reason: str) -> None:
        """Mark the worker as dead."""
        if not self.death.done():
            self.death.set_result(reason)


class RayExecutor:
    """A ``RolloutExecutor`` with several workers, for ``async with``, on a cluster prepared by ``cluster.connect``.

    Args:
        open_executor: see ``OpenExecutor``.
        workers: number of workers.
        slots: maximum concurrent jobs per worker.
        retries: retries of a job whose worker died.
        restarts: maximum restarts per worker.
        gpus: GPUs per worker.
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
        self._reported: list[Progress] = [Progress()]  # of the driver itself, then of each start of each worker
        self._left = workers
        self._end: InputError | BatchError | None = None
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        """Start the workers. Returns when the first is ready. Raises InputError or BatchError as ``run``."""
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
        """See ``RolloutExecutor.run``. Also raises InputError if something is missing on a worker's machine."""
        for _ in range(self._retries + 1):
            worker = await self._take()
            try:
                reply: Reply = await worker.actor.run.remote(job)
            except self._ray.exceptions.RayTaskError:  # a bug in our code
                raise
            except self._ray.exceptions.RayError as error:  # the worker or its machine died
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
        """Wait for a worker with a free slot, and reserve one at the worker with the fewest jobs."""
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
        """Start a worker, and restart it when it dies, up to the maximum of restarts."""
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
            what = f"restarting it (at most {left} more times)" if left else "no restarts are left"
            _log.warning("worker %d on %s died, %s: %s", number, life.host or "its machine", what, reason)
        self._left -= 1
        if not self._left:
            await self._finish(
                BatchError(
                    f"stopped: all {self._workers} workers have died {self._restarts + 1} times, the last: {reason}. "
                    "Finished traces are on disk; fix the problem and run the same command again"
                )
            )

    async def _live(self, life: _Life) -> str:
        """Run one start of a worker until it dies. Returns the reason. Raises InputError."""
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
        """Update the run's progress from the latest reports of all workers."""
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
            keeper.cancel()  # also kills its actor
        await asyncio.gather(*self._keepers, return_exceptions=True)


async def _answer(reference: Any) -> Any:
    """Await an actor's result; ``wait_for`` and ``gather`` need a coroutine."""
    return await reference
