"""One kernel process on the host's side: start it, run cells in it, kill it.

The protocol is Jupyter's, signed and serialised by `jupyter_client`; the sockets are opened here, because a
hostile kernel sits at their other end: messages are bounded in size and number, and a lost connection is not
sought again (the path could by then lead elsewhere).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import isolation
from sandbox.errors import KernelProtocolError, KernelStartError
from sandbox.limits import Limits

if TYPE_CHECKING:
    import zmq.asyncio

_REASON_BYTES = 64 << 10
_CHANNELS = {"shell": 1, "iopub": 2, "control": 4}


class GarbageError(Exception):
    """The kernel sent something that is not a Jupyter message. Never leaves this package."""


@dataclass(slots=True)
class Reply:
    """What the host heard of one cell.

    Attributes:
        ending: "reply" when the kernel answered, else "timeout", "died", "flood" or "garbage".
        interrupted: whether its time was up and it was interrupted.
        head, tail, omitted: the printed text and the number of characters missing in between.
        content: the kernel's answer, unchecked but for being a dict; empty without one.
        status: how the process ended, as bubblewrap reports it; None unless it died.
    """

    ending: str
    interrupted: bool = False
    head: str = ""
    tail: str = ""
    omitted: int = 0
    content: dict[str, Any] = field(default_factory=dict)
    status: int | None = None


class Kernel:
    """A kernel process. Made by `start`; whoever has it calls `kill`."""

    def __init__(
        self, folder: Path, limits: Limits, isolated: bool, canary: Path, context: zmq.asyncio.Context
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._isolated = isolated
        self._canary = canary
        self._context = context
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfds: list[int] = []
        self._info: int | None = None
        self._sockets: dict[str, zmq.asyncio.Socket] = {}
        self._killing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process and connect to it.

        Raises:
            KernelStartError: it did not come up in `Limits.start_seconds`, or is not as isolated as it should
                be; the message has the reason.
            KernelProtocolError: it came up and does not speak Jupyter.

        However it fails, and when cancelled, nothing is left.
        """
        try:
            async with asyncio.timeout(self._limits.start_seconds):
                await self._launch()
                await self._connect()
        except TimeoutError:
            await self.kill()
            seconds = self._limits.start_seconds
            raise KernelStartError(f"the kernel was not ready after {seconds:g} s") from None
        except GarbageError as error:
            await self.kill()
            raise KernelProtocolError(f"the new kernel does not speak Jupyter: {error}") from error
        except BaseException:
            await self.kill()
            raise
        # From here on the names are not needed any more, and whoever runs in there cannot play with them.
        shutil.rmtree(self._folder / "sockets", ignore_errors=True)

    @property
    def dead(self) -> bool:
        """Whether its process has ended."""
        return self._process is None or self._process.poll() is not None

    async def _launch(self) -> None:
        sockets, home = self._folder / "sockets", self._folder / "home"
        sockets.mkdir(mode=0o700, parents=True)
        uid = isolation.own_uid() if self._isolated else None
        if uid is not None:
            os.chown(sockets, uid, uid)
        self._key = secrets.token_hex(16)
        settings = {
            "key": self._key,
            "uid": uid,
            "host": os.getpid(),
            "isolated": self._isolated,
            "sockets": f"{isolation.SOCKETS if self._isolated else sockets}/k",
            "canary": str(self._canary),
            "namespaces": isolation.namespaces(),
            **{name: getattr(self._limits, name) for name in isolation.INSIDE_LIMITS},
        }
        self._info, info_write = os.pipe()
        try:
            if self._isolated:
                command = isolation.bubblewrap_command(sockets, self._limits, info_write)
                environment = isolation.environment(isolation.HOME)
            else:
                home.mkdir(mode=0o700)
                command = isolation.python_command(str(isolation.inside))
                environment = isolation.environment(str(home))
            self._process = subprocess.Popen(  # noqa: ASYNC220 - forked from the loop's own thread, see below
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/" if self._isolated else home,
                pass_fds=(info_write,) if self._isolated else (),
                # Not in our process group: Ctrl-C is for us to handle. Not from another thread: the child
                # would be killed at that thread's end, not at the end of the process.
                start_new_session=True,
            )
        except OSError as error:
            raise KernelStartError(f"{command[0]} cannot be run: {error.strerror}") from error
        finally:
            os.close(info_write)
        self._pidfds.append(os.pidfd_open(self._process.pid))
        await self._learn_first_process()
        await self._await_ready(settings)

    async def _learn_first_process(self) -> None:
        """Hear from bubblewrap which process is the first in the new namespace.

        Killing that one ends all of the namespace before it is itself gone. Until it is known nothing may be
        killed: bubblewrap's child would be left waiting for its parent.
        """
        said = b""
        # To the end: bubblewrap would die of a pipe closed too early.
        while self._info is not None:
            await _readable(self._info)
            piece = os.read(self._info, 4096)
            said += piece
            if not piece:
                os.close(self._info)
                self._info = None
        if found := re.search(rb'"child-pid": (\d+)', said):
            with contextlib.suppress(ProcessLookupError):
                self._pidfds.insert(0, os.pidfd_open(int(found[1])))

    async def _await_ready(self, settings: dict[str, Any]) -> None:
        """Send the settings, wait for the line that says all is bound; then close the pipes."""
        assert self._process is not None and self._process.stdin and self._process.stdout
        reader = asyncio.StreamReader(limit=_REASON_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        try:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(json.dumps(settings).encode() + b"\n")
            said = b""
            while line := await reader.readline():
                if line.startswith(b'{"ready"'):
                    break
                said = (said + line)[-_REASON_BYTES:]
            else:
                words = said.decode("utf-8", "replace").strip().splitlines()
                raise KernelStartError(f"the kernel ended at its start: {words[-1] if words else 'no word'}")
            leaks = json.loads(line)["leaks"]
            if leaks:
                raise KernelStartError(f"the isolation does not hold here: {'; '.join(leaks)}")
        except ValueError as error:  # a line longer than the limit, or no JSON
            raise GarbageError(str(error)) from error
        finally:
            transport.close()

    async def _connect(self) -> None:
        import zmq
        from jupyter_client.session import Session

        self._session = Session(key=self._key.encode(), username="host")
        for name, port in _CHANNELS.items():
            socket = self._context.socket(zmq.SUB if name == "iopub" else zmq.DEALER)
            self._sockets[name] = socket
            socket.linger = 0
            socket.rcvhwm = 256
            socket.sndtimeo = 0
            # Not sought again in a kernel's life; never (-1) makes libzmq 4.3 abort when a peer vanishes.
            socket.reconnect_ivl = 100_000_000
            # A reply holds a value and an error, each in the worst case four bytes or an escape per character.
            socket.setsockopt(zmq.MAXMSGSIZE, 1_000_000 + 32 * self._limits.output_chars)
            if name == "iopub":
                socket.subscribe(b"")
            socket.connect(f"ipc://{self._folder}/sockets/k-{port}")
        for name in ("shell", "control"):
            self._session.send(self._sockets[name], "kernel_info_request")
        for name, kind in (
            ("shell", "kernel_info_reply"),
            ("control", "kernel_info_reply"),
            ("iopub", "iopub_welcome"),
        ):
            while self._decode(await self._sockets[name].recv_multipart())["msg_type"] != kind:
                pass

    def _decode(self, frames: list[bytes]) -> dict[str, Any]:
        """A message from what came in. Raises GarbageError, whatever is wrong with it."""
        try:
            message = self._session.deserialize(self._session.feed_identities(frames, copy=True)[1])
            parent = message["parent_header"].get("msg_id")
            if not isinstance(message["content"], dict) or not isinstance(message["msg_type"], str):
                raise TypeError("no content")
            message["parent"] = parent
        except Exception as error:  # what a hostile kernel can make a decoder raise has no end
            raise GarbageError(f"{type(error).__name__} in decoding a message") from error
        return dict(message)

    async def run(self, code: str, cell: int, stdin: str, timeout: float) -> Reply:
        """Run one cell. The kernel is usable afterwards only if `ending` is "reply".

        Args:
            code: the cell, without lone surrogates.
            cell: its number in the session, for tracebacks.
            stdin: all of its standard input.
            timeout: seconds before it is interrupted; it is given up `Limits.grace_seconds` later.

        When cancelled the cell goes on running: the caller kills the kernel.
        """
        import zmq
        import zmq.asyncio

        reply = Reply("reply")
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        owed = {"execute_reply", "idle"}
        heard_chars = 0
        poller = zmq.asyncio.Poller()
        for socket in self._sockets.values():
            poller.register(socket, zmq.POLLIN)
        poller.register(self._pidfds[-1], zmq.POLLIN)
        try:
            request = self._send("shell", "execute_request", content, {"cell": cell, "stdin": stdin})
            requests = {request}
            deadline = time.monotonic() + timeout
            while owed:
                left = deadline - time.monotonic()
                if left <= 0 and reply.interrupted:
                    reply.ending = "timeout"
                    break
                if left <= 0:
                    reply.interrupted = True
                    deadline += self._limits.grace_seconds
                    # Its answer is awaited too: an interrupt still under way would hit the next cell.
                    owed.add("interrupt_reply")
                    requests.add(self._send("control", "interrupt_request", {}))
                    continue
                await poller.poll(max(1, int(left * 1000)))
                ended = self.dead  # asked before reading, so that what it said last is still heard
                for message in await self._received():
                    if message["parent"] not in requests:
                        continue
                    kind, content = message["msg_type"], message["content"]
                    if kind == "stream":
                        heard_chars += self._hear(reply, content)
                    elif kind == "status" and content.get("execution_state") == "idle":
                        if message["parent"] == request:
                            owed.discard("idle")
                    elif kind in owed:
                        owed.discard(kind)
                        if kind == "execute_reply":
                            reply.content = content
                if heard_chars > 4 * self._limits.output_chars + 1_000:  # the real kernel keeps to a quarter
                    reply.ending = "flood"
                    break
                if ended and owed:
                    reply.ending = "died"
                    reply.status = self._process.poll() if self._process else None
                    break
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._killing is None or (task is not None and task.cancelling()):
                raise
            reply.ending = "died"  # closing the sockets cancelled us, for someone killed the kernel
        except GarbageError:
            reply.ending = "garbage"
        except zmq.ZMQError:  # nobody at the other end
            reply.ending = "died"
        return reply

    def _send(self, channel: str, kind: str, content: dict[str, Any], metadata: dict[str, Any] | None = None) -> str:
        message: Any = self._session.send(self._sockets[channel], kind, content, metadata=metadata)
        return str(message["header"]["msg_id"])

    async def _received(self) -> list[dict[str, Any]]:
        """What has come in on the three sockets, at most a handful from each. Raises GarbageError."""
        import zmq

        messages = []
        for socket in list(self._sockets.values()):
            with contextlib.suppress(zmq.Again):
                for _ in range(64):
                    messages.append(self._decode(await socket.recv_multipart(zmq.NOBLOCK)))
        return messages

    def _hear(self, reply: Reply, content: dict[str, Any]) -> int:
        text, omitted = content.get("text"), content.get("omitted")
        if not isinstance(text, str):
            raise GarbageError("a stream message without text")
        if omitted is None:
            reply.head += text
        elif isinstance(omitted, int) and 0 <= omitted < 1 << 60:
            reply.tail, reply.omitted = text, omitted
        else:
            raise GarbageError("a stream message with a strange count")
        return len(text) + 1

    async def kill(self) -> None:
        """End the process and all that it started, and wait until it is gone. Safe to call again."""
        for socket in self._sockets.values():
            socket.close()
        self._sockets.clear()
        if self._info is None:
            self._signal()
        if self._killing is None:
            self._killing = asyncio.create_task(self._reap())
        # Shielded: a second cancellation does not leave half of the work undone.
        await asyncio.shield(self._killing)

    def _signal(self) -> None:
        if self._process is not None and not self._isolated:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        for pidfd in self._pidfds[:1]:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def _reap(self) -> None:
        if self._info is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.start_seconds if self._process else 0):
                    await self._learn_first_process()
            self._signal()
        for pidfd in self._pidfds:
            await _readable(pidfd)
            os.close(pidfd)
        self._pidfds.clear()
        if self._info is not None:
            os.close(self._info)
            self._info = None
        if self._process is not None:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)


async def _readable(descriptor: int) -> None:
    """Wait until a descriptor can be read: for a pidfd, until its process is gone."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
