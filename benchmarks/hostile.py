"""Effect of attacks on the host process and its machine: attacks that try to stall or starve them, one at a time.

Each attack of `benchmarks.hostile_attacks` runs in its own session, next to a sibling whose state is checked ten times
a second. The figures are the worst over all attacks; the table lists each attack:

* ``stall_ms``: the longest time in which the host's event loop did not run. The part spent waiting for a core of a busy
  machine is in the next column of the table.
* ``cpu_share``: CPU time of the host process as a share of one core, from opening the session until nothing of it is
  left (at least 1 s). It includes the measurement itself, which the first row shows alone.
* ``resident_mb_more``, ``kernel_mb_more``: maximum increase of the host's memory, and of Linux's memory in the whole
  machine. The latter means little while other programs run.
* ``quotas_exceeded``: attacks that got more of a shared resource than allowed.
* ``siblings_lost``: siblings that lost their state, and attacks that made the sandbox raise; ``faults``: infrastructure
  faults. Both must be 0.

    python -m benchmarks.hostile [--quick] [--only WORD] [--tier N]
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
import re
import secrets
import string
import time
from dataclasses import dataclass, field

from rich.table import Table

from benchmarks.hostile_attacks import ATTACKS
from benchmarks.hostile_wire import Attack
from benchmarks.report import Report, Target, met, new_parser, rounded, run, say
from sandbox import Limits, Sandbox, Session
from sandbox.vitals import Stall, Watch
from start_agent.grading.code import LIMITS as GRADING

TARGETS: dict[str, Target] = {
    "stall_ms": ("<=", 50),
    "cpu_share": ("<=", 0.1),
    "resident_mb_more": ("<=", 20),
    "kernel_mb_more": ("<=", 40),
    "quotas_exceeded": ("<=", 0),
    "siblings_lost": ("<=", 0),
    "faults": ("<=", 0),
}
MODEL = Limits(
    grace_seconds=0.5,
    memory_bytes=256 << 20,
    memory_in_sum_bytes=400 << 20,
    processes=48,
    disk_bytes=16 << 20,
    inodes=2_000,
)
"""Small limits for a model's cells, with the default `output_chars`. Attacks also run with the code grader's limits."""

_QUICK_SECONDS = 2.0
_QUESTION_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_SETTLE_SECONDS = 10.0  # after a session, for the next kernel to be ready


@dataclass(slots=True)
class Found:
    """The result of one attack.

    Attributes:
        name: name of the attack, prefixed with that of the limits.
        outcomes: outcomes of its cells.
        stall: the longest stall.
        cpu_share, resident_mb, kernel_mb: see the module.
        taken: the amount that the attack reports; None if it reports none.
        exceeded: whether that is more than allowed.
        slowest: the longest response time of the sibling, in seconds.
        lost: what was wrong with the sibling, or what the sandbox raised; empty if nothing.
    """

    name: str
    outcomes: list[str] = field(default_factory=list)
    stall: Stall = field(default_factory=lambda: Stall(0.0, 0.0, 0.0, ""))
    cpu_share: float = 0.0
    resident_mb: float = 0.0
    kernel_mb: float = 0.0
    taken: int | None = None
    exceeded: bool = False
    slowest: float = 0.0
    lost: str = ""

    def figures(self) -> dict[str, float]:
        """The figures, named like the targets."""
        return {
            "stall_ms": 1000 * self.stall.seconds,
            "cpu_share": self.cpu_share,
            "resident_mb_more": self.resident_mb,
            "kernel_mb_more": self.kernel_mb,
            "quotas_exceeded": self.exceeded,
            "siblings_lost": bool(self.lost),
        }


async def attacked(box: Sandbox, attack: Attack, watch: Watch, seconds: float | None = None) -> Found:
    """Run one attack next to a sibling.

    Args:
        box: an open sandbox with room for two sessions.
        attack: the attack to run.
        watch: the watch of this event loop.
        seconds: timeout of each cell; None for the attack's own timeout.
    """
    found = Found(attack.name)
    over = asyncio.Event()
    async with box.session() as sibling:
        asked = asyncio.create_task(_ask(sibling, over, found))
        await asyncio.sleep(_PAUSE_SECONDS)
        watch.reset()
        before, began = watch.began, time.monotonic()
        try:
            async with box.session() as session:
                for cell in attack.cells:
                    code = string.Template(cell).substitute(chars=box.limits.output_chars - 200)
                    result = await session.execute(code, timeout=min(seconds or attack.timeout, attack.timeout))
                    found.outcomes.append(result.outcome)
                    if said := re.findall(r"^taken (\d+)$", result.stdout[-100:], re.MULTILINE):
                        found.taken = int(said[-1])
                await asyncio.sleep(attack.idle)
        except Exception as error:  # any exception that code can make the sandbox raise is a failure
            found.lost = f"{type(error).__name__}: {error}"
        end = time.monotonic() + _SETTLE_SECONDS
        while box.stats.kernels_ready < 1 and time.monotonic() < end:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)
        after = watch.look()
        found.stall = watch.longest
        found.cpu_share = (after.processor_s - before.processor_s) / max(1.0, time.monotonic() - began)
        found.resident_mb = watch.peak.resident_mb - before.resident_mb
        found.kernel_mb = watch.peak.kernel_mb - before.kernel_mb
        found.exceeded = attack.most is not None and (found.taken or 0) > attack.most
        over.set()
        await asked
    return found


async def _ask(sibling: Session, over: asyncio.Event, found: Found) -> None:
    """Query the sibling's secret repeatedly until the attack is over, and once more afterwards."""
    secret = secrets.token_hex(8)
    await sibling.execute(f"secret = {secret!r}", timeout=_QUESTION_SECONDS)
    while True:
        last, began = over.is_set(), time.monotonic()
        result = await sibling.execute("secret", timeout=_QUESTION_SECONDS)
        found.slowest = max(found.slowest, time.monotonic() - began)
        if result.text != repr(secret):
            found.lost = found.lost or f"{result.outcome}: {result.text[-200:]}"
            return
        if last:
            return
        try:
            async with asyncio.timeout(_PAUSE_SECONDS):
                await over.wait()
        except TimeoutError:
            continue


async def measure(arguments: argparse.Namespace) -> Report:
    """Run all attacks with the limits of a model's cells, and some of them also with those of the code grader."""
    found: list[Found] = []
    faults = 0
    isolation = cgroups = ""
    chosen = [attack for attack in ATTACKS if arguments.only is None or arguments.only in attack.name]
    if arguments.quick and arguments.only is None:
        chosen = chosen[::3]
    async with Watch() as watch:
        for word, limits in (("", MODEL), ("grader: ", GRADING)):
            attacks = [attack for attack in chosen if not word or attack.graded]
            if not attacks:
                continue
            box, before = Sandbox(limits, size=3, prestart=1, tier=arguments.tier), len(found)
            try:
                async with box:
                    isolation, cgroups = box.isolation, box.cgroups
                    for attack in attacks:
                        one = await attacked(box, attack, watch, _QUICK_SECONDS if arguments.quick else None)
                        one.name = word + one.name
                        found.append(one)
                        say(_line(one))
            except Exception as error:  # raised while closing, perhaps because of something that an attack has left
                if len(found) < before + len(attacks):
                    raise
                found.append(Found(f"{word}closing the sandbox", lost=f"{type(error).__name__}: {error}"))
            faults += box.stats.faults + box.stats.zygote_restarts
    settings = {
        "quick": arguments.quick,
        "seed": arguments.seed,
        "only": arguments.only,
        "isolation": isolation,
        "cgroups": cgroups,
        "user": "root" if os.geteuid() == 0 else "ordinary",
        "cores": os.cpu_count(),
        "linux": platform.release(),
        "load_before": round(arguments.load, 2),
    }
    return Report("hostile", rounded(figures_of(found) | {"faults": faults}), TARGETS, settings, [table_of(found)])


def figures_of(found: list[Found]) -> dict[str, float]:
    """The worst of each figure, and how many attacks exceeded a quota, harmed the sibling, or missed a target."""
    every = [one.figures() for one in found]
    figures: dict[str, float] = {name: max(one[name] for one in every) for name in every[0]} if every else {}
    counted = {name: sum(one[name] for one in every) for name in ("quotas_exceeded", "siblings_lost")}
    missed = sum(any(not met(one[name], TARGETS[name]) for name in one) for one in every)
    return figures | counted | {"attacks": len(found), "attacks_that_miss": missed}


def table_of(found: list[Found]) -> Table:
    """Each attack with its figures, those that miss a target in red."""
    names = ("stall, ms", "waiting for CPU", "host's CPU", "host, MB", "Linux, MB", "taken", "sibling, ms", "outcome")
    table = Table("attack", *names, title="hostile: each attack", title_justify="left")
    for one in found:
        figures = one.figures()

        def cell(name: str, text: str, figures: dict[str, float] = figures) -> str:
            return text if met(figures[name], TARGETS[name]) else f"[red]{text}[/red]"

        outcomes = one.outcomes[-1] if len(set(one.outcomes)) == 1 else ", ".join(one.outcomes)
        table.add_row(
            one.name,
            cell("stall_ms", f"{1000 * one.stall.seconds:.0f}"),
            f"{1000 * one.stall.waiting:.0f}",
            cell("cpu_share", f"{one.cpu_share:.1%}"),
            cell("resident_mb_more", f"{one.resident_mb:+.0f}"),
            cell("kernel_mb_more", f"{one.kernel_mb:+.0f}"),
            cell("quotas_exceeded", "" if one.taken is None else str(one.taken)),
            cell("siblings_lost", one.lost or f"{1000 * one.slowest:.0f}"),
            outcomes,
        )
    return table


def _line(one: Found) -> str:
    """A progress line: the figures that missed their target, and where the loop stalled."""
    missed = [f"{name} {figure:.3g}" for name, figure in one.figures().items() if not met(figure, TARGETS[name])]
    if "stall_ms" in " ".join(missed):
        missed.append(f"{1000 * one.stall.waiting:.0f} ms of it waiting for a CPU, in {one.stall.where}")
    return f"{one.name}: {'; '.join(missed) or 'within all targets'}"


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("Effect of attacks on the host process and its machine.")
    parser.add_argument("--only", metavar="WORD", help="run only attacks with this in their names")
    parser.add_argument("--tier", type=int, choices=(1, 2, 3), help="isolation tier (default: the strongest here)")
    parser.set_defaults(load=os.getloadavg()[0])
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
