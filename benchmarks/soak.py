"""Thousands of sessions of good and hostile cells, and then: is everything as it was before?

Counted are infrastructure faults, and what the host has more at the end than after a short warm-up: descriptors,
processes, temporary files, sockets, resident memory.

    python -m benchmarks.soak [--quick] [--sessions N] [--tier N]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import gc
import os
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass

from rich.table import Table

from benchmarks.report import Report, Target, new_parser, positive, rounded, run, say
from sandbox import Limits, Outcome, Sandbox, SandboxError

TARGETS: dict[str, Target] = {
    "faults": ("<=", 0),
    "wrong_answers": ("<=", 0),
    "descriptors_more": ("<=", 0),
    "processes_more": ("<=", 0),
    "files_more": ("<=", 0),
    "resident_mb_more": ("<=", 20),
}
_LIMITS = Limits(memory_bytes=384 << 20, processes=32, disk_bytes=8 << 20, grace_seconds=0.2)

# Code, and what it may come to. Good cells come as often as all others together.
_OK, _LATE, _DIED = Outcome.OK, Outcome.TIMEOUT, Outcome.DIED
GOOD = (
    "sum(range(1000))",
    "import sympy\nsympy.factorint(5040)",
    "import numpy as np\nprint(np.linalg.det(np.eye(5)))",
    "print('x' * 10_000)",
    "import subprocess\nsubprocess.run(['echo', 'a'])",
    "open('f', 'w').write('x' * 1000)",
)
HOSTILE: tuple[tuple[str, set[Outcome]], ...] = (
    ("1 / 0", {Outcome.ERROR}),
    ("while True: pass", {_LATE}),
    ("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", {_LATE}),
    ("import os; os._exit(3)", {_DIED}),
    ("import ctypes; ctypes.string_at(0)", {_DIED}),
    ("import os; os.closerange(0, 256)", {_DIED, _LATE}),
    ("x = []\nwhile True: x.append(bytearray(1 << 20))", {Outcome.MEMORY}),
    ("while True: print('x' * 1000)", {Outcome.OUTPUT}),
    (
        "import os\nfor n in range(64):\n    if os.fork() == 0: os.setsid(); __import__('time').sleep(99)",
        {Outcome.ERROR},
    ),
    ("import os\nif os.fork() == 0: __import__('time').sleep(99)", {_OK}),
    (
        "import threading, time\nfor n in range(64): threading.Thread(target=time.sleep, args=(9,)).start()",
        {Outcome.ERROR},
    ),
    ("open('x', 'wb').write(bytes(64 << 20))", {Outcome.ERROR}),
    ("k = get_ipython().kernel\nk.iopub._socket.sendall(bytes(100_000))\nwhile True: pass", {_DIED}),
    (
        "k = get_ipython().kernel\nwhile True: k.publish('stream', {'name': 'stdout', 'text': 'x' * 9999})",
        {Outcome.OUTPUT},
    ),
    ("import os, signal\nos.kill(os.getppid() or 1, 9)", {_OK}),
    ("import sys\nsys.exit(1)", {Outcome.ERROR}),
)


@dataclass(frozen=True, slots=True)
class State:
    """What the host has."""

    descriptors: int
    processes: int
    files: int
    resident_mb: float

    @classmethod
    def now(cls) -> State:
        """Count."""
        gc.collect()
        processes = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                processes += int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid()
            except OSError:
                continue
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            len(list(Path("/proc/self/fd").iterdir())),
            processes,
            len(list(Path(tempfile.gettempdir()).rglob("*"))),
            pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20),
        )


async def measure(arguments: argparse.Namespace) -> Report:
    """Soak."""
    count = arguments.sessions or (200 if arguments.quick else 5_000)
    draw = random.Random(arguments.seed)
    tasks = 2 * (os.cpu_count() or 1)
    outcomes: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    faults = restarts = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        tempfile.tempdir = folder

        async def work(box: Sandbox, numbers: range) -> None:
            for number in numbers:
                try:
                    async with box.session() as session:
                        for code, may in plans[number]:
                            result = await session.execute(code, timeout=0.3 if _LATE in may else 20)
                            outcomes[result.outcome] += 1
                            if result.outcome not in may:
                                wrong[f"{code!r}: {result.text[-200:]!r}"] += 1
                except SandboxError as error:
                    wrong[f"{type(error).__name__}: {error}"] += 1

        async def soak(sessions: int) -> tuple[float, int, int]:
            began = time.perf_counter()
            async with Sandbox(_LIMITS, size=tasks, prestart=4, tier=arguments.tier) as box:
                await asyncio.gather(*(work(box, range(n, sessions, tasks)) for n in range(tasks)))
                return time.perf_counter() - began, box.stats.faults, box.stats.zygote_restarts

        plans = [_plan(draw) for _ in range(count)]
        await soak(min(50, count))  # what is loaded once is no leak
        outcomes.clear()
        before = State.now()
        seconds, faults, restarts = await soak(count)
        after = State.now()
        tempfile.tempdir = None
    for words, times in wrong.most_common(10):
        say(f"{times} times {words}")
    figures = {
        "sessions": count,
        "cells": sum(outcomes.values()),
        "seconds": seconds,
        "sessions_per_s": count / seconds,
        "faults": faults,
        "zygote_restarts": restarts,
        "wrong_answers": sum(wrong.values()),
        "descriptors_more": after.descriptors - before.descriptors,
        "processes_more": after.processes - before.processes,
        "files_more": after.files - before.files,
        "resident_mb_more": after.resident_mb - before.resident_mb,
    }
    table = Table("outcome", "cells", title="soak: cells by outcome", title_justify="left")
    for outcome, number in sorted(outcomes.items()):
        table.add_row(outcome, str(number))
    settings = {"quick": arguments.quick, "seed": arguments.seed, "tasks": tasks, "cores": os.cpu_count()}
    return Report("soak", rounded(figures), TARGETS, settings, [table])


def _plan(draw: random.Random) -> list[tuple[str, set[Outcome]]]:
    """The cells of one session: one to four, mixed; good ones must work after hostile ones, too."""
    plan: list[tuple[str, set[Outcome]]] = []
    for _ in range(draw.randint(1, 4)):
        if draw.random() < 0.5 or (plan and plan[-1][1] == {_OK} and "fork" in plan[-1][0]):
            plan.append((draw.choice(GOOD), {_OK}))
        else:
            plan.append(draw.choice(HOSTILE))
            if "for n in range(64)" in plan[-1][0]:  # it leaves no process or thread for others
                break
    return plan


def main() -> int:
    """Run it: the exit code."""
    parser = new_parser("Thousands of sessions, and nothing left of them.")
    parser.add_argument("--sessions", type=positive, metavar="N", help="how many (default: 5000)")
    parser.add_argument("--tier", type=int, choices=(1, 2, 3), help="the isolation (default: the strongest here)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
