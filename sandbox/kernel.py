"""One kernel on the host's side: have it forked, run cells in it, kill it.

The protocol is Jupyter's. A hostile kernel sits at the other end of the sockets: messages are bounded in size and
number, and a lost connection is not sought again. The listening sockets are made here, in a folder that only this
user can enter, and handed over as descriptors: no kernel sees a name that leads to another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox import isolation, memory
from sandbox.cgroups import Group, Groups
from sandbox.channel import Channel
from sandbox.errors import KernelProtocolError, KernelStartError
from sandbox.inside import zmtp
from sandbox.inside.wire import GarbageError, Wire
from sandbox.limits import Limits
from sandbox.reply import Reply
from sandbox.zygote import Child, Zygote, kill, readable

_REPORT_BYTES = 64 << 10
_STATUS_SECONDS = 1.0  # how long the zygote may take to tell how a process ended that is known to have ended
_WATCH_SECONDS = 0.25  # between two looks at the memory of a cell's processes
_STRANGER_CHARS = 20  # what a message that belongs to no cell counts for against a flood
_OUR_LIMITS = ("memory_bytes", "processes", "disk_bytes", "inodes", "open_files", "output_chars", "printed_chars")


class Kernel:
    """A kernel process. Made by `start`; whoever has it calls `kill`.

    Args:
        folder: a place of the host's for it; made and removed here.
        limits: what it may use.
        zygote: what it is forked from.
        groups: where it gets cgroups of its own, if there are any.
    """

    def __init__(self, folder: Path, limits: Limits, zygote: Zygote, groups: Groups) -> None:
        self._folder = folder
        self._limits = limits
        self._zygote = zygote
        self._groups = groups
        self._group: Group | None = None
        self._child: Child | None = None
        self._channels: list[Channel] = []
        self._something = asyncio.Event()  # to read, or the end of the process, or of a cell's time
        self._report: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.TimerHandle | None = None
        self._late = False
        self._killing: asyncio.Task[None] | None = None
        self._wire = Wire(b"", "host")
        self.dead = False
        self.grouped = False  # in cgroups of its own
        self.cells = 0

    @property
    def doomed(self) -> bool:
        """Whether its zygote has died, which takes it along: its own end may be heard of a moment later."""
        return self._zygote.dead

    async def start(self) -> None:
        """Have the process forked and connect to it.

        Raises:
            KernelStartError: it did not come up in `Limits.start_seconds`, or is not as isolated as it should
                be; the message has the reason.
            KernelProtocolError: it came up and does not speak Jupyter.

        However it fails, and when cancelled, nothing is left.
        """
        seconds = self._limits.start_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._launch()
                self._connect()
                await self._await_report()
                await self._await_welcome()
        except TimeoutError:
            await self.kill()
            raise KernelStartError(f"the kernel was not ready after {seconds:g} s") from None
        except GarbageError as error:
            await self.kill()
            raise KernelProtocolError(f"the new kernel does not speak Jupyter: {error}") from error
        except BaseException:
            await self.kill()
            raise
        # From here on the names are not needed any more.
        for name in ("shell", "iopub"):
            (self._folder / name).unlink()

    async def _launch(self) -> None:
        self._folder.mkdir(mode=0o711)
        tier, key = self._zygote.tier, secrets.token_hex(16)
        self._wire = Wire(key.encode(), "host")
        home = isolation.HOME
        if tier in (0, 3):
            own = self._folder / "home"
            own.mkdir(mode=0o700)
            home = str(own)
        settings = {
            "key": key,
            "uid": isolation.own_uid(),
            "home": home,
            "temporary": "/tmp" if tier in (1, 2) else home,
            **{name: getattr(self._limits, name) for name in _OUR_LIMITS},
        }
        given: list[int] = []
        settings_read, settings_write = os.pipe()
        self._report, report_write = os.pipe()
        given += settings_read, report_write
        try:
            os.write(settings_write, json.dumps(settings).encode())
            os.close(settings_write)
            for name in ("shell", "iopub"):
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(self._folder / name))
                    listener.listen(1)
                    given.append(os.dup(listener.fileno()))
            if (group := self._groups.make(self._limits)) is not None:
                self._group = group
                given += group.entries
            self._child = await self._zygote.fork(given)
        finally:
            for descriptor in given:
                os.close(descriptor)
        asyncio.get_running_loop().add_reader(self._child.pidfd, self._ended)

    def _ended(self) -> None:
        self.dead = True
        if self._child is not None:
            asyncio.get_running_loop().remove_reader(self._child.pidfd)
        self._something.set()

    async def _await_report(self) -> None:
        assert self._report is not None
        said = b""
        while len(said) < _REPORT_BYTES:
            await readable(self._report)
            piece = os.read(self._report, 4096)
            if not piece:
                break
            said += piece
        self._close_report()
        if not said:
            raise KernelStartError("the kernel ended at its start")
        told = json.loads(said)
        if "error" in told:
            raise KernelStartError(f"the kernel could not be isolated: {told['error']}")
        if told["leaks"]:
            raise KernelStartError(f"the isolation does not hold here: {'; '.join(told['leaks'])}")
        self.grouped = self._group is not None and "outside" not in told
        if "outside" in told:
            self._groups.give_up(f"a kernel could not enter its own: {told['outside']}")

    def _close_report(self) -> None:
        report, self._report = self._report, None
        if report is not None:
            os.close(report)

    def _connect(self) -> None:
        # A reply holds a value and an error, each in the worst case four bytes or an escape per character.
        most = 1_000_000 + 32 * self._limits.output_chars
        self._shell = Channel(self._folder / "shell", "DEALER", most, self._something.set)
        self._channels.append(self._shell)
        self._iopub = Channel(self._folder / "iopub", "SUB", most, self._something.set)
        self._channels.append(self._iopub)
        self._iopub.send([zmtp.SUBSCRIBE_TO_ALL])

    async def _await_welcome(self) -> None:
        with self._listening():
            while True:
                self._something.clear()
                for message in self._received():
                    if message["header"]["msg_type"] == "iopub_welcome":
                        return
                if self.dead:
                    raise KernelStartError("the kernel ended at its start")
                await self._something.wait()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Read from the kernel. At other times what it has to say waits, and then it does."""
        for channel in self._channels:
            channel.listen()
        try:
            yield
        finally:
            for channel in self._channels:
                channel.rest()

    async def run(self, code: str, cell: int, stdin: str, timeout: float, seed: int | None) -> Reply:
        """Run one cell. The kernel is usable afterwards only if `ending` is "reply".

        Args:
            code: the cell, without lone surrogates.
            cell: its number in the session, for tracebacks.
            stdin: all of its standard input.
            timeout: seconds before it is interrupted; it is given up `Limits.grace_seconds` later.
            seed: where its random numbers start, 32 bits; None to go on with those there are.

        When cancelled the cell goes on running: the caller kills the kernel.
        """
        self.cells += 1
        reply = Reply("reply")
        content = {
            "code": code,
            "silent": True,  # what it printed and its value come with less ado
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        asked = {"cell": cell, "stdin": stdin, "seed": seed}
        request, frames = self._wire.message("execute_request", content, None, asked)
        self._set_timer(timeout)
        self._watch(reply)
        try:
            with self._listening():
                self._shell.send(frames)
                await self._hear_out(reply, request)
        except GarbageError:
            reply.ending = "garbage"
        finally:
            self._set_timer(None)
            self._watch(None)
        if reply.ending in ("reply", "died") and self._has_overflowed():
            reply.ending = "memory"
        if reply.ending == "died":
            reply.status = await self._status()
        return reply

    def interrupt(self) -> None:
        """Interrupt the cell that runs, if one does, as Ctrl-C would. Code may catch it and go on."""
        if self._timer is not None and self._child is not None:
            kill(self._child.pidfd, signal.SIGINT)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._late = False
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._late = True
        self._something.set()

    def _watch(self, reply: Reply | None) -> None:
        """Look at the memory of the cell's processes every now and then; no more when given None."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if reply is not None:
            self._watcher = asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._look, reply)

    def _look(self, reply: Reply) -> None:
        process = None if self._child is None or self.dead else memory.process_id(self._child.pidfd)
        too_much = process is not None and memory.used_in_sum(process) > self._limits.memory_in_sum_bytes
        if too_much or self._has_overflowed():
            reply.ending = "memory"
            self._something.set()
        else:
            self._watch(reply)

    def _has_overflowed(self) -> bool:
        return self._group is not None and self._group.has_overflowed()

    async def _hear_out(self, reply: Reply, request: str) -> None:
        """Fill in the reply, until the cell is over in one way or another. Raises GarbageError."""
        owed = {"execute_reply", "idle"}
        heard_chars = 0
        while True:
            ended = self.dead  # asked before reading, so that what it said last is still heard
            self._something.clear()
            for message in self._received():
                if message["parent_header"].get("msg_id") != request:
                    heard_chars += _STRANGER_CHARS
                    continue
                kind, content = message["header"]["msg_type"], message["content"]
                if kind == "stream":
                    heard_chars += reply.hear(content)
                elif kind == "status" and content.get("execution_state") == "idle":
                    owed.discard("idle")
                elif kind == "execute_reply" and kind in owed:
                    owed.discard(kind)
                    reply.content = content
            if heard_chars > 4 * self._limits.output_chars + 1_000:  # the real kernel keeps to a quarter
                reply.ending = "flood"
                return
            if not owed or reply.ending == "memory":
                return
            if ended or self._killing is not None:
                reply.ending = "died"
                return
            if self._late:
                if reply.interrupted or self._child is None:
                    reply.ending = "timeout"
                    return
                reply.interrupted = True
                self._set_timer(self._limits.grace_seconds)
                kill(self._child.pidfd, signal.SIGINT)
            await self._something.wait()

    async def _status(self) -> int | None:
        assert self._child is not None
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._child.status), _STATUS_SECONDS)
        return None

    def _received(self) -> list[dict[str, Any]]:
        """The messages that have come in, at most some 64 KiB at a time. Raises GarbageError."""
        # iopub first: what was printed is sent before the reply, and so is not missed.
        received = [frames for channel in reversed(self._channels) for frames in channel.received()]
        return [self._wire.read(frames) for frames in received]

    async def kill(self) -> None:
        """End the process and all that it started, and wait until it is gone. Safe to call again."""
        if self._killing is None:
            self._killing = asyncio.create_task(self._end())
        self._something.set()
        # Shielded: a second cancellation does not leave half of the work undone.
        await asyncio.shield(self._killing)

    async def _end(self) -> None:
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
        for channel in self._channels:
            channel.close()
        self._close_report()
        shutil.rmtree(self._folder, ignore_errors=True)
