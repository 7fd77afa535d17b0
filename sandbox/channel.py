"""One connection of a kernel at the host: a socket of asyncio's that speaks ZeroMQ's protocol."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from sandbox.errors import KernelStartError
from sandbox.inside import zmtp


class Channel:
    """The host's end of one channel.

    Args:
        path: of the listening socket.
        kind: the kind of ZeroMQ's socket to be.
        most_bytes: the longest message to accept.
        call: what to call when there is something to read.
    """

    def __init__(self, path: Path, kind: str, most_bytes: int, call: Callable[[], None]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._call = call
        self._decoder = zmtp.Decoder(most_bytes)
        self._unsent = bytearray()
        self._listening = False
        self._loop = asyncio.get_running_loop()
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise KernelStartError(f"cannot connect to the kernel: {error.strerror}") from error
        self._send(zmtp.opening(kind))

    def listen(self) -> None:
        """From now on, call when there is something to read."""
        self._listening = True
        self._loop.add_reader(self._socket.fileno(), self._call)

    def rest(self) -> None:
        """No more calls."""
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._socket.fileno())

    def send(self, frames: list[bytes]) -> None:
        """Send a message: what does not go at once goes when the other side reads."""
        self._send(zmtp.encode(frames))

    def _send(self, data: bytes) -> None:
        self._unsent += data
        self._flush()
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._flush)

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
            del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError:  # nobody there any more, which shows elsewhere
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._socket.fileno())

    def received(self) -> list[list[bytes]]:
        """The messages that have come in. Raises GarbageError."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:  # closed: nothing will come any more, and the reader would call for ever
            self.rest()
        return self._decoder.feed(data)

    def close(self) -> None:
        """Close the connection."""
        self.rest()
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
