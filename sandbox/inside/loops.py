"""A session's event loop: shared by cells that await, and usable for tasks made outside of them, as in a notebook."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

_set_running_loop, _gather = asyncio._set_running_loop, asyncio.gather
_CANCELLATIONS = 3  # attempts to cancel a cell, which may catch some
_loops: list[asyncio.AbstractEventLoop] = []


def session_loop() -> asyncio.AbstractEventLoop:
    """The session's loop, created when it is first needed or when code has closed the last one."""
    if not _loops or _loops[0].is_closed():
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            try:
                loop = asyncio.get_event_loop()  # code may have added tasks to it before any cell awaited
            except RuntimeError:
                loop = asyncio.new_event_loop()
        _loops[:] = [asyncio.new_event_loop() if loop.is_closed() else loop]
        asyncio.set_event_loop(_loops[0])
    return _loops[0]


def begin() -> None:
    """A cell begins: make the loop the current one again, since ``asyncio.run`` removes it."""
    _set_running_loop(None)  # none is running, whatever the code has set
    if _loops:
        asyncio.set_event_loop(session_loop())


def turn() -> None:
    """A cell is over: run its tasks for one iteration of the loop."""
    if _loops and asyncio.all_tasks(session_loop()):
        session_loop().run_until_complete(asyncio.sleep(0))


def forget() -> None:
    """Close the loop and reset asyncio: kernels forked from here create their own loop."""
    for loop in _loops:
        loop.close()
    _loops.clear()
    asyncio.set_event_loop_policy(None)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a cell that awaits. If anything stops the loop, cancel the cell, so that it does not overlap the next."""
    loop = session_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:  # an interrupt, an exception from a signal handler, `sys.exit()` in a task, `loop.stop()`
        for _ in range(_CANCELLATIONS):
            if task.done():
                break
            with suppress(BaseException):  # the same may happen again
                task.cancel()
                loop.run_until_complete(_gather(task, return_exceptions=True))
            with suppress(BaseException):  # it may have caught the cancellation and continued
                coroutine.close()
        raise


def create_task(coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    """`asyncio.create_task` that uses the session's loop if none is running: cells that await then run the task."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = session_loop()
    return loop.create_task(coroutine, **options)


def install() -> None:
    """Replace asyncio's `create_task`."""
    asyncio.create_task = asyncio.tasks.create_task = create_task  # type: ignore[assignment]  # only the types differ
