"""A soak test of the sandbox for some minutes: random hostile cells next to ordinary sessions (siblings).

This is ``python -m sandbox soak`` with figures: `sandbox.soak` runs it, `sandbox.soak_cells` has the grammar.

* ``lost``: failures: lost state of siblings, wrong answers of ordinary cells, exceptions reported as success, faults,
  leftovers.
* ``descriptors_more``, ``resident_mb_more``: of the host, at the end compared with the end of the first round.
* ``longest_stall_ms``, ``stalls_per_minute``: of the host's event loop, stalls of at least 50 ms. With more sessions
  than cores, much of it is waiting for a core: ``longest_stall_waiting_ms``.

    python -m benchmarks.soak [--quick] [--minutes N] [--sessions N] [--tier N]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os

from rich.table import Table

from benchmarks.report import Report, Target, new_parser, positive, rounded, run, say
from sandbox import Sandbox
from sandbox.soak import LIMITS, Tally, soak
from sandbox.soak_command import summary
from sandbox.vitals import Watch

TARGETS: dict[str, Target] = {
    "lost": ("<=", 0),
    "descriptors_more": ("<=", 8),  # more kernels may be ready, or starting, than after the first round
    "resident_mb_more": ("<=", 20),
}


async def measure(arguments: argparse.Namespace) -> Report:
    """Run the soak test."""
    sessions = arguments.sessions or (8 if arguments.quick else 32)
    minutes = arguments.minutes or (0.5 if arguments.quick else 5.0)
    box = Sandbox(LIMITS, size=sessions, tier=arguments.tier)

    def progress(tally: Tally, watch: Watch) -> None:
        if tally.rounds % 10 == 0:
            say(f"round {tally.rounds}: {tally.sessions} sessions, {len(tally.lost)} lost")

    found = await soak(minutes, sessions, arguments.seed, box=box, progress=progress)
    tally, watch = found.tally, found.watch
    say(summary(found))
    figures = {
        "rounds": tally.rounds,
        "sessions": tally.sessions,
        "cells": tally.cells,
        "sessions_per_s": tally.sessions / found.seconds,
        "lost": len(tally.lost),
        "overdue": len(tally.overdue),
        "slowest_sibling_s": tally.slowest,
        "longest_stall_ms": 1000 * watch.longest.seconds,
        "longest_stall_waiting_ms": 1000 * watch.longest.waiting,
        "stalls_per_minute": watch.stalled / found.seconds * 60,
        "descriptors_more": found.after.descriptors - found.before.descriptors,
        "resident_mb_more": found.after.resident_mb - found.before.resident_mb,
        "kernel_mb_more": found.after.kernel_mb - found.before.kernel_mb,
    }
    table = Table("outcome", "cells", title="soak: cells by outcome", title_justify="left")
    for outcome, number in tally.outcomes.most_common():
        table.add_row(outcome, str(number))
    settings = {
        "quick": arguments.quick,
        "seed": arguments.seed,
        "sessions_at_once": sessions,
        "minutes": minutes,
        "isolation": found.isolation,
        "cores": os.cpu_count(),
    }
    return Report("soak", rounded(figures), TARGETS, settings, [table])


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("A soak test of the sandbox: random hostile cells next to ordinary sessions.")
    parser.add_argument("--minutes", type=float, metavar="N", help="duration (default: 5)")
    parser.add_argument(
        "--sessions", type=positive, metavar="N", help="concurrent sessions, including siblings (default: 32)"
    )
    parser.add_argument("--tier", type=int, choices=(1, 2, 3), help="isolation tier (default: the strongest here)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
