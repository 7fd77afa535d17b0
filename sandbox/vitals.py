"""CPU, memory and event-loop measurements of the host process and its machine, for soak tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

STALL_SECONDS = 0.05
"""An event loop that does not run for this long counts as stalled."""

_BEAT_SECONDS = 0.01  # between two beats of the loop; each costs about 10 µs
_LOOK_SECONDS = 0.025  # between two checks whether the loop is late
_SAMPLE_SECONDS = 0.1  # between two measurements of memory; each costs about 300 µs
_STALLS = 1_000  # that are kept; further ones are only counted
_FRAMES = 4  # of a stall's stack

# Fields of /proc/meminfo that are not kernel memory. The rest is: slabs, stacks, page tables, vmalloc, and what no
# field names (pages of pipes and sockets). Reclaimable slabs are not counted. See proc_meminfo(5).
_NOT_THE_KERNELS = ("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "SReclaimable")


@dataclass(frozen=True, slots=True)
class Vitals:
    """One measurement; memory in MB (2**20 bytes).

    Attributes:
        processor_s: CPU seconds used by this process.
        resident_mb: resident memory of this process.
        descriptors: open file descriptors of this process.
        kernel_mb: unreclaimable memory of the machine used by Linux itself: slabs, stacks, page tables, pipes, sockets.
        slab_mb: part of it in slabs.
        tables_mb: part of it in page tables.
        sockets_mb: part of it in buffers of internet sockets.
    """

    processor_s: float
    resident_mb: float
    descriptors: int
    kernel_mb: float
    slab_mb: float
    tables_mb: float
    sockets_mb: float

    @classmethod
    def now(cls) -> Self:
        """Measure now. Costs about 300 µs; what cannot be read is 0."""
        page = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        memory = _memory()
        sockets = 0
        with contextlib.suppress(OSError):
            words = Path("/proc/net/sockstat").read_text().split()
            sockets = sum(int(words[place + 1]) for place, word in enumerate(words) if word == "mem")
        return cls(
            time.process_time(),
            int(Path("/proc/self/statm").read_text().split()[1]) * page,
            len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 - minus the one used for listing
            memory.get("MemTotal", 0) - sum(memory.get(name, 0) for name in _NOT_THE_KERNELS) - _kept_free() * page,
            memory.get("SUnreclaim", 0),
            memory.get("PageTables", 0),
            sockets * page,
        )


def _kept_free() -> int:
    """Free pages on per-CPU lists, hundreds of MB, which MemFree does not count."""
    with contextlib.suppress(OSError):
        words = Path("/proc/zoneinfo").read_text().split()
        return sum(int(words[place + 1]) for place, word in enumerate(words) if word == "count:")
    return 0


def _memory() -> dict[str, float]:
    """/proc/meminfo, in MB."""
    found = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, amount, *unit = line.split()
            if unit == ["kB"]:
                found[name.rstrip(":")] = int(amount) / 1024
    return found


@dataclass(frozen=True, slots=True)
class Stall:
    """A period in which the event loop did not run.

    Attributes:
        at: seconds after the watch began.
        seconds: duration.
        waiting: seconds of it in which the loop's thread was runnable but had no CPU: the machine was busy.
        where: the innermost calls during the stall; empty if they could not be sampled.
    """

    at: float
    seconds: float
    waiting: float
    where: str


class Watch:
    """Watches the running event loop and the memory of process and machine. Used with ``async with``.

    A timer every 10 ms detects stalls. A thread measures memory ten times a second, whether the loop runs or not.

    Attributes:
        began: the vitals at the start, or at the latest `reset`.
        peak: the maximum since then, for each figure separately.
        stalls: the first 1,000 stalls of at least 50 ms since then.
        stalled: number of stalls of at least 50 ms.
        longest: the longest stall, of any length.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._sample, name="vitals", daemon=True)
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = 0.0
        self._waited = 0.0
        self._seen = ""
        self._queue: int | None = None
        self._loop_thread = 0
        self.reset()

    async def __aenter__(self) -> Self:
        """Start watching."""
        self._loop_thread = threading.get_ident()
        with contextlib.suppress(OSError):  # a kernel without CONFIG_SCHED_INFO
            self._queue = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self._waited = self._queued()
        self.reset()
        self._beat()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching. The figures stay readable."""
        self._stopped = True
        self._thread.join()
        if self._timer is not None:
            self._timer.cancel()
        if self._queue is not None:
            os.close(self._queue)
            self._queue = None

    def reset(self) -> None:
        """Discard all figures and start again."""
        with self._lock:
            self.began = self.peak = Vitals.now()
            self.stalls: list[Stall] = []
            self.stalled = 0
            self.longest = Stall(0.0, 0.0, 0.0, "")
            self._start = time.monotonic()
            self._scheduled = self._start + _BEAT_SECONDS

    def look(self) -> Vitals:
        """Measure now and update the peak."""
        seen = Vitals.now()
        with self._lock:
            self.peak = Vitals(*(max(getattr(pair, name) for pair in (self.peak, seen)) for name in Vitals.__slots__))
        return seen

    def _beat(self) -> None:
        now, waited = time.monotonic(), self._queued()
        late = now - self._scheduled
        if late > self.longest.seconds or late > STALL_SECONDS:
            stall = Stall(now - self._start - late, late, min(late, waited - self._waited), self._seen)
            self.longest = max(self.longest, stall, key=lambda stall: stall.seconds)
            if late > STALL_SECONDS:
                self.stalled += 1
                if len(self.stalls) < _STALLS:
                    self.stalls.append(stall)
        self._seen, self._waited = "", waited
        self._scheduled = time.monotonic() + _BEAT_SECONDS
        self._timer = asyncio.get_running_loop().call_later(_BEAT_SECONDS, self._beat)

    def _queued(self) -> float:
        """Total seconds that the loop's thread was runnable but not running; see Linux's sched-stats documentation."""
        return 0.0 if self._queue is None else int(os.pread(self._queue, 100, 0).split()[1]) / 1e9

    def _sample(self) -> None:
        looked = 0.0
        while not self._stopped:
            time.sleep(_LOOK_SECONDS)  # cheaper than waiting for an event
            now = time.monotonic()
            if now - self._scheduled > _LOOK_SECONDS:
                self._seen = _innermost(sys._current_frames().get(self._loop_thread))
            if now - looked > _SAMPLE_SECONDS:
                looked = now
                self.look()


def _innermost(frame: FrameType | None) -> str:
    """The last calls of a stack, innermost first."""
    if frame is None or frame.f_code.co_filename == __file__:  # in the timer itself: the stall is over
        return ""
    calls = traceback.extract_stack(frame, _FRAMES)
    return " < ".join(f"{call.name} ({Path(call.filename).name}:{call.lineno})" for call in reversed(calls))
