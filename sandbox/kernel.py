"""One kernel on the host's side: have it forked, run cells and file operations in it, kill it.

A hostile kernel sits at the other end of two pipes (`sandbox.inside.wire`): what it says is bounded in size and number,
and holds nothing but text and a few numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from sandbox import isolation, removal, users
from sandbox.cgroups import Group, Groups
from sandbox.errors import KernelStartError, start_error
from sandbox.exchange import Exchange
from sandbox.files import FileReply
from sandbox.inside import wire
from sandbox.inside.requests import FileRequest, Request, file_request_frame, request_frame, settings_frame
from sandbox.inside.wire import GarbageError
from sandbox.limits import Limits
from sandbox.reply import Images, Reply
from sandbox.watch import Watch, Watched, process_id
from sandbox.zygote import Child, Zygote, kill, readable

_STATUS_SECONDS = 1.0  # for the zygote to report the exit status of a process that has ended
_INTERRUPTS = 2  # of a cell whose time is up: it may not have begun when the first one comes
_OUR_LIMITS = (
    *("grace_seconds", "memory_bytes", "processes", "disk_bytes", "inodes", "open_files"),
    *("output_chars", "printed_chars", "images", "image_bytes", "file_bytes", "files"),
)


class Kernel:
    """A kernel process. Made by `start`; whoever has it calls `kill`.

    Args:
        folder: a place of the host's for it; made and removed here.
        limits: what it may use.
        zygote: what it is forked from.
        groups: where it gets cgroups of its own, if there are any.
        watch: looks at its memory while a cell runs.
    """

    def __init__(self, folder: Path, limits: Limits, zygote: Zygote, groups: Groups, watch: Watch) -> None:
        self._folder = folder
        self._limits = limits
        self._zygote = zygote
        self._groups = groups
        self._group: Group | None = None
        self._child: Child | None = None
        self._user: int | None = None  # its id, where it has one of its own
        self._exchange = Exchange(limits.output_chars, self._on_start_frame, self._fail)
        self._ready: asyncio.Future[None] | None = None
        self._watch = watch
        self._watched: Watched | None = None
        self._overran = False
        self._process: int | None = None  # the host's number of it
        self._killing: asyncio.Task[None] | None = None
        self.dead = False
        self.grouped = False  # in cgroups of its own
        self.cells = 0

    @property
    def used(self) -> bool:
        """Whether it may have variables or files that would be lost with it."""
        return self._exchange.serial > 0

    @property
    def doomed(self) -> bool:
        """Whether its zygote has died, which ends it, too: its own end may be seen a moment later."""
        return self._zygote.dead

    async def start(self) -> None:
        """Have the process forked, and wait until it is isolated.

        Raises:
            KernelStartError: it did not come up in `Limits.start_seconds`, or is not as isolated as it should
                be; the message has the reason. HostFull where there is no descriptor or process left for it.
            KernelProtocolError: it came up and said something else.

        However it fails, and when cancelled, nothing is left.
        """
        seconds = self._limits.start_seconds
        ready = self._ready = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._launch()
                await ready
        except TimeoutError:
            await self.kill()
            raise KernelStartError(f"the kernel was not ready after {seconds:g} s") from None
        except OSError as error:
            await self.kill()
            raise start_error(error) from error
        except BaseException:
            await self.kill()
            raise

    async def _launch(self) -> None:
        tier = self._zygote.tier
        home = isolation.HOME
        if tier in (0, 3):
            home = str(self._folder)
            self._folder.mkdir(mode=0o700)
        self._user = users.claim()
        settings = {
            "forks": tier != 3,
            "uid": self._user,
            "home": home,
            "temporary": "/tmp" if tier in (1, 2) else home,
            **{name: getattr(self._limits, name) for name in _OUR_LIMITS},
        }
        given: list[int] = []
        try:
            theirs, requests = os.pipe()
            given.append(theirs)
            try:
                replies, theirs = os.pipe()
            except OSError:
                os.close(requests)
                raise
            given.append(theirs)
            self._exchange.open(requests, replies)
            if (group := self._groups.make(self._limits)) is not None:
                self._group = group
                given += group.entries
            self._exchange.begin(settings_frame(settings))
            self._child = await self._zygote.fork(given)
        finally:
            for descriptor in given:
                os.close(descriptor)
        self._process = process_id(self._child.pidfd)
        asyncio.get_running_loop().add_reader(self._child.pidfd, self._on_exit)

    def _on_exit(self) -> None:
        """The process is gone. What it said last may still be in the pipe."""
        self.dead = True
        if self._watched is not None:  # before its number is another's
            self._watch.remove(self._watched)
        if self._child is not None:
            asyncio.get_running_loop().remove_reader(self._child.pidfd)
        self._drain()

    def _drain(self) -> None:
        if self._exchange.read():
            asyncio.get_running_loop().call_soon(self._drain)
        elif self._ready is not None:
            self._fail(KernelStartError("the kernel ended at its start"))
        else:
            self._exchange.end("died")

    def _on_start_frame(self, kind: int, text: str) -> None:
        if kind == wire.FAILED:
            self._fail(KernelStartError(text))
        elif kind != wire.READY:
            raise GarbageError("a frame of a strange kind")
        elif self._ready is not None and not self._ready.done():
            self.grouped = self._group is not None and not text
            if text:
                self._groups.give_up(f"a kernel could not enter its own: {text}")
            self._ready.set_result(None)
            self._ready = None
            self._exchange.has_started()

    def _fail(self, error: Exception) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # seen: asyncio need not complain where nobody waits any more

    async def run(
        self,
        code: bytes,
        cell: int,
        stdin: bytes,
        timeout: float,
        seed: int | None,
        *,
        forked: bool = False,
        images: bool = False,
    ) -> Reply:
        """Run one cell. The kernel is usable afterwards only if `ending` is "result".

        Args:
            code: the cell, in UTF-8.
            cell: its number in the session, for tracebacks.
            stdin: all of its standard input.
            timeout: seconds before it is interrupted; it is given up `Limits.grace_seconds` later.
            seed: where its random numbers start, 32 bits; None to go on with those there are.
            forked: whether to run it in a fork of the kernel, whose variables stay as they are.
            images: whether to return the images that it displays.

        When cancelled the cell goes on running: the caller kills the kernel.
        """
        limits, exchange = self._limits, self._exchange
        self.cells += 1
        reply = Reply(limits.output_chars, Images(limits.images, limits.image_bytes) if images else None)
        request = Request(exchange.next(), cell, seed, forked, code, stdin, images)
        events = None
        try:
            done = self._ask(reply, request_frame(request))
            # All this after the request, while the kernel is at work.
            exchange.call_later(timeout, self._on_timeout, reply)
            exchange.allow(limits.image_bytes + 2 * limits.images * wire.PIPE_BUF if images else 0)
            self._watch_memory()
            if self._group is not None:
                events = self._group.open_events()
            await done
            if reply.ending in ("result", "died") and self._group is not None and self._group.has_overflowed(events):
                reply.ending = "memory"
        finally:
            exchange.stop()
            if self._watched is not None:
                self._watched.running = False
            if events is not None:
                os.close(events)
        if reply.ending == "died":
            reply.status = await self._status()
        return reply

    async def run_file_operation(self, operation: int, name: bytes, data: bytes, timeout: float) -> FileReply:
        """Run one file operation. The kernel is usable afterwards only if `ending` is "result".

        Args:
            operation: see `sandbox.inside.requests`.
            name: a valid name in UTF-8; empty for LIST.
            data: the content for WRITE.
            timeout: seconds until the operation counts as failed.

        If cancelled, the operation goes on: the caller kills the kernel.
        """
        exchange = self._exchange
        reply = FileReply(operation, self._limits)
        request = FileRequest(exchange.next(), operation, name, data)
        try:
            done = self._ask(reply, file_request_frame(request))
            exchange.call_later(timeout, exchange.end, "timeout")
            exchange.allow(reply.most_bytes)
            await done
        finally:
            exchange.stop()
        return reply

    def _ask(self, reply: Reply | FileReply, request: bytes) -> asyncio.Future[None]:
        if not self.dead and not self._overran and self._killing is None:
            return self._exchange.ask(reply, request)
        done = self._exchange.ask(reply, None)
        self._exchange.end("memory" if self._overran else "died")
        return done

    def interrupt(self) -> None:
        """Interrupt the cell that runs, if one does, as Ctrl-C would. Code may catch it and go on."""
        if self._exchange.asked and self._child is not None and not self.dead:
            kill(self._child.pidfd, signal.SIGINT)

    def _on_timeout(self, reply: Reply, interrupts: int = 0) -> None:
        if interrupts == _INTERRUPTS:
            self._exchange.end("timeout")
            return
        reply.interrupted = True
        pause = self._limits.grace_seconds / _INTERRUPTS
        self._exchange.call_later(pause, self._on_timeout, reply, interrupts + 1)
        self.interrupt()

    def _watch_memory(self) -> None:
        """From the first cell on, also between cells: what they have left may go on."""
        if self._watched is not None:
            self._watched.running = True
        elif self._process is not None:
            limits = self._limits
            self._watched = self._watch.add(
                self._process,
                limits.memory_bytes,
                limits.memory_in_sum_bytes,
                group=self._group if self.grouped else None,
                own_network=self._zygote.tier in (1, 2),
                overrun=self._on_overrun,
            )

    def _on_overrun(self) -> None:
        self._overran = True
        self._exchange.end("memory")
        if self._child is not None:
            kill(self._child.pidfd)

    async def _status(self) -> int | None:
        assert self._child is not None
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._child.status), _STATUS_SECONDS)
        return None

    async def kill(self) -> None:
        """End the process and all that it started, and wait until it is gone. Safe to call again."""
        if self._killing is None:
            self._killing = asyncio.create_task(self._end())
        self._exchange.end("died")
        # Shielded: a second cancellation does not leave half of the work undone.
        await asyncio.shield(self._killing)

    async def _end(self) -> None:
        if self._watched is not None:
            self._watch.remove(self._watched)
        if self._child is not None:
            pidfd = self._child.pidfd
            if self._zygote.tier == 0 and not self.dead:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)
            kill(pidfd)
            asyncio.get_running_loop().remove_reader(pidfd)
            await readable(pidfd)
            self.dead = True
            os.close(pidfd)
            self._child = None
        if self._group is not None:
            await self._group.remove()
        self._exchange.close()
        if self._zygote.tier in (0, 3):
            await removal.remove(self._folder)
        if self._user is not None:
            users.release(self._user)
            self._user = None
