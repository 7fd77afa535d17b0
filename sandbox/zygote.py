"""The host's handle of the zygote: start it, request forks, receive exit statuses, stop it.

The zygote itself is `sandbox.inside.zygote`.
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
        pidfd: for watching and killing it; the owner must close it.
        pid: its process id as seen by the zygote; valid on the host only in tiers 0 and 3.
        status: its exit status (negative: the signal that ended it), set when it has ended; None if unknown.
    """

    pidfd: int
    pid: int
    status: asyncio.Future[int | None]


class Zygote:
    """A zygote process, started by `start`. The owner must call `close` after its children were killed.

    Args:
        tier: isolation of the zygote and its kernels.
        sandbox_folder: the sandbox's folder, which the guardian removes if the host is killed.
        folder: a folder in it for the zygote; created and removed here.
        preload: modules to import.
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
        """Start it and wait until it is ready.

        Args:
            seconds: timeout.

        Raises:
            SandboxUnavailable: this machine lacks what the tier needs.
            KernelStartError: it failed or timed out; the message has the reason. Nothing is left behind.
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
            (etc / name).chmod(0o644)  # independent of this process's umask
        inside = isolation.python_command(str(isolation.inside))
        program = isolation.bubblewrap_command(etc) if self.tier == 1 else inside
        home = isolation.HOME if self.tier in (1, 2) else str(self._folder / "home")
        environment = isolation.environment(home)
        if self.tier == 3:
            environment["JOBLIB_MULTIPROCESSING"] = "0"  # or joblib would warn that it cannot start processes
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
                start_new_session=True,  # neither Ctrl-C nor a kill of our process group should reach it
            )
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which `_on_readable` notices
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
            # Without isolation, and with a Python that only root can read, kernels get root's read access.
            "reads_all": self.tier == 0 and isolation.hidden_from_others() is not None,
            "canaries": [str(self._sandbox_folder / folders.CANARY), "/etc/shadow"],
        }

    def _on_readable(self) -> None:
        """Receive messages from the zygote. They are trusted: no kernel has this connection."""
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
        """A process was forked. Without room for its descriptor, Linux drops it: then ask the zygote to kill it."""
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
                waiting.exception()  # mark as retrieved, so that asyncio does not log it
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
        """Fork a new kernel process.

        `sandbox.capacity` limits concurrent forks, since requests are queued in a socket buffer. When this is
        cancelled, the process is killed as soon as it starts.

        Args:
            descriptors: passed to the process: its ends of the wire and the entries of its cgroups.

        Raises:
            KernelStartError: the zygote has died, or cannot fork; HostFull if no resources are left.
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
            if not waiting.cancelled() and waiting.exception() is None:  # it started in the same iteration
                _end(waiting.result())
            raise

    async def close(self) -> None:
        """Kill it and everything that it has forked, and wait until they are gone. Safe to call again."""
        if self._control is not None:
            if not self.dead:
                self._on_end()
            self._control.close()
            self._control = None
        stop, self._stop = self._stop, None
        if stop is not None:
            # Written, not only closed: a process forked from this one may still hold the pipe open.
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
    """Wait until a descriptor is readable: for a pidfd, until its process has ended."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
