"""The host's side of the zygote: start it, have it fork, receive its children's exit statuses, end it.

What runs on the other side is `sandbox.inside.zygote`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sandbox import folders, guardian, isolation, users
from sandbox.errors import KernelStartError, start_error

_MESSAGE_BYTES = 8 << 10


@dataclass(slots=True)
class Child:
    """A forked process.

    Attributes:
        pidfd: what it is watched and killed by; whoever has it closes it.
        pid: its number, as the zygote sees it: good for the host only in tiers 0 and 3.
        status: its exit status (negative: the signal that ended it), once it has ended; None if nobody knows.
    """

    pidfd: int
    pid: int
    status: asyncio.Future[int | None]


class Zygote:
    """A zygote process. Made by `start`; whoever has it calls `close`, after the children were killed.

    Args:
        tier: how it and its kernels are isolated.
        sandbox_folder: the sandbox's folder, for its guardian to remove should the host be killed.
        folder: a place in it for the zygote; made and removed here.
        preload: modules for it to import.
    """

    def __init__(self, tier: isolation.Tier, sandbox_folder: Path, folder: Path, preload: Sequence[str]) -> None:
        self.tier = tier
        self._sandbox_folder = sandbox_folder
        self._folder = folder
        self._preload = preload
        self._guardian: subprocess.Popen[bytes] | None = None
        self._stop: int | None = None
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._forking: dict[int, asyncio.Future[Child]] = {}
        self._running: dict[int, asyncio.Future[int | None]] = {}
        self._names = 0
        self._error = ""
        self._errors: IO[bytes] | None = None
        self.dead = False

    async def start(self, seconds: float) -> None:
        """Start it and wait until it is warm.

        Raises:
            SandboxUnavailable: this machine lacks what the tier needs.
            KernelStartError: it failed, or took longer; the message has the reason. Nothing is left then.
        """
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        try:
            async with asyncio.timeout(seconds):
                self._launch()
                await self._ready
        except TimeoutError:
            await self.close()
            raise KernelStartError(f"the zygote was not ready after {seconds:g} s") from None
        except OSError as error:
            await self.close()
            raise start_error(error) from error
        except BaseException:
            await self.close()
            raise

    def _launch(self) -> None:
        (self._folder / "root").mkdir(mode=0o700, parents=True)
        (self._folder / "home").mkdir(mode=0o711)
        etc = self._folder / "etc"
        etc.mkdir(mode=0o711)
        for name, text in isolation.names(users.changes_users(), os.geteuid()).items():
            (etc / name).write_text(text)
            (etc / name).chmod(0o644)  # whatever this process's umask is
        inside = isolation.python_command(str(isolation.inside))
        program = isolation.bubblewrap_command(etc) if self.tier == 1 else inside
        home = isolation.HOME if self.tier in (1, 2) else str(self._folder / "home")
        environment = isolation.environment(home)
        if self.tier == 3:
            environment["JOBLIB_MULTIPROCESSING"] = "0"  # no child processes, of which joblib would warn
        with contextlib.ExitStack() as theirs:
            mine, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.enter_context(end)
            self._control = mine
            mine.setblocking(False)
            asyncio.get_running_loop().add_reader(mine.fileno(), self._on_readable)
            self._errors = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed in `close`
            stop, self._stop = os.pipe()
            theirs.callback(os.close, stop)
            host = os.pidfd_open(os.getpid())
            theirs.callback(os.close, host)
            self._guardian = subprocess.Popen(
                guardian.command(host, stop, self._sandbox_folder, program),
                stdin=end.fileno(),
                stdout=self._errors,
                stderr=self._errors,
                env=environment,
                cwd="/",
                pass_fds=(host, stop),
                start_new_session=True,  # Ctrl-C is for us to handle, and what kills us and our group is not to kill it
            )
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which `_on_readable` finds out
            mine.send(json.dumps(self._world(self._guardian.pid)).encode())

    def _world(self, parent: int) -> dict[str, Any]:
        rooted = self.tier in (1, 2)
        return {
            "tier": self.tier,
            "parent": parent,
            "preload": list(self._preload),
            "mounts": isolation.mounts(self._folder / "etc") if self.tier == 2 else [],
            "new_root": str(self._folder / "root"),
            "writable": isolation.WRITABLE,
            "python": isolation.hidden_python() if rooted else [],
            "readable": isolation.readable() if self.tier == 3 else [],
            "namespaces": isolation.namespaces(),
            "changes_users": users.changes_users(),
            # No isolation, and a Python of root's alone: kernels, which are other users, may read what root may.
            "reads_all": self.tier == 0 and isolation.hidden_from_others() is not None,
            "canaries": [str(self._sandbox_folder / folders.CANARY), "/etc/shadow"],
        }

    def _on_readable(self) -> None:
        """Receive what the zygote has sent. It is trusted: no kernel has this connection."""
        assert self._control is not None and self._ready is not None
        while not self.dead:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._on_end()
                return
            message = json.loads(data)
            if "forked" in message:
                self._on_forked(message["forked"], message["pid"], descriptors)
            elif "failed" in message:
                self._fail(message["failed"], start_error(OSError(message["errno"], message["reason"])))
            elif "ended" in message:
                if (ended := self._running.pop(message["ended"], None)) is not None and not ended.done():
                    ended.set_result(message["status"])
            elif "error" in message:
                self._error = message["error"]
            elif not self._ready.done():
                if message["ready"] == sys.version:
                    self._ready.set_result(None)
                else:
                    other = KernelStartError(f"code would run in another Python, {message['ready']}, not {sys.version}")
                    self._ready.set_exception(other)

    def _on_forked(self, name: int, pid: int, descriptors: list[int]) -> None:
        """A process was forked. Linux leaves its descriptor out if there is no room: then the zygote ends it."""
        status = self._running[name] = asyncio.get_running_loop().create_future()
        if not descriptors:
            error = start_error(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            status.add_done_callback(lambda _: self._fail(name, error))
            assert self._control is not None
            with contextlib.suppress(OSError):  # the zygote is dead, and its children with it
                self._control.send(f"-{name}".encode())
            return
        waiting = self._forking.pop(name)
        child = Child(descriptors[0], pid, status)
        if waiting.cancelled():
            _end(child)
        else:
            waiting.set_result(child)

    def _fail(self, name: int, error: KernelStartError) -> None:
        waiting = self._forking.pop(name, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def _on_end(self) -> None:
        self.dead = True
        assert self._control is not None and self._ready is not None
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        error = KernelStartError(f"the zygote ended: {self._last_message()}")
        every: list[asyncio.Future[Any]] = [self._ready, *self._forking.values()]
        for waiting in every:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # seen: asyncio need not complain where nobody waits
        for status in self._running.values():
            if not status.done():
                status.set_result(None)
        self._forking.clear()
        self._running.clear()

    def _last_message(self) -> str:
        if self._error or self._errors is None:
            return self._error or "no message"
        self._errors.seek(0)
        lines = self._errors.read(64 << 10).decode("utf-8", "replace").strip().splitlines()
        return str(lines[-1]) if lines else "no message"

    async def fork(self, descriptors: Sequence[int]) -> Child:
        """A new kernel process with these descriptors: its ends of the wire, and the ways into its cgroups.

        Few at once (`sandbox.capacity`): requests wait in a socket's buffer. When cancelled, the process is killed as
        it comes up.

        Raises:
            KernelStartError: the zygote has died, or cannot fork; HostFull where that is for want of room.
        """
        if self.dead or self._control is None:
            raise KernelStartError("the zygote is dead")
        self._names += 1
        waiting: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._forking[self._names] = waiting
        try:
            socket.send_fds(self._control, [str(self._names).encode()], list(descriptors))
        except OSError as error:
            self._forking.pop(self._names, None)
            raise start_error(error) from error
        try:
            return await waiting
        except asyncio.CancelledError:
            if not waiting.cancelled() and waiting.exception() is None:  # it came up in the same turn
                _end(waiting.result())
            raise

    async def close(self) -> None:
        """End it and all that it has forked, and wait until they are gone. Safe to call again."""
        if self._control is not None:
            if not self.dead:
                self._on_end()
            self._control.close()
            self._control = None
        stop, self._stop = self._stop, None
        if stop is not None:
            # Not only closed: the end of the pipe may be open in a process that this one has forked.
            with contextlib.suppress(BrokenPipeError):
                os.write(stop, b"x")
            os.close(stop)
        guard, self._guardian = self._guardian, None
        if guard is not None:
            await ended(guard)
        if self._errors is not None:
            self._errors.close()
        guardian.remove(self._folder)


async def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait until a child of this process has ended."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:  # no descriptor is left
        await asyncio.to_thread(process.wait)
        return
    try:
        await readable(pidfd)
    finally:
        os.close(pidfd)
    process.wait()


def _end(child: Child) -> None:
    kill(child.pidfd)
    os.close(child.pidfd)


def kill(pidfd: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read: for a pidfd, until its process is gone."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
