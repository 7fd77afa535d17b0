"""A session of the real sandbox, and a kernel's reply as a `Result`."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from sandbox.base import Session
from sandbox.errors import SandboxClosed
from sandbox.files import FileInfo, FileReply, check_size, checked
from sandbox.inside import cut as cutting
from sandbox.inside.cut import cut_middle
from sandbox.inside.requests import LIST, READ, REMOVE, WRITE
from sandbox.inside.wire import ENDINGS
from sandbox.kernel import Kernel
from sandbox.limits import Limits
from sandbox.pool import Pool
from sandbox.reply import Reply
from sandbox.result import Outcome, Result, clean

_AT_ONCE_BYTES = 1 << 20
"""Of a reply, that are made a result within the event loop. The longest of a grader's, 16 MB, take some 80 ms; in a
thread it takes steps of 10 to 30."""

_LOST = " All variables are lost."


class KernelSession(Session):
    """A session of `Sandbox`.

    Args:
        pool: where its kernels come from.
        limits: what it may use.
        count: called with each result.
        turns: a place for each cell that may run at once, in all sessions together.
        seed: where the random numbers of its kernels start; None for anywhere.
    """

    def __init__(
        self,
        pool: Pool,
        limits: Limits,
        count: Callable[[Result], None],
        turns: asyncio.Semaphore,
        seed: int | None = None,
    ) -> None:
        self._pool = pool
        self._limits = limits
        self._count = count
        self._kernel: Kernel | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._closed = False
        self._cells = 0
        self._turn = asyncio.Lock()
        self._turns = turns
        self._seed = seed
        self._kernels = 0

    async def open(self) -> None:
        """Take a kernel. Raises as `Pool.take`."""
        self._kernel = await self._pool.take()

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        fork: bool = False,
        images: bool = False,
    ) -> Result:
        """Run one cell. See `Session.execute`."""
        limits = self._limits
        timeout = self._seconds(timeout)
        # A lone surrogate cannot travel; Python would not compile it either.
        texts = [text.encode("utf-8", "replace") for text in (code, stdin or "")]
        async with self._turn, self._turns:
            self._require_open()
            if self._cells >= limits.cells:
                result = Result.no_more_cells(limits.cells)
                self._count(result)
                return result
            self._cells += 1
            kernel = await self._usable_kernel()
            began = time.monotonic()
            try:
                seed = self._next_seed() if kernel.cells == 0 else None
                reply = await kernel.run(texts[0], self._cells, texts[1], timeout, seed, forked=fork, images=images)
                took = time.monotonic() - began
                if reply.size > _AT_ONCE_BYTES:
                    result = await asyncio.to_thread(result_of, reply, limits, timeout, took, raw=fork)
                else:
                    result = result_of(reply, limits, timeout, took, raw=fork)
                if fork and not self._pool.forks:
                    result = replace(result, state_lost=True)
                usable = not result.state_lost
            except BaseException:
                await self._drop()
                raise
            if not usable:  # the result need not wait until Linux is done with what the code has left
                self._leave()
            self._require_open()
            self._count(result)
            return result

    def _seconds(self, timeout: float | None) -> float:
        timeout = self._limits.seconds if timeout is None else timeout
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        return timeout

    async def write_file(self, name: str, data: bytes, *, timeout: float | None = None) -> None:
        """Write a file. See `Session.write_file`."""
        check_size(name, len(data), self._limits)
        await self._file_operation(WRITE, name, timeout, data)

    async def read_file(self, name: str, *, timeout: float | None = None) -> bytes:
        """Read a file. See `Session.read_file`."""
        return bytes((await self._file_operation(READ, name, timeout)).data)

    async def list_files(self, *, timeout: float | None = None) -> tuple[FileInfo, ...]:
        """List the files. See `Session.list_files`."""
        return (await self._file_operation(LIST, "", timeout)).infos()

    async def remove_file(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a file. See `Session.remove_file`."""
        await self._file_operation(REMOVE, name, timeout)

    async def _file_operation(self, operation: int, name: str, timeout: float | None, data: bytes = b"") -> FileReply:
        timeout = self._seconds(timeout)
        path = b"" if operation == LIST else checked(name)
        async with self._turn:
            self._require_open()
            kernel = await self._usable_kernel()
            try:
                reply = await kernel.run_file_operation(operation, path, data, timeout)
            except BaseException:
                await self._drop()
                raise
            if reply.status is None:
                self._leave()
            self._require_open()
        if (error := reply.error(name)) is not None:
            raise error
        return reply

    def interrupt(self) -> None:
        """Interrupt the cell that runs, if one does: it ends with a KeyboardInterrupt and keeps the variables."""
        if self._kernel is not None:
            self._kernel.interrupt()

    async def _usable_kernel(self) -> Kernel:
        if self._kernel is not None and self._kernel.dead and not self._kernel.used:
            await self._drop()  # it died before it was used: nothing is lost by taking another
        if self._kernel is None:
            await self._drop()
            self._kernel = await self._pool.take()
        return self._kernel

    def _next_seed(self) -> int | None:
        """The seed of the next kernel that runs a cell, which is not that of the one before it."""
        if self._seed is None:
            return None
        self._kernels += 1
        digest = hashlib.sha256(f"{self._seed}:{self._kernels}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def _leave(self) -> None:
        """Have the kernel killed; the next one is taken when it is gone."""
        if self._kernel is not None:
            kernel, self._kernel = self._kernel, None
            self._leaving = asyncio.create_task(self._pool.drop(kernel))

    async def _drop(self) -> None:
        self._leave()
        if self._leaving is not None:
            await asyncio.shield(self._leaving)
            self._leaving = None

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosed("the session is closed")
        if self._pool.closed:
            raise SandboxClosed("the sandbox is not open")

    async def close(self) -> None:
        """Kill the kernel."""
        self._closed = True
        await self._drop()


def result_of(reply: Reply, limits: Limits, timeout: float, duration: float, *, raw: bool = False) -> Result:
    """A reply as a `Result`. Nothing in it is trusted but its form.

    Args:
        reply: it.
        limits: of the session.
        timeout: of the cell, in seconds.
        duration: how long it took, in seconds.
        raw: whether what it printed stays as it is; else it is made what a terminal shows.
    """
    outcome, error, value, exit_status = Outcome.OK, None, None, None
    lost, cut = reply.ending != "result", False
    reported = reply.outcome
    if reply.interrupted and reply.ending in ("result", "timeout"):
        outcome = Outcome.TIMEOUT
        error = f"TimeoutError: the code ran longer than {timeout:g} s and was stopped."
    elif reply.ending == "died":
        # Process 1 of a namespace is not ended by SIGABRT: abort() goes on to an instruction that no process may use.
        how = " (SIGSEGV, or SIGABRT)" if reply.status == -signal.SIGSEGV else _status(reply.status)
        outcome, error = Outcome.DIED, f"ProcessDiedError: the Python process died{how}."
    elif reply.ending == "garbage":
        outcome, error = Outcome.DIED, "ProcessDiedError: the Python process broke and was stopped."
    elif reply.ending == "memory":
        most = limits.memory_in_sum_bytes >> 20
        outcome, error = Outcome.MEMORY, f"MemoryError: the code's processes used more than {most:,} MB together."
    elif reply.ending == "flood":
        outcome, error = Outcome.OUTPUT, "OutputLimitError: the code printed too much and was stopped."
    elif reported is not None:
        outcome = Outcome(ENDINGS[reported.ending])
        value = "".join(reply.value) if reported.has_value else None
        if outcome is Outcome.DIED:
            exit_status = reported.status
            error = f"ProcessDiedError: the Python process died{_status(exit_status)}."
        elif outcome is not Outcome.OK:
            error = "".join(reply.error) or "Error: the code failed."
            lost = reported.exhausted
        cut, duration = reported.cut, min(duration, reported.nanoseconds / 1e9)
    if lost and error is not None:
        error += _LOST if error.endswith(".") else "\nNo memory is left." + _LOST
    most_chars = cutting.most_chars(limits.output_chars)
    value, value_cut = (None, False) if value is None else _shortened(value, most_chars)
    error, error_cut = (None, False) if error is None else _shortened(error, most_chars)
    rest = max(1, limits.output_chars - len(value or "") - len(error or ""))
    head, tail = reply.head, reply.tail
    omitted, of_stdout = reply.gap or (0, 0)
    stdout, stdout_cut = printed, printed_cut = _joined(head.printed(), tail.printed(), rest, omitted, raw)
    plain = head.stdout(), tail.stdout()
    if plain != (None, None):
        texts = [text.printed() if out is None else out for text, out in zip((head, tail), plain, strict=True)]
        stdout, stdout_cut = _joined(texts[0], texts[1], rest, of_stdout, raw)
    return Result(
        outcome,
        stdout,
        value,
        error,
        duration,
        truncated=printed_cut or stdout_cut or value_cut or error_cut or cut,
        state_lost=lost,
        printed=None if printed == stdout else printed,
        late=clean("".join(reply.late)[: limits.output_chars]),
        exit_status=exit_status,
        images=() if reply.images is None else tuple(reply.images.images),
    )


def _joined(head: str, tail: str, limit: int, omitted: int, raw: bool) -> tuple[str, bool]:
    if not omitted and tail:
        head, tail = head + tail, ""
    if not raw:
        head, tail = clean(head), clean(tail)
    return cut_middle(head, tail, limit, omitted)


def _shortened(text: str, limit: int) -> tuple[str, bool]:
    """A text that the real kernel has cut already."""
    if len(text) > limit + cutting.LINE_CHARS:
        return clean(cut_middle(text, "", limit)[0]), True
    return clean(text), False


def _status(status: int | None) -> str:
    """How a process ended: in words, for a traceback."""
    if status is None or status == 0:
        return ""
    try:
        return f" ({signal.Signals(-status).name})"
    except ValueError:
        return f" (exit status {status})"
