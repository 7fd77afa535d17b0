"""Math answers graded by a pool of killable processes; the face for one answer at a time is ``grade_math``.

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
"""What one comparison may take before its process is killed. Nearly all take a few milliseconds."""

_MOST_ASKED = 5_000  # then a process is replaced: SymPy and the parser keep much of what they have seen


class _Desk:
    """A worker and its replacements: whoever has the desk asks, and there is a process when one is needed."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._asked = 0
        self._closed = False
        self.replaced = 0

    def open(self) -> Worker:
        """The process, started if need be. Raises what starting it raises."""
        if self._worker is not None and (not self._worker.alive or self._asked >= _MOST_ASKED):
            self._worker.close()
            self._worker = None
            self.replaced += 1
        if self._closed:
            raise GradingError("the grader was closed")
        if self._worker is None:
            self._worker, self._asked = Worker(), 0
            if self._closed:  # meanwhile, by another thread
                self._worker.kill()
        return self._worker

    def ask(self, pred: str, gold: str, seconds: float) -> Verdict:
        """The verdict; that on an answer which keeps or breaks the process included."""
        answer = self._ask_once(pred, gold, seconds)
        if answer is Reason.CRASHED:  # once may be anybody's fault, the answer's or the machine's
            answer = self._ask_once(pred, gold, seconds)
        if not isinstance(answer, Reason):
            return Verdict.from_json(answer)
        detail = f"not decided within {seconds:g} s" if answer is Reason.TIMEOUT else "the grader's process died of it"
        return Verdict(False, answer_text(pred), answer, answer_text(gold), detail)

    def _ask_once(self, pred: str, gold: str, seconds: float) -> dict[str, Any] | Reason:
        answer = self.open().ask(pred, gold, seconds)
        self._asked += 1
        if isinstance(answer, Reason) and self._closed:
            raise GradingError("the grader was closed")
        return answer

    def stop(self) -> None:
        """Kill the process, whatever it is doing; the call that waits for it raises GradingError."""
        self._closed = True
        if self._worker is not None:
            self._worker.kill()

    def close(self) -> None:
        """Kill the process and close its pipes."""
        self.stop()
        if self._worker is not None:
            self._worker.close()


class GraderPool:
    """Grades math answers, each in a process that is killed and replaced when it hangs.

    Args:
        size: processes at most; they are started as they are needed.
        seconds: what one comparison may take.
        parse_all: have Math-Verify decide even where the text does (equal numbers, equal texts); to test it.

    Belongs to one event loop; opened with ``async with``, which raises MissingExtraError or GradingError where a
    process cannot be started. Answers that are plain numbers or equal texts need no process at all.
    """

    def __init__(self, size: int | None = None, *, seconds: float = SECONDS, parse_all: bool = False) -> None:
        if size is not None and size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        self.size = size or min(4, os.cpu_count() or 1)
        self.seconds = seconds
        self._parse_all = parse_all
        self._desks = [_Desk() for _ in range(self.size)]
        self._free = list(reversed(self._desks))  # the last one put back is taken first: few are ever started
        self._places = asyncio.Semaphore(self.size)
        self._threads: ThreadPoolExecutor | None = None

    @property
    def replaced(self) -> int:
        """Processes that were killed, died or retired, and were replaced."""
        return sum(desk.replaced for desk in self._desks)

    async def __aenter__(self) -> Self:
        """Open it: the first process is started here, as proof that all is installed."""
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
        """Kill all processes; calls still under way raise GradingError."""
        await self._close()

    async def _close(self) -> None:
        threads, self._threads = self._threads, None
        for desk in self._desks:
            desk.stop()
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)
        for desk in self._desks:
            desk.close()

    async def grade_math(self, pred: str | None, gold: str, *, percent: bool = False) -> Verdict:
        """Judge an answer; see ``grading.grade_math``. Raises GradingError where there can be no verdict.

        Cancelling it leaves its process busy until the comparison ends or its time is up.
        """
        if self._threads is None:
            raise GradingError("the pool of graders is not open: use it inside its 'async with'")
        if percent:
            pred, gold = pred and without_percent(pred), without_percent(gold)
        verdict = preliminary(pred, gold)
        if pred is None or (verdict is not None and not (self._parse_all and verdict.parsed)):
            assert verdict is not None
            return verdict
        await self._places.acquire()
        if self._threads is None:
            self._places.release()
            raise GradingError("the pool of graders was closed")
        desk = self._free.pop()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, desk.ask, pred, gold, self.seconds)
        # Put back when the thread is done with it, which is not when the caller is cancelled.
        work.add_done_callback(lambda work: self._put_back(desk, work))
        return await asyncio.shield(work)

    def _put_back(self, desk: _Desk, work: asyncio.Future[Verdict]) -> None:
        if not work.cancelled():
            work.exception()  # looked at, so that asyncio does not complain where the caller was cancelled
        self._free.append(desk)
        self._places.release()


_own: tuple[int, _Desk] | None = None  # of this process, by its id: a forked child must not share the pipes
_own_lock = threading.Lock()


def grade_math(pred: str | None, gold: str, *, percent: bool = False, seconds: float = SECONDS) -> Verdict:
    r"""Judge a mathematical answer.

    Integers, decimals and fractions are compared exactly, here and now. Everything else goes through Math-Verify in
    a process of its own, started at the first need (half a second) and killed when it takes too long. May be called
    from any thread; of many calls at once, one at a time is served: use ``GraderPool`` for many answers.

    Args:
        pred: the answer, or a text with a ``\boxed{}`` of which the last closed one counts; None for no answer.
        gold: the gold answer.
        percent: a percentage is asked for, so that a percent sign changes nothing; elsewhere 10 is not 10%.
        seconds: what the comparison may take.

    Raises:
        MissingExtraError: Math-Verify is needed and not installed.
        GradingError: no process can be started.
    """
    global _own
    if percent:
        pred, gold = pred and without_percent(pred), without_percent(gold)
    if (verdict := preliminary(pred, gold)) is not None or pred is None:
        assert verdict is not None
        return verdict
    with _own_lock:
        if _own is None or _own[0] != os.getpid():
            desk = _Desk()
            _own = (os.getpid(), desk)
            atexit.register(desk.close)
        return _own[1].ask(pred, gold, seconds)
