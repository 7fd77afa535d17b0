"""How much memory kernels and their child processes have together: looked at in a thread, beside the event loop.

Where there are cgroups they bound it, and Linux itself keeps to that. Elsewhere this watch does, and everywhere it
bounds what cgroups do not count, the buffers of sockets, by their number.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

LOOK_SECONDS = 0.25
"""Between two looks at a kernel."""

MOST_SOCKETS = 512
"""Of a session. Linux lets each hold some 200 KB (net.core.wmem_default), and for none of it counts a process."""

_LOOK_CPU_SECONDS = 0.1  # of processor time for one look; code that makes it take longer is after something
_FAILED_LOOKS = 2  # in a row, and the kernel is taken to use too much
_MOST_PROCESSES = 4_096

if TYPE_CHECKING:
    from sandbox.cgroups import Group


class _FailedError(Exception):
    """A look has taken too long."""


@dataclass(slots=True)
class _Watched:
    process: int
    memory_each: int
    memory_in_sum: int
    group: Group | None
    own_network: bool
    overrun: Callable[[], None]
    failed: int = 0


class Watch:
    """Watches the kernels in which a cell runs. Used from one event loop; `close` ends its thread."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self._names = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
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
    ) -> int:
        """Watch a kernel.

        Args:
            process: the host's number of it.
            each: bytes that each of its processes may have.
            in_sum: bytes that they may have together.
            group: its cgroups, if it is in some.
            own_network: whether the sockets of its network are its own.
            overrun: called once, in the event loop, when it uses more.

        Returns:
            A name for `remove`.
        """
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="sandbox-watch", daemon=True)
            self._thread.start()
        self._names += 1
        with self._changed:
            self._watched[self._names] = _Watched(process, each, in_sum, group, own_network, overrun)
            if len(self._watched) == 1:
                self._changed.notify()
        return self._names

    def remove(self, name: int) -> None:
        """Watch it no more."""
        with self._changed:
            self._watched.pop(name, None)

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
        while True:
            with self._changed:
                # First a pause, so that short cells are not looked at.
                self._changed.wait_for(lambda: self._closed, LOOK_SECONDS)
                self._changed.wait_for(lambda: self._closed or self._watched)
                if self._closed:
                    return
                watched = list(self._watched.items())
            for name, kernel in watched:
                if name in self._watched and self._is_over(kernel):
                    self._tell(name, kernel)

    def _is_over(self, kernel: _Watched) -> bool:
        if kernel.own_network and _sockets(kernel.process) > MOST_SOCKETS:
            return True
        if kernel.group is not None:
            return kernel.group.has_overflowed()
        try:
            used = used_in_sum(kernel.process, kernel.memory_each, enough=kernel.memory_in_sum)
        except _FailedError:
            kernel.failed += 1
            return kernel.failed >= _FAILED_LOOKS
        kernel.failed = 0
        return used > kernel.memory_in_sum

    def _tell(self, name: int, kernel: _Watched) -> None:
        def tell() -> None:
            if self._watched.pop(name, None) is not None:
                kernel.overrun()

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(tell)


def process_id(pidfd: int) -> int | None:
    """The host's number of the process that a pidfd stands for; None where it has ended."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            number = int(line.split()[1])
            return number if number > 0 else None
    return None


def used_in_sum(process: int, each: int, enough: int) -> int:
    """Bytes of memory of a process and of all that it has started, what they share counted once where it matters.

    What is there of each is read first, quickly. Only where that comes to more than `enough`, Linux is asked how much
    of it is shared. What then cannot be read counts as all that a process may have; of a process that has ended
    meanwhile counts what it had more than the first, since its like are there when the next look comes.

    Args:
        process: the first.
        each: bytes that each may have.
        enough: bytes from which on it matters.

    Raises _FailedError where it takes too long.
    """
    deadline = time.thread_time() + _LOOK_CPU_SECONDS
    family, anonymous = [process], {process: _anonymous(process)}
    for member in family:  # which grows meanwhile
        if time.thread_time() > deadline or len(family) > _MOST_PROCESSES:
            raise _FailedError
        for child in _children(member):
            family.append(child)
            anonymous[child] = _anonymous(child)  # at once: it may be gone soon
    if sum(anonymous.values()) <= enough:
        return sum(anonymous.values())
    used = 0
    for member in family:
        used += _share(member, each, max(0, anonymous[member] - anonymous[process]))
        if used > enough:
            break
        if time.thread_time() > deadline:
            raise _FailedError
    return used


def _children(process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _anonymous(process: int) -> int:
    """Resident bytes that are no file's, see statm in proc(5); 0 where it has ended."""
    try:
        _, resident, shared = map(int, Path(f"/proc/{process}/statm").read_text().split()[:3])
    except (OSError, ValueError):
        return 0
    return max(0, resident - shared) * mmap.PAGESIZE


def _share(process: int, each: int, gone: int) -> int:
    """What a process has, a part of what it shares counted for each that shares it."""
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return gone
    except OSError:
        return each
    return gone


def _sockets(process: int) -> int:
    """How many sockets there are in the network of a process; 0 where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = Path(f"/proc/{process}/net/sockstat").read_text().split("\n", 1)[0]  # sockets: used N
        return int(first.split()[2])
    return 0
