"""A thread that measures the total memory of kernels and their child processes and reports those over the limit.

With cgroups, Linux enforces that limit itself and this watch only reports it. In all cases the watch limits the number
of sockets, whose buffers cgroups do not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.memory import Family, TableFullError, UncountableError

LOOK_SECONDS = 0.25
"""Interval between two measurements of a kernel."""

MOST_SOCKETS = 512
"""Per session. Linux lets each hold about 200 KB (net.core.wmem_default), which count for no process."""

_SELDOM = 4  # kernels without a running cell are measured in every fourth interval
_FAILED_LOOKS = 2  # after this many failed measurements in a row, the kernel counts as over the limit

if TYPE_CHECKING:
    from sandbox.cgroups import Group


@dataclass(slots=True, eq=False)
class Watched:
    """A kernel that is watched.

    Attributes:
        running: whether a cell runs in it. Otherwise it is measured less often, in case processes were left running.
    """

    process: int
    family: Family
    memory_in_sum: int
    group: Group | None
    own_network: bool
    overrun: Callable[[], None]
    failed: int = 0
    running: bool = True


class Watch:
    """Watches kernels that have run code. Used from one event loop; `close` ends its thread."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = False  # the thread waits for a kernel to watch
        self._closed = False

    def add(
        self,
        process: int,
        each: int,
        in_sum: int,
        *,
        group: Group | None,
        own_network: bool,
        overrun: Callable[[], None],
    ) -> Watched:
        """Watch a kernel in which a cell begins.

        Args:
            process: its process id on the host.
            each: memory limit of each of its processes, in bytes.
            in_sum: memory limit of all its processes together, in bytes.
            group: its cgroups, if it has any.
            own_network: whether it has its own network and pid namespaces.
            overrun: called once, in the event loop, when it exceeds the limit.

        Returns:
            The handle to pass to `remove`.
        """
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="sandbox-watch", daemon=True)
            self._thread.start()
        family = Family(process, namespaced=own_network, unknown=each)
        with self._changed:
            watched = Watched(process, family, in_sum, group, own_network, overrun)
            self._watched.add(watched)
            if self._idle:
                self._idle = False
                self._changed.notify()
        return watched

    def remove(self, watched: Watched) -> None:
        """Stop watching a kernel."""
        with self._changed:
            self._watched.discard(watched)

    def close(self) -> None:
        """End the thread. Safe to call again."""
        with self._changed:
            self._closed = True
            self._watched.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        for turn in itertools.count():
            with self._changed:
                # Pause first, so that short cells are not measured.
                self._changed.wait_for(lambda: self._closed, LOOK_SECONDS)
                self._idle = not self._watched
                self._changed.wait_for(lambda: self._closed or not self._idle)
                if self._closed:
                    return
                watched = list(self._watched)
            for kernel in watched:
                due = kernel.running or turn % _SELDOM == 0
                if due and kernel in self._watched and self._is_over(kernel):
                    self._report(kernel)

    def _is_over(self, kernel: Watched) -> bool:
        if kernel.own_network and _sockets(kernel.process) > MOST_SOCKETS:
            return True
        if kernel.group is not None:
            return kernel.group.has_overflowed()
        try:
            # Measured twice: a process that is starting another program counts double for a moment.
            over = all(kernel.family.exceeds(kernel.memory_in_sum) for _ in range(2))
        except TableFullError:
            return False
        except (UncountableError, OSError):
            kernel.failed += 1
            return kernel.failed >= _FAILED_LOOKS
        kernel.failed = 0
        return over

    def _report(self, kernel: Watched) -> None:
        def report() -> None:
            if kernel in self._watched:
                self.remove(kernel)
                kernel.overrun()

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(report)


def process_id(pidfd: int) -> int | None:
    """The process id on the host of the process behind a pidfd; None if it has ended."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            number = int(line.split()[1])
            return number if number > 0 else None
    return None


def _sockets(process: int) -> int:
    """The number of sockets in the network namespace of a process; 0 if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = Path(f"/proc/{process}/net/sockstat").read_text().split("\n", 1)[0]  # sockets: used N
        return int(first.split()[2])
    return 0
