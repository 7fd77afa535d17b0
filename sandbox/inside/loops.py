"""A session's event loop. Cells that await share it, and a task may be made where none awaits, as in a notebook."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

_set_running_loop, _gather = asyncio._set_running_loop, asyncio.gather
_CANCELLATIONS = 3  # of a cell that is over: it may catch some
_loops: list[asyncio.AbstractEventLoop] = []


def session_loop() -> asyncio.AbstractEventLoop:
    """The one loop, made when it is first needed or when code has closed the last."""
    if not _loops or _loops[0].is_closed():
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            try:
                loop = asyncio.get_event_loop()  # where code has put tasks before any cell has awaited one
            except RuntimeError:
                loop = asyncio.new_event_loop()
        _loops[:] = [asyncio.new_event_loop() if loop.is_closed() else loop]
        asyncio.set_event_loop(_loops[0])
    return _loops[0]


def begin() -> None:
    """A cell begins: the loop is what asyncio finds where none runs, though ``asyncio.run`` leaves none behind."""
    _set_running_loop(None)  # none does, whatever the code has said
    if _loops:
        asyncio.set_event_loop(session_loop())


def turn() -> None:
    """A cell is over: let its tasks go on as far as they come in one turn of the loop."""
    if _loops and asyncio.all_tasks(session_loop()):
        session_loop().run_until_complete(asyncio.sleep(0))


def forget() -> None:
    """Close the loop, and be as if there had been none: kernels that are forked from here make their own."""
    for loop in _loops:
        loop.close()
    _loops.clear()
    asyncio.set_event_loop_policy(None)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a cell that awaits. Whatever stops the loop meanwhile, the cell does not go on beside the next one."""
    loop = session_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:  # an interrupt, a handler's, what another task ends with, as `sys.exit()`; or `loop.stop()`
        for _ in range(_CANCELLATIONS):
            if task.done():
                break
            with suppress(BaseException):  # another of those
                task.cancel()
                loop.run_until_complete(_gather(task, return_exceptions=True))
            with suppress(BaseException):  # it has caught that, and gone on until the next interrupt
                coroutine.close()
        raise


def create_task(coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    """`asyncio.create_task`, which without a running loop puts the task into the session's: awaiting cells run it."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = session_loop()
    return loop.create_task(coroutine, **options)


def install() -> None:
    """Put `create_task` in the place of asyncio's own."""
    asyncio.create_task = asyncio.tasks.create_task = create_task  # type: ignore[assignment]  # the same but for types
