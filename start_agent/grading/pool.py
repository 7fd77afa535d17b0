"""Grades math answers in a pool of killable processes; ``grade_math`` grades a single answer.

::

    async with GraderPool() as pool:
        verdicts = await asyncio.gather(*(pool.grade_math(pred, gold) for pred, gold in pairs))
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from start_agent.errors import GradingError
from start_agent.grading.math import answer_text, preliminary, without_percent
from start_agent.grading.process import Worker
from start_agent.grading.verdict import Reason, Verdict

SECONDS = 10.0
"""Time limit of one comparison; after it the process is killed. Nearly all take a few milliseconds."""

_MAX_REQUESTS = 5_000  # then a process is replaced, because the caches of SymPy and the parser grow


class _Slot:
    """A worker slot: starts a grading process when one is needed, and replaces it after a crash or many requests."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._requests = 0
        self._closed = False
        self.replaced = 0

    def open(self) -> Worker:
        """The process, started if necessary. Raises what ``Worker`` raises."""
        if self._worker is not None and (not self._worker.alive or self._requests >= _MAX_REQUESTS):
            self._worker.close()
            self._worker = None
            self.replaced += 1
        if self._closed:
            raise GradingError("the grader was closed")
        if self._worker is None:
            self._worker, self._requests = Worker(), 0
            if self._closed:  # by another thread in the meantime
                self._worker.kill()
        return self._worker

    def ask(self, pred: str, gold: str, seconds: float) -> Verdict:
        """The verdict, including one for an answer that hangs or crashes the process."""
        answer = self._ask_once(pred, gold, seconds)
        if answer is Reason.CRASHED:  # a single crash may have another cause than the answer
            answer = self._ask_once(pred, gold, seconds)
        if not isinstance(answer, Reason):
            return Verdict.from_json(answer)
        detail = f"not decided within {seconds:g} s" if answer is Reason.TIMEOUT else "it crashed the grading process"
        return Verdict(False, answer_text(pred), answer, answer_text(gold), detail)

    def _ask_once(self, pred: str, gold: str, seconds: float) -> dict[str, Any] | Reason:
        answer = self.open().ask(pred, gold, seconds)
        self._requests += 1
        if isinstance(answer, Reason) and self._closed:
            raise GradingError("the grader was closed")
        return answer

    def stop(self) -> None:
        """Kill the process, even while it is busy; the waiting call raises GradingError."""
        self._closed = True
        if self._worker is not None:
            self._worker.kill()

    def close(self) -> None:
        """Kill the process and close its pipes."""
        self.stop()
        if self._worker is not None:
            self._worker.close()


class GraderPool:
    """Grades math answers in processes that are killed and replaced when they hang.

    Args:
        size: the most processes; they are started on demand.
        seconds: the time limit of one comparison.
        parse_all: let Math-Verify decide even where the text is enough (equal numbers, equal texts); for tests.

    Belongs to one event loop. Open it with ``async with``, which raises MissingExtraError or GradingError if a process
    cannot be started. Answers that are plain numbers or equal texts need no process.
    """

    def __init__(self, size: int | None = None, *, seconds: float = SECONDS, parse_all: bool = False) -> None:
        if size is not None and size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        self.size = size or min(4, os.cpu_count() or 1)
        self.seconds = seconds
        self._parse_all = parse_all
        self._slots = [_Slot() for _ in range(self.size)]
        self._free = list(reversed(self._slots))  # last in, first out, so that few processes are started
        self._free_count = asyncio.Semaphore(self.size)
        self._threads: ThreadPoolExecutor | None = None

    @property
    def replaced(self) -> int:
        """The number of processes that were replaced, because they were killed, died or had served enough requests."""
        return sum(slot.replaced for slot in self._slots)

    async def __aenter__(self) -> Self:
        """Open it. Starts the first process, to check that everything is installed."""
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="grader")
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._free[-1].open)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all processes; running calls raise GradingError."""
        await self._close()

    async def _close(self) -> None:
        threads, self._threads = self._threads, None
        for slot in self._slots:
            slot.stop()
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)
        for slot in self._slots:
            slot.close()

    async def grade_math(self, pred: str | None, gold: str, *, percent: bool = False) -> Verdict:
        """Grade an answer; see ``grading.grade_math``. Raises GradingError if the infrastructure fails.

        After a cancellation the process stays busy until the comparison ends or times out.
        """
        if self._threads is None:
            raise GradingError("the grader pool is not open: use it inside 'async with'")
        if percent:
            pred, gold = pred and without_percent(pred), without_percent(gold)
        verdict = preliminary(pred, gold)
        if pred is None or (verdict is not None and not (self._parse_all and verdict.parsed)):
            assert verdict is not None
            return verdict
        await self._free_count.acquire()
        if self._threads is None:
            self._free_count.release()
            raise GradingError("the grader pool was closed")
        slot = self._free.pop()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, slot.ask, pred, gold, self.seconds)
        # The slot is free when its thread has finished, not when the caller is cancelled.
        work.add_done_callback(lambda work: self._release(slot, work))
        return await asyncio.shield(work)

    def _release(self, slot: _Slot, work: asyncio.Future[Verdict]) -> None:
        if not work.cancelled():
            work.exception()  # retrieved, so that asyncio does not log it if the caller was cancelled
        self._free.append(slot)
        self._free_count.release()


_shared: tuple[int, _Slot] | None = None  # with the process id, because a forked child must not share the pipes
_shared_lock = threading.Lock()


def grade_math(pred: str | None, gold: str, *, percent: bool = False, seconds: float = SECONDS) -> Verdict:
    r"""Grade a mathematical answer.

    Integers, decimals and fractions are compared exactly in this process. Everything else goes to Math-Verify in a
    separate process, which is started on first use (half a second) and killed when it takes too long. May be called
    from any thread, but answers are graded one at a time: use ``GraderPool`` for many answers.

    Args:
        pred: the answer, or a text whose last closed ``\boxed{}`` is the answer; None for no answer.
        gold: the gold answer.
        percent: whether the question asks for a percentage, so that percent signs are ignored; otherwise 10 is not 10%.
        seconds: the time limit of the comparison.

    Raises:
        MissingExtraError: Math-Verify is needed and not installed.
        GradingError: no process can be started.
    """
    global _shared
    if percent:
        pred, gold = pred and without_percent(pred), without_percent(gold)
    if (verdict := preliminary(pred, gold)) is not None or pred is None:
        assert verdict is not None
        return verdict
    with _shared_lock:
        if _shared is None or _shared[0] != os.getpid():
            slot = _Slot()
            _shared = (os.getpid(), slot)
            atexit.register(slot.close)
        return _shared[1].ask(pred, gold, seconds)
