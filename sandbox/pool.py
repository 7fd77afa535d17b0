"""The kernels of one sandbox: a pool with some started ahead of demand, and the zygote they are forked from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from sandbox.base import Stats
from sandbox.cgroups import Groups
from sandbox.errors import HostFull, KernelProtocolError, KernelStartError, SandboxClosed, SandboxFaulty
from sandbox.isolation import Tier
from sandbox.kernel import Kernel
from sandbox.limits import Limits
from sandbox.watch import Watch
from sandbox.zygote import Zygote

_log = logging.getLogger(__name__)

_STARTS_WATCHED = 40
_FEWEST_FAULTS = 8  # below this, a fault rate means nothing


class Pool:
    """Starts kernels, keeps `prestart` of them ready, and restarts the zygote when it dies.

    Args:
        tier: the isolation of the kernels.
        limits: limits of each kernel.
        folder: a private folder of the host.
        preload: modules that the zygote imports.
        prestart: kernels to keep ready.
        groups: makes cgroups for the kernels.
        stats: counters to update.
        fault_rate: the maximum share of failed starts.
        starts: maximum number of concurrent starts; queued starts hold no descriptor.
    """

    def __init__(
        self,
        tier: Tier,
        limits: Limits,
        folder: Path,
        preload: Sequence[str],
        prestart: int,
        groups: Groups,
        stats: Stats,
        fault_rate: float,
        starts: int,
    ) -> None:
        self.tier = tier
        self.kernels: set[Kernel] = set()
        self._limits = limits
        self._folder = folder
        self._preload = preload
        self._prestart = prestart
        self._groups = groups
        self._watch = Watch()
        self._stats = stats
        self._fault_rate = fault_rate
        self._turns = asyncio.Semaphore(starts)
        self._starts: deque[str | None] = deque(maxlen=_STARTS_WATCHED)
        self._spares: deque[asyncio.Task[Kernel]] = deque()
        self._zygote: Zygote | None = None
        self._zygotes = 0
        self._zygote_turn = asyncio.Lock()
        self._made = 0
        self._room = 0
        self.closed = False

    @property
    def forks(self) -> bool:
        """Whether code may start processes."""
        return self.tier != 3

    @property
    def ready(self) -> int:
        """Number of idle kernels that are ready for use."""
        return sum(spare.done() and not spare.cancelled() and spare.exception() is None for spare in self._spares)

    def refill(self, room: int | None = None) -> None:
        """Start idle kernels up to `prestart`.

        Args:
            room: maximum number of kernels besides those in sessions; None for the value of the last call.
        """
        self._room = self._room if room is None else room
        while not self.closed and len(self._spares) < min(self._prestart, self._room):
            self._spares.append(self._start_spare())

    async def take(self) -> Kernel:
        """A started kernel, an idle one if there is one. The caller must `drop` it.

        Raises:
            KernelStartError, KernelProtocolError: the second attempt failed, too.
            SandboxFaulty: too many starts have failed.
            SandboxClosed: the pool was closed meanwhile.
        """
        failed = False
        while True:
            self._require_health()
            while self._spares and _has_failed(self._spares[0]):  # failed while no caller was waiting
                self._spares.popleft()
            spare = self._spares.popleft() if self._spares else self._start_spare()
            try:
                kernel = await asyncio.shield(spare)
            except (KernelStartError, KernelProtocolError):
                self._require_health()
                if failed:
                    raise
                failed = True
                continue
            except asyncio.CancelledError:
                if spare.cancelled():  # not this call: the sandbox was closed
                    raise SandboxClosed("the sandbox was closed") from None
                if not self.closed and len(self._spares) < self._prestart:
                    self._spares.appendleft(spare)
                else:
                    spare.cancel()
                    spare.add_done_callback(self._drop_unwanted)
                raise
            if not kernel.dead and not kernel.doomed:
                return kernel
            # It died while idle: with its zygote, or for lack of memory.
            self._stats.faults += 1
            await self.drop(kernel)

    def _require_health(self) -> None:
        if self.closed:
            raise SandboxClosed("the sandbox is not open")
        faults = [fault for fault in self._starts if fault is not None]
        if len(faults) >= _FEWEST_FAULTS and len(faults) > self._fault_rate * len(self._starts):
            raise SandboxFaulty(
                f"{len(faults)} of the last {len(self._starts)} kernels could not be started; last reason: {faults[-1]}"
            )

    def _drop_unwanted(self, spare: asyncio.Task[Kernel]) -> None:
        if not spare.cancelled() and spare.exception() is None:
            self._unwanted = asyncio.ensure_future(self.drop(spare.result()))

    def _start_spare(self) -> asyncio.Task[Kernel]:
        task = asyncio.create_task(self._start())
        task.add_done_callback(_mark_exception_retrieved)
        return task

    async def _start(self) -> Kernel:
        async with self._turns:
            return await self._start_now()

    async def _start_now(self) -> Kernel:
        zygote = await self._living_zygote()
        if self.closed:
            raise SandboxClosed("the sandbox was closed")
        self._made += 1
        kernel = Kernel(self._folder / str(self._made), self._limits, zygote, self._groups, self._watch)
        self.kernels.add(kernel)
        try:
            await kernel.start()
        except BaseException as error:
            self.kernels.discard(kernel)
            if isinstance(error, Exception):
                self._fault(error)
            raise
        self._starts.append(None)
        self._stats.kernels_started += 1
        self._stats.kernels_grouped += kernel.grouped
        return kernel

    def _fault(self, error: Exception) -> None:
        if not isinstance(error, HostFull):  # which does not predict the next start
            self._starts.append(str(error))
        self._stats.faults += 1

    async def _living_zygote(self) -> Zygote:
        """The zygote, restarted if it has died. Raises KernelStartError, SandboxUnavailable, SandboxClosed."""
        async with self._zygote_turn:
            if self.closed:
                raise SandboxClosed("the sandbox was closed")
            if self._zygote is not None and not self._zygote.dead:
                return self._zygote
            if self._zygote is not None:
                _log.warning("The sandbox's zygote has died; restarting it.")
                self._stats.zygote_restarts += 1
                await self._zygote.close()
                self._zygote = None
            self._zygotes += 1
            zygote = Zygote(self.tier, self._folder.parent, self._folder / f"zygote-{self._zygotes}", self._preload)
            try:
                await zygote.start(self._limits.start_seconds)
            except KernelStartError as error:
                self._fault(error)
                raise
            self._zygote = zygote
            return zygote

    async def drop(self, kernel: Kernel) -> None:
        """Kill a kernel and wait until nothing of it is left."""
        await kernel.kill()
        self.kernels.discard(kernel)

    async def close(self) -> None:
        """Kill everything. Safe to call again."""
        self.closed = True
        spares = list(self._spares)
        self._spares.clear()
        for spare in spares:
            spare.cancel()
        await asyncio.gather(*spares, return_exceptions=True)
        await asyncio.gather(*(self.drop(kernel) for kernel in list(self.kernels)))
        await asyncio.to_thread(self._watch.close)  # may block: its thread may be measuring
        async with self._zygote_turn:
            if self._zygote is not None:
                await self._zygote.close()
                self._zygote = None


def _has_failed(spare: asyncio.Task[Kernel]) -> bool:
    return spare.done() and not spare.cancelled() and spare.exception() is not None


def _mark_exception_retrieved(task: asyncio.Task[Kernel]) -> None:
    """Keep asyncio from logging a failed spare that has no waiter: the next `take` notices it."""
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
