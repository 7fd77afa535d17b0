"""Speed measurements of a sandbox, which `benchmarks.sandbox` runs for this checkout and for another one.

Uses only the public interface of the sandbox, so that it can measure any checkout on the path. As a program it prints
one JSON object of figures; run it with ``-P``, or ``benchmarks/sandbox.py`` would be imported as the package:

    PYTHONPATH=CHECKOUT python -P benchmarks/sandbox_speed.py [--quick] [--tier N] [--floor]

``--floor`` measures IPython shells in child processes behind pipes instead of a sandbox: nothing that runs cells in
separate Python processes can be much faster.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox import Sandbox, Session

CELL = "1+1"
_MANY = 64  # sessions at once
_SIZE_BYTES = 4
_SHELL = "IPython.core.interactiveshell"

Answer = Callable[[], Awaitable[None]]


async def first_replies(box: Sandbox, count: int) -> float:
    """The median time to enter a session and run a cell, in ms; a cold start if no kernel is kept ready."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        async with box.session() as session:
            await answer(session)
            times.append(time.perf_counter() - began)
    return 1000 * median(times)


async def answer(session: Session) -> None:
    """Run a cell. Raises RuntimeError if its result is wrong."""
    result = await session.execute(CELL)
    if result.text != "2":
        raise RuntimeError(f"a kernel answered {result.text!r}")


async def each(ask: Answer, count: int) -> float:
    """The median time of one call, in ms."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - began)
    return 1000 * median(times)


async def at_once(asks: Sequence[Answer], cells: int) -> float:
    """Calls per second, with ``cells`` calls of each function, all functions concurrently."""

    async def work(ask: Answer) -> None:
        for _ in range(cells):
            await ask()

    await asyncio.gather(*map(work, asks))  # warm-up
    began = time.perf_counter()
    await asyncio.gather(*map(work, asks))
    return len(asks) * cells / (time.perf_counter() - began)


async def sessions_per_s(box: Sandbox, tasks: int, count: int) -> float:
    """Sessions with one cell each, per second, one after the other in each of ``tasks`` tasks."""
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            async with box.session() as session:
                await answer(session)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return count / (time.perf_counter() - began)


async def speed(quick: bool, tier: int | None) -> dict[str, float]:
    """The figures of the sandbox on the path."""
    from sandbox import Sandbox

    figures = {}
    async with Sandbox(size=1, prestart=0, tier=tier) as box:  # type: ignore[arg-type]  # argparse has checked
        figures["first_reply_cold_ms_p50"] = await first_replies(box, 10 if quick else 60)
        async with box.session() as session:
            await each(lambda: answer(session), 20)
            figures["cell_ms_p50"] = await each(lambda: answer(session), 100 if quick else 900)
    cores = os.cpu_count() or 1
    async with Sandbox(size=2 * cores, prestart=cores, tier=tier) as box:  # type: ignore[arg-type]
        figures["sessions_per_s"] = await sessions_per_s(box, 2 * cores, 40 if quick else 400)
    async with Sandbox(size=_MANY, prestart=0, tier=tier) as box, AsyncExitStack() as stack:  # type: ignore[arg-type]
        opened = [await stack.enter_async_context(box.session()) for _ in range(_MANY)]
        asks: list[Answer] = [lambda session=session: answer(session) for session in opened]  # type: ignore[misc]
        figures["cells_per_s_64"] = await at_once(asks, 5 if quick else 60)
    return figures


class _Shell:
    """An IPython shell in a fork of this process, behind two pipes. Created before the event loop."""

    def __init__(self) -> None:
        theirs, self._requests = os.pipe()
        self._replies, mine = os.pipe()
        if os.fork() == 0:
            os.close(self._requests)
            _serve(theirs, mine)
        os.close(theirs)
        os.close(mine)
        os.set_blocking(self._replies, False)

    def connect(self) -> None:
        """Start reading its replies."""
        self._readable = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._replies, self._readable.set)

    async def ask(self) -> None:
        """Run a cell. Raises RuntimeError if its result is wrong."""
        os.write(self._requests, len(CELL).to_bytes(_SIZE_BYTES, "little") + CELL.encode())
        data = b""
        while len(data) < _SIZE_BYTES or len(data) < _SIZE_BYTES + int.from_bytes(data[:_SIZE_BYTES], "little"):
            await self._readable.wait()
            self._readable.clear()
            try:
                data += os.read(self._replies, 1 << 16)
            except BlockingIOError:
                continue
        if data[_SIZE_BYTES:] != b"2\n":
            raise RuntimeError(f"a shell answered {data!r}")


def _serve(requests: int, replies: int) -> None:
    """Run cells until the other side closes the pipe."""
    from traitlets.config import Config

    config = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"cache_size": 0}})
    shell = import_module(_SHELL).InteractiveShell(config=config)
    while head := os.read(requests, _SIZE_BYTES):
        code = os.read(requests, int.from_bytes(head, "little")).decode()
        sys.stdout = printed = io.StringIO()
        shell.run_cell(code, store_history=True)
        data = printed.getvalue().encode()
        os.write(replies, len(data).to_bytes(_SIZE_BYTES, "little") + data)
    os._exit(0)


def floor(quick: bool) -> dict[str, float]:
    """The figures of IPython shells without isolation."""
    import_module(_SHELL)  # once, before the forks
    shells = [_Shell() for _ in range(_MANY)]

    async def measured() -> dict[str, float]:
        for shell in shells:
            shell.connect()
        await each(shells[0].ask, 20)
        return {
            "cell_ms_p50": await each(shells[0].ask, 100 if quick else 900),
            "cells_per_s_64": await at_once([shell.ask for shell in shells], 5 if quick else 60),
        }

    return asyncio.run(measured())


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description="Measures the speed of the sandbox on the path; prints one JSON object."
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tier", type=int, choices=(1, 2, 3))
    parser.add_argument("--floor", action="store_true", help="IPython shells behind pipes instead")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    quick = arguments.quick
    print(json.dumps(floor(quick) if arguments.floor else asyncio.run(speed(quick, arguments.tier))))


if __name__ == "__main__":
    main()
