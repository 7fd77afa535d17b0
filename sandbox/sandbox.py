"""The real sandbox: a bounded supply of isolated kernels, some of them started ahead of demand."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sandbox import isolation
from sandbox.base import BaseSandbox, Session, Stats
from sandbox.errors import KernelProtocolError, KernelStartError, SandboxClosed, SandboxUnavailable
from sandbox.limits import Limits
from sandbox.result import Outcome, Result, clean, cut_middle

if TYPE_CHECKING:
    import zmq.asyncio

    from sandbox.kernel import Kernel, Reply

_log = logging.getLogger(__name__)

_LOST = " All variables are lost."
_UNIX_PATH_BYTES = 107  # sun_path of a socket's address, less its final zero; see unix(7)


class Sandbox(BaseSandbox):
    """Runs cells in Jupyter kernels that bubblewrap keeps from the host.

    Args:
        limits: what each session may use.
        size: sessions open at once; kernels alive at once, idle ones among them, are never more.
        prestart: kernels kept ready for the next sessions, as far as `size` has room.
        unsafe_no_isolation: run the code as this very user with nothing in between. Logged as a warning, and
            `isolation` says "none".

    Belongs to one event loop. Open it with ``async with``, which raises SandboxUnavailable where bubblewrap is
    missing or does not hold.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        size: int = 8,
        *,
        prestart: int = 2,
        unsafe_no_isolation: bool = False,
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if prestart < 0:
            raise ValueError(f"prestart must not be negative, got {prestart}")
        self.limits = limits or Limits()
        self.size = size
        self._prestart = prestart
        self._isolation: isolation.Isolation = "none" if unsafe_no_isolation else "bubblewrap"
        self._stats = Stats()
        self._places = asyncio.Semaphore(size)
        self._taken = 0
        self._spares: deque[asyncio.Task[Kernel]] = deque()
        self._kernels: set[Kernel] = set()
        self._made = 0
        self._folder: Path | None = None
        self._context: zmq.asyncio.Context | None = None

    @property
    def isolation(self) -> isolation.Isolation:
        """What stands between the code and the host: "bubblewrap", or "none"."""
        return self._isolation

    @property
    def stats(self) -> Stats:
        """Sessions, kernels, cells, outcomes and faults so far."""
        self._stats.kernels_live = len(self._kernels)
        return self._stats

    async def __aenter__(self) -> Self:
        """Open it: starts the first kernels, each of which checks its isolation before it is used."""
        import zmq
        import zmq.asyncio

        if self._folder is not None:
            raise SandboxClosed("the sandbox is already open")
        if self._isolation == "none":
            _log.warning("The sandbox runs code WITHOUT ISOLATION, as this user: unsafe_no_isolation is set.")
        self._folder = folder = _short_folder()
        (folder / "canary").touch()
        self._context = zmq.asyncio.Context()
        self._context.set(zmq.MAX_SOCKETS, 65_536)
        try:
            # The first kernel is started here even if none is to wait ready: it is the proof that all works.
            self._spares.append(self._start_spare())
            self._refill()
            await asyncio.shield(self._spares[0])
        except KernelStartError as error:
            await self._close()
            remedy = "install bubblewrap and allow it, or pass the explicit Sandbox(unsafe_no_isolation=True)"
            if self._isolation == "none":
                raise
            raise SandboxUnavailable(f"Code cannot be isolated here ({error}): {remedy}.") from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill every kernel and turn away those who wait."""
        await self._close()

    async def _close(self) -> None:
        folder, self._folder = self._folder, None
        # Each waiter that this wakes finds the sandbox closed and, on leaving, wakes the next.
        self._places.release()
        spares = list(self._spares)
        self._spares.clear()
        for spare in spares:
            spare.cancel()
        await asyncio.gather(*spares, return_exceptions=True)
        await asyncio.gather(*(self.drop(kernel) for kernel in list(self._kernels)))
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def session(self) -> AbstractAsyncContextManager[Session]:
        """A new session on a kernel of its own, once there is a place. See `BaseSandbox.session`."""
        return self._session()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        self._require_open()
        self._stats.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._stats.waiting -= 1
        self._taken += 1
        session = None
        try:
            self._require_open()
            session = KernelSession(self, await self.take())
            self._stats.sessions += 1
            yield session
        finally:
            try:
                if session is not None:
                    await session.close()
            finally:
                self._taken -= 1
                self._places.release()
                self._refill()

    def _require_open(self) -> Path:
        if self._folder is None:
            raise SandboxClosed("the sandbox is not open")
        return self._folder

    async def take(self) -> Kernel:
        """A started kernel for a session, from those waiting if there is one. The session then owns it.

        Raises KernelStartError or KernelProtocolError when the second attempt fails too, SandboxClosed when
        the sandbox closes meanwhile.
        """
        for attempt in (1, 2):
            spare = self._spares.popleft() if self._spares else self._start_spare()
            try:
                kernel = await asyncio.shield(spare)
            except (KernelStartError, KernelProtocolError):
                self._require_open()
                if attempt == 2:
                    raise
                continue
            except asyncio.CancelledError:
                if spare.cancelled():  # not we were cancelled: the sandbox was closed
                    raise SandboxClosed("the sandbox was closed") from None
                if self._folder is not None and len(self._spares) < self._prestart:
                    self._spares.appendleft(spare)
                else:
                    spare.cancel()
                    spare.add_done_callback(self._drop_unwanted)
                raise
            if not kernel.dead:
                self._refill()
                return kernel
            await self.drop(kernel)
            self._stats.faults += 1
        raise KernelStartError("two kernels in a row were dead before they were used")

    def _drop_unwanted(self, spare: asyncio.Task[Kernel]) -> None:
        if not spare.cancelled() and spare.exception() is None:
            self._unwanted = asyncio.ensure_future(self.drop(spare.result()))

    def _refill(self) -> None:
        """Start kernels ahead, as many as are wanted and as there are places for."""
        if self._folder is not None:
            wanted = min(self._prestart, self.size - self._taken)
            while len(self._spares) < wanted:
                self._spares.append(self._start_spare())

    def _start_spare(self) -> asyncio.Task[Kernel]:
        task = asyncio.create_task(self._start())
        task.add_done_callback(_look_at_exception)
        return task

    async def _start(self) -> Kernel:
        from sandbox.kernel import Kernel

        folder = self._require_open()
        assert self._context is not None
        self._made += 1
        kernel = Kernel(
            folder / str(self._made),
            self.limits,
            self._isolation == "bubblewrap",
            folder / "canary",
            self._context,
        )
        self._kernels.add(kernel)
        try:
            await kernel.start()
        except BaseException as error:
            self._kernels.discard(kernel)
            self._stats.faults += isinstance(error, Exception)
            raise
        self._stats.kernels_started += 1
        return kernel

    async def drop(self, kernel: Kernel) -> None:
        """Kill a kernel and wait until nothing of it is left."""
        await kernel.kill()
        self._kernels.discard(kernel)

    def count(self, result: Result) -> Result:
        """Enter a cell's result in the statistics."""
        self._stats.cells += 1
        self._stats.outcomes[result.outcome] += 1
        return result


def _short_folder() -> Path:
    """A private folder whose path leaves room for the names of sockets."""
    room = _UNIX_PATH_BYTES - len("/sbx-12345678/1000000/sockets/k-1")
    parent = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="sbx-", dir=parent if len(os.fsencode(parent)) < room else "/tmp"))


def _look_at_exception(task: asyncio.Task[Kernel]) -> None:
    """A spare that fails while nobody waits is found out by the next who takes it; asyncio need not complain."""
    if not task.cancelled():
        task.exception()


class KernelSession(Session):
    """A session of `Sandbox`."""

    def __init__(self, box: Sandbox, kernel: Kernel) -> None:
        self._box = box
        self._kernel: Kernel | None = kernel
        self._closed = False
        self._cells = 0
        self._turn = asyncio.Lock()

    async def execute(self, code: str, *, timeout: float | None = None, stdin: str | None = None) -> Result:
        """Run one cell. See `Session.execute`."""
        limits = self._box.limits
        timeout = limits.seconds if timeout is None else timeout
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        async with self._turn:
            self._require_open()
            if self._cells >= limits.cells:
                return self._box.count(Result.no_more_cells(limits.cells))
            self._cells += 1
            if self._kernel is None:
                self._kernel = await self._box.take()
            began = time.monotonic()
            whole = False
            try:
                # A lone surrogate cannot travel; Python would not compile it either.
                sendable = code.encode("utf-8", "replace").decode()
                reply = await self._kernel.run(sendable, self._cells, stdin or "", timeout)
                result = _result(reply, limits, timeout, time.monotonic() - began)
                whole = not result.state_lost
            finally:
                if not whole and self._kernel is not None:
                    kernel, self._kernel = self._kernel, None
                    await self._box.drop(kernel)
            self._require_open()
            return self._box.count(result)

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosed("the session is closed")
        self._box._require_open()

    async def close(self) -> None:
        """Kill the kernel."""
        self._closed = True
        if self._kernel is not None:
            kernel, self._kernel = self._kernel, None
            await self._box.drop(kernel)


def _result(reply: Reply, limits: Limits, timeout: float, duration: float) -> Result:
    """What the model is told of a reply. Believes nothing in it but that it is a dict."""
    outcome, error, value = Outcome.OK, None, None
    lost = reply.ending != "reply"
    said = {name: text for name, text in reply.content.items() if isinstance(text, str)}
    if reply.interrupted and reply.ending in ("reply", "timeout"):
        outcome = Outcome.TIMEOUT
        error = f"TimeoutError: the code ran longer than {timeout:g} s and was stopped."
    elif reply.ending == "died":
        outcome, error = Outcome.DIED, f"ProcessDiedError: the Python process died{_status(reply.status)}."
    elif reply.ending == "garbage":
        outcome, error = Outcome.DIED, "ProcessDiedError: the Python process broke and was stopped."
    elif reply.ending == "flood":
        outcome, error = Outcome.OUTPUT, "OutputLimitError: the code printed too much and was stopped."
    else:
        value, error = said.get("value"), said.get("error")
        if reply.content.get("status") != "ok":
            named = {outcome.value: outcome for outcome in (Outcome.MEMORY, Outcome.OUTPUT)}
            outcome = named.get(said.get("outcome", ""), Outcome.ERROR)
            error = error or "Error: the code failed."
            lost = reply.content.get("exhausted") is True
    if lost and error is not None:
        error += _LOST if error.endswith(".") else "\nNo memory is left." + _LOST
    half = limits.output_chars // 2
    value, value_cut = (None, False) if value is None else cut_middle(clean(value), "", half)
    error, error_cut = (None, False) if error is None else cut_middle(clean(error), "", half)
    rest = max(1, limits.output_chars - len(value or "") - len(error or ""))
    stdout, stdout_cut = cut_middle(clean(reply.head), clean(reply.tail), rest, reply.omitted)
    return Result(outcome, stdout, value, error, duration, stdout_cut or value_cut or error_cut, state_lost=lost)


def _status(status: int | None) -> str:
    """How a process ended, from bubblewrap's exit status (128 and the signal) or a Popen's."""
    if status is None or status == 0:
        return ""
    number = -status if status < 0 else status - 128
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return f" (exit status {status})"
