"""Waits for other processes without using the core that they need."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterable
from contextlib import ExitStack

_LOOK_MS = 5
"""Polling interval in seconds for a condition without an event, such as the size of a file."""


def wait_until(condition: Callable[[], bool], process: int, look_ms: int = _LOOK_MS) -> bool:
    """Block until the condition holds, or the process has ended; returns whether the condition came to hold.

    There is no time limit here, nor in the others: the test's own is the bound.
    """
    descriptor = os.pidfd_open(process)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not condition():
            if poll.poll(look_ms):
                return False
        return True
    finally:
        os.close(descriptor)


async def eventually(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds, which another process brings about."""
    while not condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(_LOOK_MS / 1000)


def wait_for_exits(find: Callable[[], Iterable[int]]) -> None:
    """Block until there are no such processes any more: looks again when all that were found have ended."""
    while found := list(find()):
        with ExitStack() as stack:
            for number in found:
                try:
                    descriptor = os.pidfd_open(number)
                except ProcessLookupError:
                    continue
                stack.callback(os.close, descriptor)
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                poll.poll()
