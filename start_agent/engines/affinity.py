"""Reserves CPU cores for a model, which kernels, graders and our event loop do not use.

The threads of a model on a CPU wait for each other at every layer: if one of them loses its core, all wait. By default,
Linux schedules other processes on these cores too. On 4 cores, a batch with tools takes 15% less time if the model has
three of them to itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from start_agent.errors import ConfigError

THREADS_VARIABLE = "OMP_NUM_THREADS"
OWN_CORES_VARIABLE = "START_AGENT_OWN_CORES"  # the cores of a model's process, like "0,1,2"; unset or empty: all
_OTHERS = 8  # one core in eight, and at least one, is left to everything else
_taken = False  # whether an engine of this process has reserved cores; only one engine can


def default_threads() -> int:
    """The default number of threads of a model. Raises ConfigError if the environment variable is invalid."""
    cores = len(os.sched_getaffinity(0))
    number = os.environ.get(THREADS_VARIABLE) or str(max(cores - max(cores // _OTHERS, 1), 1))
    if not (number.isdecimal() and int(number)):
        raise ConfigError(f"{THREADS_VARIABLE}={number}: set it to a number of threads, 1 or more, or use --threads")
    return int(number)


def own_cores(threads: int) -> frozenset[int]:
    """The cores that can be reserved for a model with this number of threads; empty if no core would be left.

    Also empty if ``OMP_NUM_THREADS`` is set, because then several of our processes probably share the machine (under
    Ray, or with a recipe that runs stages in parallel), and their cores are unknown; and if another engine of this
    process has reserved cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    if _taken or os.environ.get(THREADS_VARIABLE) or threads >= len(cores):
        return frozenset()
    return frozenset(cores[:threads])


@contextmanager
def reserved(cores: Iterable[int]) -> Iterator[None]:
    """Keep this process and its present and future children off these cores inside the ``with`` block."""
    global _taken
    if not (own := frozenset(cores)):
        yield
        return
    before, _taken = os.sched_getaffinity(0), True
    try:
        _restrict_to(before - own)
        yield
    finally:
        _restrict_to(before)
        _taken = False


def _restrict_to(cores: Iterable[int]) -> None:
    import psutil

    for process in (me := psutil.Process(), *me.children(recursive=True)):
        with suppress(OSError):  # it has just ended, or is a kernel of another user
            for thread in Path(f"/proc/{process.pid}/task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(thread.name), cores)
