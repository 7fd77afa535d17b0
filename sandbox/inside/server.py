"""The kernel: answers Jupyter's requests on sockets that it was given, one cell at a time.

It shares a process with the model's code, which may change any of it: it makes results readable and bounded early,
and the host trusts none of it.

Of the five channels there are shell and iopub. The host interrupts by a signal (Jupyter's ``interrupt_mode:
signal``), ends a kernel by killing it, and hears of its death from Linux: control and heartbeat have nothing to say.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any

from . import zmtp
from .shell import Shell
from .wire import VERSION, GarbageError, Wire

_REQUEST_BYTES = 256 << 20  # the host may send a long cell, or much standard input; memory is limited elsewhere


class Connection:
    """The kernel's end of one channel, to whoever connects first.

    Args:
        listener: the descriptor of a listening socket.
        kind: the kind of ZeroMQ's socket to be.
    """

    def __init__(self, listener: int, kind: str) -> None:
        with socket.socket(fileno=listener) as waiting:
            self._socket, _ = waiting.accept()
        self._decoder = zmtp.Decoder(_REQUEST_BYTES)
        self._messages: list[list[bytes]] = []
        self._lock = threading.Lock()  # code may print from any thread
        self._socket.sendall(zmtp.opening(kind))

    def send(self, frames: list[bytes]) -> None:
        """Send a message."""
        with self._lock:
            self._socket.sendall(zmtp.encode(frames))

    def receive(self) -> list[bytes]:
        """Wait for a message. Raises EOFError when the other side is gone."""
        while not self._messages:
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._messages = self._decoder.feed(data)
        return self._messages.pop(0)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Server:
    """One kernel's end of the connection.

    Args:
        shell: what runs the cells.
        settings: of this kernel; the key is taken from them.
        listeners: descriptors of two listening sockets: shell, iopub.
    """

    def __init__(self, shell: Shell, settings: dict[str, Any], listeners: list[int]) -> None:
        self.shell = shell
        self.wire = Wire(settings["key"].encode(), "kernel")
        self.output = shell.open_output(settings)
        self.output.send = lambda content: self.publish("stream", content)
        self.parent: dict[str, Any] = {}
        self.running = False
        self.process = os.getpid()
        self._listeners = listeners
        shell.kernel = self

    def connect(self) -> None:
        """Wait until the host is there and listens to iopub, and welcome it."""
        shell, iopub = self._listeners
        self.requests = Connection(shell, "ROUTER")
        self.iopub = Connection(iopub, "XPUB")
        self.iopub.receive()  # the subscription
        self.publish("iopub_welcome", {"subscription": ""})

    def publish(self, kind: str, content: dict[str, Any]) -> None:
        """Send to iopub."""
        self.iopub.send([kind.encode(), *self.wire.message(kind, content, self.parent)[1]])

    def serve(self) -> None:
        """Answer requests until told to shut down."""
        signal.signal(signal.SIGINT, self._interrupt)
        while True:
            try:
                message = self.wire.read(self.requests.receive())
            except GarbageError:
                continue
            except EOFError:
                return
            self.parent = message["header"]
            kind = self.parent["msg_type"]
            self.publish("status", {"execution_state": "busy"})
            content: dict[str, Any] = {}
            if kind == "execute_request":
                content = self._execute(message)
            elif kind == "kernel_info_request":
                content = _INFORMATION
            if content or kind == "shutdown_request":
                _, frames = self.wire.message(kind.replace("request", "reply"), content, self.parent)
                self.requests.send([*message["identities"], *frames])
            self.publish("status", {"execution_state": "idle"})
            if kind == "shutdown_request":
                return

    def _execute(self, message: dict[str, Any]) -> dict[str, Any]:
        content, extra = message["content"], message["metadata"]
        if not content.get("silent"):
            count = self.shell.execution_count
            self.publish("execute_input", {"code": content["code"], "execution_count": count})
        self.output.begin()
        signal.signal(signal.SIGINT, self._interrupt)  # the last cell may have set another
        reply = {"status": "error", "outcome": "error", "error": "KeyboardInterrupt"}
        try:
            self.running = True
            try:
                reply = self.shell.run(content["code"], extra.get("cell", 1), extra.get("stdin", ""), extra.get("seed"))
            finally:
                self.running = False
        except KeyboardInterrupt:  # it came when the cell itself was just over
            pass
        if os.getpid() != self.process:  # a child that the cell has forked, and that has come to its end
            os._exit(0)
        self.output.finish()
        reply["late"] = self.output.take_late()
        if reply.get("value") is not None and not content.get("silent"):
            data = {"text/plain": reply["value"]}
            self.publish("execute_result", {"data": data, "metadata": {}, "execution_count": 0})
        return reply

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.running:
            raise KeyboardInterrupt


_INFORMATION = {
    "status": "ok",
    "protocol_version": VERSION,
    "implementation": "ipython",
    "implementation_version": "9",
    "banner": "",
    "language_info": {
        "name": "python",
        "version": sys.version.split()[0],
        "mimetype": "text/x-python",
        "file_extension": ".py",
    },
}
