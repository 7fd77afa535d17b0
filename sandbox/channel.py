"""The host's ends of the two pipes to a kernel."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_READ_BYTES = 64 << 10  # per read: the capacity of a pipe, processed in well under a millisecond

# A kernel may write one byte at a time. After this many reads there is a pause after each, so that what arrives
# meanwhile is read at once.
_FREE_READS = 64
_PAUSE_SECONDS = 0.002


class Channel:
    """The host's ends of a kernel's two pipes.

    Args:
        requests: the writing end of the pipe to the kernel.
        replies: the reading end of the pipe from it. Both are closed by `close`.
        call: called with the bytes received; with empty bytes at the end of the stream.
    """

    def __init__(self, requests: int, replies: int, call: Callable[[bytes], None]) -> None:
        self._requests = requests
        self._replies = replies
        self._call = call
        self._unsent = memoryview(b"")
        self._reading = self._registered = self._writing = self._closed = False
        self._reads = 0
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        os.set_blocking(requests, False)
        os.set_blocking(replies, False)

    def start_reading(self) -> None:
        """Start reading. Otherwise output of the kernel stays in the pipe, and the kernel blocks when it is full."""
        self._reading = True
        self._reads = 0
        self._register()

    def stop_reading(self) -> None:
        """Stop reading. The reader stays registered until the kernel next writes: most write only when asked."""
        self._reading = False
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _register(self) -> None:
        if not self._registered:
            self._registered = True
            self._loop.add_reader(self._replies, self._on_readable)

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self._loop.remove_reader(self._replies)

    def _on_readable(self) -> None:
        if self._reading:
            self.read()
        else:
            self._unregister()

    def _go_on(self) -> None:
        self._pause = None
        self._register()

    def read(self) -> bool:
        """Read at most 64 KiB and pass them on. Returns whether there was anything."""
        try:
            data = os.read(self._replies, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._reads += 1
        if not data:  # closed: the loop would call this endlessly
            self.stop_reading()
            self._unregister()
        elif self._reading and self._reads > _FREE_READS and self._pause is None:
            self._unregister()
            self._pause = self._loop.call_later(_PAUSE_SECONDS, self._go_on)
        self._call(data)
        return bool(data)

    def send(self, data: bytes) -> None:
        """Send to the kernel; what does not fit into the pipe is sent as the kernel reads."""
        if self._unsent:
            data = bytes(self._unsent) + data
        self._unsent = memoryview(data)
        self._flush()
        if self._unsent and not self._writing:
            self._writing = True
            self._loop.add_writer(self._requests, self._flush)

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # the kernel is gone, which is noticed elsewhere
            self._unsent = memoryview(b"")
        if self._writing and not self._unsent:
            self._writing = False
            self._loop.remove_writer(self._requests)

    def close(self) -> None:
        """Close both ends. Safe to call again."""
        if not self._closed:
            self._closed = True
            self.stop_reading()
            self._unregister()
            if self._writing:
                self._loop.remove_writer(self._requests)
            os.close(self._requests)
            os.close(self._replies)
