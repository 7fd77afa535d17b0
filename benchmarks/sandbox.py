"""Cost of the sandbox, compared with a stock ipykernel through jupyter_client on the same machine in the same run.

* ``acquire_warm_ms_p50``: time to enter a session when a kernel is ready.
* ``first_reply_cold_ms_p50``: time to enter a session when none is ready, and to run ``1+1``.
* ``sessions_per_s``: sessions with one cell each, one after the other in twice as many tasks as there are cores.
* ``cell_ms_p50``: one ``1+1`` in an open session. ``cells_per_s_64``: in 64 concurrent sessions.
* ``idle_pss_mb``: memory of an idle kernel; shared pages are counted proportionally.
* ``live_sessions``: concurrently open sessions, all of which respond.

Names with ``stock_`` are for a stock kernel, which is ready when its client's ``wait_for_ready`` returns; names with
``floor_`` for IPython shells behind pipes, without isolation; names with ``_against`` for another checkout, e.g. a
worktree of an older commit. Speeds are medians of five runs, each in its own process, alternating the checkouts.

    python -m benchmarks.sandbox [--quick] [--tier N] [--against CHECKOUT]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from importlib import metadata
from statistics import mean, median
from typing import Any

from rich.table import Table

from benchmarks.report import Report, Target, new_parser, rounded, run, say
from benchmarks.sandbox_speed import CELL, answer
from sandbox import Limits, Sandbox, SandboxError

TARGETS: dict[str, Target] = {
    "acquire_warm_ms_p50": ("<=", 5),
    "first_reply_cold_ms_p50": ("<=", 15),
    "sessions_per_s": (">=", 100),
    "cell_ms_p50": ("<=", 0.4),
    "cells_per_s_64": (">=", 2_000),
    "idle_pss_mb": ("<=", 20),
    "live_sessions": (">=", 256),
}
ROOT = Path(__file__).resolve().parents[1]
_RUNS = 5
_PACKAGES = ("start-agent", "ipykernel", "jupyter_client", "ipython", "numpy", "sympy")


async def measure(arguments: argparse.Namespace) -> Report:
    """Run all measurements in turn."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    quick = arguments.quick
    figures: dict[str, float] = {}
    began = time.perf_counter()
    async with Sandbox(size=8, prestart=2, tier=arguments.tier) as box:
        figures["open_ms"] = 1000 * (time.perf_counter() - began)
        isolation, cgroups = box.isolation, box.cgroups
        say(f"isolation: {isolation}; cgroups: {cgroups}")
        figures["acquire_warm_ms_p50"] = await _acquire(box, 20 if quick else 100)
    checkouts = {"": ROOT} | ({"_against": arguments.against.resolve()} if arguments.against else {})
    runs = await alternately(checkouts, 1 if quick and not arguments.against else _RUNS, quick, arguments.tier)
    figures |= medians(runs)
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
        "cores": os.cpu_count(),
        "load_before": round(arguments.load, 2),
        "machine": platform.machine(),
        "linux": platform.release(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    }
    if arguments.against:
        settings["against"] = str(arguments.against)
    targets = {name: target for name, target in TARGETS.items() if not (quick and name == "live_sessions")}
    return Report("sandbox", rounded(figures), targets, settings, [_table(figures), *_beside(runs)])


async def alternately(
    checkouts: dict[str, Path], runs: int, quick: bool, tier: int | None
) -> dict[str, list[dict[str, float]]]:
    """Measure each checkout, and the floor, alternately, so that other load affects all of them equally.

    Raises SandboxError if one cannot be measured.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*checkouts, "floor")}
    for number in range(runs):
        for name in checkouts if number % 2 == 0 else reversed(checkouts):
            found[name].append(await _speed(checkouts[name], quick, *(() if tier is None else (f"--tier={tier}",))))
        found["floor"].append(await _speed(ROOT, quick, "--floor"))
        last = {name or "this checkout": rounded(each[-1], 3) for name, each in found.items()}
        say(f"run {number + 1} of {runs}: {last}")
    return found


async def _speed(checkout: Path, quick: bool, *options: str) -> dict[str, float]:
    program = ROOT / "benchmarks" / "sandbox_speed.py"
    command = [sys.executable, "-P", str(program), *options, *(["--quick"] if quick else [])]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    child = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    if child.returncode != 0:
        raise SandboxError(f"the speed of {checkout} could not be measured (exit status {child.returncode})")
    figures: dict[str, float] = json.loads(said)
    return figures


def medians(runs: Mapping[str, list[dict[str, float]]]) -> dict[str, float]:
    """The median of each figure; names of other checkouts are suffixes, and the floor's figures have a prefix."""
    found = {}
    for name, each in runs.items():
        for figure in each[0]:
            key = f"floor_{figure}" if name == "floor" else figure + name
            found[key] = median(one[figure] for one in each)
    return found


async def _acquire(box: Sandbox, count: int) -> float:
    times = []
    for _ in range(count):
        while box.stats.kernels_ready < 2:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)
        began = time.perf_counter()
        async with box.session():
            times.append(time.perf_counter() - began)
    return 1000 * median(times)


async def _live(box: Sandbox, count: int) -> dict[str, float]:
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        opened = await asyncio.gather(*(stack.enter_async_context(box.session()) for _ in range(count)))
        burst = time.perf_counter() - began
        await asyncio.gather(*map(answer, opened))
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
            await client.execute_interactive(CELL, output_hook=lambda message: None)
            first.append(time.perf_counter() - began)
            for _ in range(cells):
                began = time.perf_counter()
                await client.execute_interactive(CELL, output_hook=lambda message: None)
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


def _beside(runs: Mapping[str, list[dict[str, float]]]) -> list[Table]:
    """A table that compares this checkout with another; empty if there is no other."""
    if "_against" not in runs:
        return []
    found = medians(runs)
    columns = ("this checkout", "the other", "IPython alone", "this / other")
    table = Table(
        f"medians of {len(runs[''])}", *columns, title="sandbox: compared with another checkout", title_justify="left"
    )
    for name in runs[""][0]:
        ours, other, least = found[name], found[name + "_against"], found.get(f"floor_{name}")
        shown = "" if least is None else f"{least:.2f}"
        table.add_row(name, f"{ours:.2f}", f"{other:.2f}", shown, f"{ours / other:.2f}")
    return [table]


def _table(figures: dict[str, float]) -> Table:
    table = Table("", "sandbox", "stock ipykernel", title="sandbox: compared with a stock kernel", title_justify="left")
    for words, ours, stock in (
        ("first reply of a new session, ms", "first_reply_cold_ms_p50", "stock_first_reply_ms_p50"),
        ("the same with a kernel ready, ms", "acquire_warm_ms_p50", "stock_first_reply_ms_p50"),
        ("one cell, ms", "cell_ms_p50", "stock_cell_ms_p50"),
        ("memory of an idle kernel, MB", "idle_pss_mb", "stock_idle_pss_mb"),
    ):
        table.add_row(words, f"{figures[ours]:.2f}", f"{figures[stock]:.2f}")
    return table


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("Cost of the sandbox, compared with a stock ipykernel.")
    parser.add_argument("--tier", type=int, choices=(1, 2, 3), help="isolation tier (default: the strongest here)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout to compare with")
    parser.set_defaults(load=os.getloadavg()[0])
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
