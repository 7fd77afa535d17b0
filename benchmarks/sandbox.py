"""What the sandbox costs, against a stock ipykernel through jupyter_client on the same machine in the same run.

* ``acquire_warm_ms_p50``: to enter a session when a kernel is ready.
* ``first_reply_cold_ms_p50``: to enter a session when none is, and have ``1+1`` answered.
* ``sessions_per_s``: sessions of one cell each, one after the other in as many tasks as there are cores, twice.
* ``cell_ms_p50``: one ``1+1`` in a session that is open. ``cells_per_s_64``: in 64 sessions at once.
* ``idle_pss_mb``: memory of an idle kernel, its share of what it has in common with others counted in proportion.
* ``live_sessions``: sessions open at the same time, each of which answers.

The names with ``stock_`` are the same of a stock kernel, ready when its client's ``wait_for_ready`` says so.

    python -m benchmarks.sandbox [--quick] [--tier N]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import os
import platform
import resource
import tempfile
import time
from contextlib import AsyncExitStack
from importlib import metadata
from statistics import mean, median
from typing import Any

from rich.table import Table

from benchmarks.report import Report, Target, new_parser, rounded, run, say
from sandbox import Limits, Sandbox, Session

TARGETS: dict[str, Target] = {
    "acquire_warm_ms_p50": ("<=", 5),
    "first_reply_cold_ms_p50": ("<=", 50),
    "sessions_per_s": (">=", 60),
    "cell_ms_p50": ("<=", 3),
    "cells_per_s_64": (">=", 1_000),
    "idle_pss_mb": ("<=", 20),
    "live_sessions": (">=", 256),
}
_PACKAGES = ("start-agent", "ipykernel", "jupyter_client", "ipython", "numpy", "sympy")
_CELL = "1+1"


async def measure(arguments: argparse.Namespace) -> Report:
    """Everything, one after the other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    quick = arguments.quick
    figures: dict[str, float] = {}
    began = time.perf_counter()
    async with Sandbox(size=1, prestart=0, tier=arguments.tier) as box:
        figures["open_ms"] = 1000 * (time.perf_counter() - began)
        isolation, cgroups = box.isolation, box.cgroups
        say(f"isolation: {isolation}; cgroups: {cgroups}")
        figures["first_reply_cold_ms_p50"] = await _first_replies(box, 20 if quick else 100)
        figures["cell_ms_p50"] = await _cells(box, 100 if quick else 1_000)
    async with Sandbox(size=8, prestart=2, tier=arguments.tier) as box:
        figures["acquire_warm_ms_p50"] = await _acquire(box, 20 if quick else 100)
    cores = os.cpu_count() or 1
    async with Sandbox(size=2 * cores, prestart=cores, tier=arguments.tier) as box:
        figures["sessions_per_s"] = await _sessions(box, 2 * cores, 100 if quick else 1_000)
    async with Sandbox(size=64, prestart=0, tier=arguments.tier) as box:
        figures["cells_per_s_64"] = await _many_cells(box, 64, 10 if quick else 100)
    live = 64 if quick else 256
    async with Sandbox(Limits(start_seconds=120), size=live, prestart=0, tier=arguments.tier) as box:
        figures |= await _live(box, live)
    say("the stock kernel")
    figures |= await _stock(2 if quick else 5, 100 if quick else 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    settings = {
        "quick": quick,
        "seed": arguments.seed,
        "isolation": isolation,
        "cgroups": cgroups,
        "user": "root" if os.geteuid() == 0 else "ordinary",
        "cores": cores,
        "load_before": round(arguments.load, 2),
        "machine": platform.machine(),
        "linux": platform.release(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    }
    targets = {name: target for name, target in TARGETS.items() if not (quick and name == "live_sessions")}
    return Report("sandbox", rounded(figures), targets, settings, [_table(figures)])


async def _first_replies(box: Sandbox, count: int) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        async with box.session() as session:
            await _answer(session)
            times.append(time.perf_counter() - began)
    return 1000 * median(times)


async def _answer(session: Session) -> None:
    result = await session.execute(_CELL)
    if result.text != "2":
        raise RuntimeError(f"a kernel answered {result.text!r}")


async def _cells(box: Sandbox, count: int) -> float:
    times = []
    async with box.session() as session:
        for _ in range(count):
            began = time.perf_counter()
            await _answer(session)
            times.append(time.perf_counter() - began)
    return 1000 * median(times)


async def _acquire(box: Sandbox, count: int) -> float:
    times = []
    for _ in range(count):
        while box.stats.kernels_ready < 2:  # noqa: ASYNC110 - looked at, not told
            await asyncio.sleep(0.001)
        began = time.perf_counter()
        async with box.session():
            times.append(time.perf_counter() - began)
    return 1000 * median(times)


async def _sessions(box: Sandbox, tasks: int, count: int) -> float:
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            async with box.session() as session:
                await _answer(session)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return count / (time.perf_counter() - began)


async def _many_cells(box: Sandbox, sessions: int, cells: int) -> float:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(box.session()) for _ in range(sessions)]

        async def work(session: Session) -> None:
            for _ in range(cells):
                await _answer(session)

        await asyncio.gather(*map(work, opened))  # the first cells of each are not like the others
        began = time.perf_counter()
        await asyncio.gather(*map(work, opened))
        return sessions * cells / (time.perf_counter() - began)


async def _live(box: Sandbox, count: int) -> dict[str, float]:
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        opened = await asyncio.gather(*(stack.enter_async_context(box.session()) for _ in range(count)))
        burst = time.perf_counter() - began
        await asyncio.gather(*map(_answer, opened))
        idle = [_pss(_pid(kernel._child.pidfd)) for kernel in box._pool.kernels]  # type: ignore[union-attr]
        await asyncio.gather(*(session.execute("import sympy; sympy.factorint(2**67 - 1)") for session in opened))
        worked = [_pss(_pid(kernel._child.pidfd)) for kernel in box._pool.kernels]  # type: ignore[union-attr]
        return {
            "live_sessions": len(opened),
            "burst_starts_per_s": count / burst,
            "idle_pss_mb": mean(idle),
            "worked_pss_mb": mean(worked),
        }


def _pid(pidfd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise RuntimeError("not the descriptor of a process")


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no memory")


async def _stock(starts: int, cells: int) -> dict[str, float]:
    from jupyter_client.manager import AsyncKernelManager

    first, each, memory = [], [], []
    folder = tempfile.TemporaryDirectory(prefix="stock-")
    for number in range(starts):
        manager: Any = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder.name}/{number}")
        began = time.perf_counter()
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=60)
            await client.execute_interactive(_CELL, output_hook=lambda message: None)
            first.append(time.perf_counter() - began)
            for _ in range(cells):
                began = time.perf_counter()
                await client.execute_interactive(_CELL, output_hook=lambda message: None)
                each.append(time.perf_counter() - began)
            memory.append(_pss(manager.provisioner.process.pid))
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)
    folder.cleanup()
    return {
        "stock_first_reply_ms_p50": 1000 * median(first),
        "stock_cell_ms_p50": 1000 * median(each),
        "stock_idle_pss_mb": mean(memory),
    }


def _table(figures: dict[str, float]) -> Table:
    table = Table("", "sandbox", "stock ipykernel", title="sandbox: beside a stock kernel", title_justify="left")
    for words, ours, stock in (
        ("first reply of a new session, ms", "first_reply_cold_ms_p50", "stock_first_reply_ms_p50"),
        ("the same with a kernel ready, ms", "acquire_warm_ms_p50", "stock_first_reply_ms_p50"),
        ("one cell, ms", "cell_ms_p50", "stock_cell_ms_p50"),
        ("memory of an idle kernel, MB", "idle_pss_mb", "stock_idle_pss_mb"),
    ):
        table.add_row(words, f"{figures[ours]:.2f}", f"{figures[stock]:.2f}")
    return table


def main() -> int:
    """Run it: the exit code."""
    parser = new_parser("What the sandbox costs, against a stock ipykernel.")
    parser.add_argument("--tier", type=int, choices=(1, 2, 3), help="the isolation (default: the strongest here)")
    parser.set_defaults(load=os.getloadavg()[0])
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
