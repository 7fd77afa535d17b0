"""Cores of its own for a model on a processor that kernels, graders and our own event loop use, too.

The threads of such a model wait for each other at every layer: whenever one finds its core taken, all do. Linux puts
what wakes up wherever it sees fit, on those cores as well. On 4 cores, a batch with tools takes 15% less time where the
model has three of them to itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from start_agent.errors import ConfigError

THREADS_VARIABLE = "OMP_NUM_THREADS"
OWN_CORES_VARIABLE = "START_AGENT_OWN_CORES"  # those of a model's process, as in "0,1,2"; unset or empty: all
_OTHERS = 8  # one core in so many is left to everything else, and at least one
_taken = False  # whether an engine of this process has cores of its own: there is one such split at a time


def default_threads() -> int:
    """Threads of a model, where nobody says how many. Raises ConfigError where the environment says it wrongly."""
    cores = len(os.sched_getaffinity(0))
    told = os.environ.get(THREADS_VARIABLE) or str(max(cores - max(cores // _OTHERS, 1), 1))
    if not (told.isdecimal() and int(told)):
        raise ConfigError(f"{THREADS_VARIABLE}={told}: a number of threads, 1 or more; or use --threads")
    return int(told)


def own_cores(threads: int) -> frozenset[int]:
    """Which of our cores a model of so many threads may have to itself; none where nothing would be left.

    None either where ``OMP_NUM_THREADS`` is set: whoever sets it (Ray, a recipe that runs stages side by side) runs
    more than one of us on this machine, and we do not know which cores the others take. Nor where another engine of
    this process has some.
    """
    cores = sorted(os.sched_getaffinity(0))
    if _taken or os.environ.get(THREADS_VARIABLE) or threads >= len(cores):
        return frozenset()
    return frozenset(cores[:threads])


@contextmanager
def kept_off(cores: Iterable[int]) -> Iterator[None]:
    """This process, and all that it has started and starts, leave these cores alone until the end."""
    global _taken
    if not (own := frozenset(cores)):
        yield
        return
    before, _taken = os.sched_getaffinity(0), True
    try:
        _keep_to(before - own)
        yield
    finally:
        _keep_to(before)
        _taken = False


def _keep_to(cores: Iterable[int]) -> None:
    import psutil

    for process in (me := psutil.Process(), *me.children(recursive=True)):
        with suppress(OSError):  # it has just ended, or (a kernel) is another user's by now: its parent is not
            for thread in Path(f"/proc/{process.pid}/task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(thread.name), cores)
