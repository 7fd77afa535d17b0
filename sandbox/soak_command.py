# ruff: noqa: T201 - a command line prints
"""The command ``python -m sandbox soak``: options, progress, report, exit status, and replaying one session."""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import sys
import time
from collections.abc import Callable
from typing import Literal

from sandbox.remains import Remains
from sandbox.sandbox import Sandbox
from sandbox.soak import LIMITS, Report, Tally, soak
from sandbox.soak_cells import session_of
from sandbox.vitals import Watch

_LINE_SECONDS = 30.0  # between two progress lines when stderr is not a terminal
_SHOWN = 20  # failures, or overdue results, that are listed


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``soak``."""
    parser.add_argument("--minutes", type=_duration, default=1.0, metavar="N", help="duration (default: 1)")
    parser.add_argument(
        "--sessions",
        type=_two_or_more,
        default=32,
        metavar="N",
        help="concurrent sessions, including siblings (default: 32)",
    )
    parser.add_argument("--seed", type=int, default=None, help="determines all cells (default: a new seed)")
    parser.add_argument("--tier", type=int, choices=(1, 2, 3), help="isolation tier (default: the strongest here)")
    parser.add_argument(
        "--size",
        type=_two_or_more,
        metavar="N",
        help="size of the sandbox (default: --sessions); with fewer, sessions wait",
    )
    parser.add_argument(
        "--replay", metavar="SEED", help="run one session again, by its seed (e.g. 7.12.3), and show it"
    )


def _two_or_more(text: str) -> int:
    """Parse a number of sessions, of which at least one is a sibling."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 2, not {text!r}")
    return number


def _duration(text: str) -> float:
    """Parse a number of minutes; 0 for the minimum number of rounds."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of minutes, not {text!r}")
    return minutes


async def command(arguments: argparse.Namespace) -> int:
    """Run a soak test, or replay a session. Returns the exit status: 1 if anything failed. Raises as `soak`."""
    if arguments.replay is not None:
        return await _replay(arguments.replay, arguments.tier)
    seed = time.time_ns() % 1_000_000 if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)  # stop and show the results so far
    box = Sandbox(LIMITS, size=arguments.size or arguments.sessions, tier=arguments.tier)
    report = await soak(arguments.minutes, arguments.sessions, seed, box=box, progress=_progress(), stopped=stop.is_set)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(summary(report))
    return 1 if report.tally.lost else 0


def _progress() -> Callable[[Tally, Watch], None]:
    began, shown = time.monotonic(), 0.0
    terminal = sys.stderr.isatty()

    def show(tally: Tally, watch: Watch) -> None:
        nonlocal shown
        now = time.monotonic()
        if not terminal and now - shown < _LINE_SECONDS and tally.rounds != 1:
            return
        shown = now
        vitals = watch.look()
        line = (
            f"{(now - began) / 60:.1f} min, round {tally.rounds}: {tally.sessions:,} sessions, {tally.cells:,} cells, "
            f"{len(tally.lost)} lost; longest stall {1000 * watch.longest.seconds:.0f} ms, "
            f"{vitals.resident_mb:.0f} MB, kernel {vitals.kernel_mb - watch.began.kernel_mb:+.0f} MB"
        )
        print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    return show


def summary(report: Report) -> str:
    """The report: a table of all counts, followed by the failures."""
    tally, watch, before, after = report.tally, report.watch, report.before, report.after
    peak, longest = watch.peak, watch.longest
    rows = {
        "isolation": report.isolation,
        "time": f"{report.seconds / 60:.1f} min, {tally.rounds} rounds of {report.sessions_at_once} sessions at once",
        "hostile sessions, cells": f"{tally.sessions:,}, {tally.cells:,}",
        "outcomes": ", ".join(f"{outcome} {number:,}" for outcome, number in tally.outcomes.most_common()),
        "acts": ", ".join(f"{kind} {number:,}" for kind, number in sorted(tally.kinds.items())),
        "siblings' answers": f"{tally.answers:,}, the slowest after {tally.slowest:.2f} s",
        "stalls of 50 ms and more": (
            f"{watch.stalled:,}; the longest time without a turn of the loop {1000 * longest.seconds:.0f} ms "
            f"(of it {1000 * longest.waiting:.0f} ms for want of a core)"
        ),
        "processor time of the host": f"{after.processor_s - before.processor_s:.1f} s",
        "resident memory, MB": _change(before.resident_mb, after.resident_mb, peak.resident_mb),
        "descriptors": _change(before.descriptors, after.descriptors, peak.descriptors),
        "kernel memory, MB": _change(before.kernel_mb, after.kernel_mb, peak.kernel_mb),
        "  slabs": _change(before.slab_mb, after.slab_mb, peak.slab_mb),
        "  page tables": _change(before.tables_mb, after.tables_mb, peak.tables_mb),
        "  internet sockets": _change(before.sockets_mb, after.sockets_mb, peak.sockets_mb),
        "overdue results": f"{len(tally.overdue)}",
        "lost": f"{len(tally.lost)}",
    }
    lines = [f"{name:<28}{text}" for name, text in rows.items()]
    worst = sorted(watch.stalls, key=lambda stall: -stall.seconds)[:3]
    lines += [
        f"stall of {1000 * stall.seconds:.0f} ms ({1000 * stall.waiting:.0f} ms for want of a core) "
        f"{stall.at / 60:.1f} min after the first round: {stall.where}"
        for stall in worst
    ]
    lines += _some("overdue", tally.overdue) + _some("LOST", tally.lost)
    if tally.lost:
        lines.append("A session runs again with: python -m sandbox soak --replay SEED")
    return "\n".join(lines)


def _change(before: float, after: float, peak: float) -> str:
    return f"{before:.0f} after the first round, {after:.0f} at the end, {peak:.0f} at most"


def _some(word: str, texts: list[str]) -> list[str]:
    more = [f"{word}: and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return [f"{word}: {text}" for text in texts[:_SHOWN]] + more


async def _replay(seed: str, tier: Literal[1, 2, 3] | None) -> int:
    """Run the cells of one session again, and print each with its result."""
    async with Watch() as watch, Sandbox(LIMITS, size=2, prestart=0, tier=tier) as box:
        found = Remains.of(box._require_open())
        async with box.session() as session:
            for number, cell in enumerate(session_of(seed)):
                fork = cell.fork and box.forks
                print(f"--- cell {number} of {seed}, {', '.join(cell.kinds)}, {cell.timeout:g} s{', forked' * fork}")
                print(cell.code)
                watch.reset()
                result = await session.execute(cell.code, timeout=cell.timeout, fork=fork)
                stall = watch.longest
                print(
                    f"--- {result.outcome} after {result.duration_s:.2f} s, state lost: {result.state_lost}, "
                    f"longest stall {1000 * stall.seconds:.0f} ms {stall.where}\n{result.text[-2_000:]}"
                )
        found |= Remains.of(box._require_open())
        faults = box.stats.faults
    left = found.left()
    print(f"--- {faults} faults; left: {', '.join(left) or 'nothing'}")
    return 1 if faults or left else 0
