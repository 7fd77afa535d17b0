"""The real sandbox: a limited number of isolated kernels, some of them started ahead of demand."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from sandbox import capacity, folders, isolation, obstacles
from sandbox.base import BaseSandbox, Session, Stats
from sandbox.errors import KernelProtocolError, KernelStartError, SandboxClosed, SandboxUnavailable
from sandbox.isolation import Tier
from sandbox.limits import Limits
from sandbox.result import Result

if TYPE_CHECKING:
    from sandbox.cgroups import Groups
    from sandbox.pool import Pool

_log = logging.getLogger(__name__)

PRELOAD = ("numpy", "sympy")

_CELLS_A_CORE = 4
_LEAST_CHARS = 200  # with fewer, the output of a probe could be cut


class Sandbox(BaseSandbox):
    """Runs cells in IPython kernels, forked from a warm process and isolated from the host by Linux.

    Args:
        limits: limits of each session; at least 200 characters of output.
        size: maximum number of open sessions, and of live kernels including idle ones. Opening lowers it, with a
            warning, to what memory and the hard limit of file descriptors allow, and raises the soft limit if needed.
        cells: maximum number of concurrently running cells, over all sessions; waiting does not count towards their
            timeout. None for four per CPU core: sessions are mostly idle, running cells are not.
        prestart: kernels kept ready for the next sessions, as far as `size` allows.
        unsafe_no_isolation: run the code without isolation: as this user, or, if this is root, as other users.
            Logged as a warning, and `isolation` is "none".
        tier: the only tier to use (see `sandbox.isolation`); None for the strongest that works on this machine.
        preload: modules to import before the first kernel is started, so that cells do not wait for them.
        max_fault_rate: the share of recent starts that may fail before sessions are refused with SandboxFaulty.

    Belongs to one event loop. Open it with ``async with``, which attempts to escape from a first kernel and raises
    SandboxUnavailable if no tier prevents that.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        size: int = 8,
        *,
        cells: int | None = None,
        prestart: int = 2,
        unsafe_no_isolation: bool = False,
        tier: Literal[1, 2, 3] | None = None,
        preload: Sequence[str] = PRELOAD,
        max_fault_rate: float = 0.5,
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if cells is not None and cells < 1:
            raise ValueError(f"cells must be at least 1, got {cells}")
        if prestart < 0:
            raise ValueError(f"prestart must not be negative, got {prestart}")
        if tier not in (None, 1, 2, 3):
            raise ValueError(f"tier must be 1, 2 or 3, got {tier}")
        if not 0 < max_fault_rate <= 1:
            raise ValueError(f"max_fault_rate must be in (0, 1], got {max_fault_rate}")
        if unsafe_no_isolation and tier is not None:
            raise ValueError("unsafe_no_isolation and tier exclude each other")
        self.limits = limits or Limits()
        for name in ("output_chars", "printed_chars"):
            if (chars := getattr(self.limits, name)) < _LEAST_CHARS:
                raise ValueError(f"Limits.{name} must be at least {_LEAST_CHARS} here, got {chars}")
        self.size = size
        self._prestart = prestart
        self._tiers: tuple[Tier, ...] = (0,) if unsafe_no_isolation else (tier,) if tier else (1, 2, 3)
        self._preload = preload
        self._fault_rate = max_fault_rate
        self._stats = Stats()
        self._places = asyncio.Semaphore(size)
        self._turns = asyncio.Semaphore(cells or _CELLS_A_CORE * (os.cpu_count() or 1))
        self._taken = 0
        self._folder: Path | None = None
        self._lock: folders.Held | None = None
        self._claim: capacity.Claim | None = None
        self._groups: Groups | None = None
        self._pool: Pool | None = None

    @property
    def isolation(self) -> str:
        """The isolation in use, e.g. "bubblewrap (tier 1)", or "none"; see `sandbox.isolation`.

        Before opening, the tier that will be tried first.
        """
        return isolation.NAMES[self.tier]

    @property
    def tier(self) -> Tier:
        """The number of the tier; 0 without isolation."""
        return self._pool.tier if self._pool is not None else self._tiers[0]

    @property
    def forks(self) -> bool:
        """Whether forks are available: in all tiers but 3; see `BaseSandbox.forks`."""
        return self.tier != 3

    @property
    def files(self) -> bool:
        """Always True."""
        return True

    @property
    def images(self) -> bool:
        """Always True."""
        return True

    @property
    def cgroups(self) -> str:
        """What cgroups limit, in addition to the other limits; or why they are not used."""
        return "not used: the sandbox has not been opened" if self._groups is None else str(self._groups)

    @property
    def stats(self) -> Stats:
        """Sessions, kernels, cells, outcomes and faults so far."""
        if self._pool is not None:
            self._stats.kernels_live = len(self._pool.kernels)
            self._stats.kernels_ready = self._pool.ready
        return self._stats

    async def __aenter__(self) -> Self:
        """Open the sandbox: start the zygote and check that the isolation works."""
        if self._folder is not None:
            raise SandboxClosed("the sandbox is already open")
        try:
            await self._start()
        except OSError as error:  # e.g. no descriptor is left
            await self._close()
            raise SandboxUnavailable(f"Code cannot be run here: {error.strerror or error}.") from error
        return self

    async def _start(self) -> None:
        from sandbox.cgroups import Groups

        if self._tiers == (0,):
            _log.warning("The sandbox runs code WITHOUT ISOLATION: unsafe_no_isolation is set.")
        if hopeless := obstacles.hopeless_limits():
            raise SandboxUnavailable(f"Code cannot be run here: {', '.join(hopeless)}.")
        self._lock = await asyncio.to_thread(folders.make)  # also removes folders of dead sandboxes
        self._folder = self._lock.path
        self._claim = capacity.claim(self.size)
        if self.size > self._claim.kernels:
            most = self._claim.kernels
            _log.warning("Memory and file descriptors suffice for %d sessions, not %d.", most, self.size)
            self.size = most
        self._places = asyncio.Semaphore(self.size)
        reasons = []
        try:
            self._groups = Groups(self._folder)
            for tier in self._tiers:
                try:
                    await self._open(tier)
                    break
                except (KernelStartError, KernelProtocolError, SandboxUnavailable) as error:
                    await self._close_pool()
                    if tier == 0:
                        reason = ", ".join([str(error), *obstacles.limits()])
                        raise SandboxUnavailable(f"Code cannot be run here: {reason}.") from error
                    _log.info("%s: %s", isolation.NAMES[tier], error)
                    reasons.append(f"{isolation.NAMES[tier]}: {error}")
            else:
                remedies = [*obstacles.found(), "pass the explicit Sandbox(unsafe_no_isolation=True)"]
                remedy = ", or ".join(filter(None, (", ".join(remedies[:-1]), remedies[-1])))
                raise SandboxUnavailable(f"Code cannot be isolated here ({'; '.join(reasons)}): {remedy}.")
        except BaseException:
            await self._close()
            raise

    async def _open(self, tier: Tier) -> None:
        from sandbox import selftest
        from sandbox.pool import Pool
        from sandbox.session import KernelSession

        if tier == 3 and (hidden := isolation.hidden_from_others()) is not None:
            raise SandboxUnavailable(
                f"root's code runs as other users, who cannot reach Python in {hidden}: "
                "run this as an ordinary user, or with a Python that all users can read"
            )
        folder = self._require_open() / f"tier-{tier}"
        folder.mkdir(mode=0o711)
        assert self._groups is not None and self._claim is not None
        self._stats = Stats()
        self._pool = pool = Pool(
            tier,
            self.limits,
            folder,
            self._preload,
            self._prestart,
            self._groups,
            self._stats,
            self._fault_rate,
            self._claim.starts,
        )
        self._claim.live = lambda: len(pool.kernels)
        enough = replace(self.limits, cells=1_000_000)  # the probes must all run, whatever the user's limit
        canary = KernelSession(self._pool, enough, lambda result: None, self._turns)
        try:
            await canary.open()
            escaped = await selftest.quick(canary, tier, self._require_open())
        finally:
            await canary.close()
        if escaped:
            raise SandboxUnavailable(f"the isolation does not hold here: {'; '.join(escaped)}")
        self._pool.refill(self.size)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all kernels and raise SandboxClosed in waiting callers."""
        await self._close()

    async def _close(self) -> None:
        self._folder = None
        # Each waiter that wakes up finds the sandbox closed and, on leaving, wakes the next one.
        self._places.release()
        await self._close_pool()
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        if self._lock is not None:
            lock, self._lock = self._lock, None
            await asyncio.to_thread(lock.remove)

    async def _close_pool(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    def session(self, *, seed: int | None = None) -> AbstractAsyncContextManager[Session]:
        """A new session with its own kernel, once a place is free. See `BaseSandbox.session`."""
        return self._session(seed)

    @asynccontextmanager
    async def _session(self, seed: int | None) -> AsyncIterator[Session]:
        from sandbox.session import KernelSession

        self._require_open()
        began, places = time.monotonic(), self._places
        self._stats.waiting += 1
        try:
            await places.acquire()
        finally:
            self._stats.waiting -= 1
        self._taken += 1
        session = None
        try:
            self._require_open()
            assert self._pool is not None
            session = KernelSession(self._pool, self.limits, self._count, self._turns, seed)
            await session.open()
            self._pool.refill(self.size - self._taken)
            self._stats.waited_s += time.monotonic() - began
            self._stats.sessions += 1
            yield session
        finally:
            try:
                if session is not None:
                    await session.close()
            finally:
                self._taken -= 1
                places.release()
                if self._pool is not None:
                    self._pool.refill(self.size - self._taken)

    def _require_open(self) -> Path:
        if self._folder is None:
            raise SandboxClosed("the sandbox is not open")
        return self._folder

    def _count(self, result: Result) -> None:
        self._stats.cells += 1
        self._stats.outcomes[result.outcome] += 1
