"""Requests to a kernel and its replies, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sandbox.channel import Channel
from sandbox.errors import KernelProtocolError
from sandbox.files import FileReply
from sandbox.inside import wire
from sandbox.inside.wire import FloodError, GarbageError
from sandbox.reply import Reply

_OTHER_BYTES, _OTHER_FRAMES = 512 << 10, 4_096  # of a cell besides its output: value, error, frame headers


class Exchange:
    """The host's side of a kernel's wire.

    Args:
        output_chars: see `Limits`.
        on_start: called with kind and text of each frame until `has_started` is called. May raise GarbageError.
        on_failure: called with the error if a frame until then is invalid.

    Attributes:
        serial: number of the latest request; 0 before the first.
    """

    def __init__(
        self, output_chars: int, on_start: Callable[[int, str], None], on_failure: Callable[[Exception], None]
    ) -> None:
        # A genuine kernel sends less than this for a cell: four bytes per character, most frames full.
        self._decoder = wire.Decoder(_OTHER_BYTES + 4 * output_chars, _OTHER_FRAMES + output_chars // 256)
        self._on_start = on_start
        self._on_failure = on_failure
        self._starting = True
        self._channel: Channel | None = None
        self._reply: Reply | FileReply | None = None
        self._done: asyncio.Future[None] | None = None  # of the current request
        self._timer: asyncio.TimerHandle | None = None
        self.serial = 0

    def open(self, requests: int, replies: int) -> None:
        """Use the host's ends of the two pipes; `close` closes them."""
        self._channel = Channel(requests, replies, self._on_data)

    def begin(self, settings: bytes) -> None:
        """Send the settings and start reading."""
        assert self._channel is not None
        self._channel.send(settings)
        self._channel.start_reading()

    def has_started(self) -> None:
        """The kernel is ready: from now on it only answers requests."""
        assert self._channel is not None
        self._starting = False
        self._channel.stop_reading()

    @property
    def asked(self) -> bool:
        """Whether a request is under way."""
        return self._done is not None

    def next(self) -> int:
        """The serial number of a new request."""
        self.serial += 1
        return self.serial

    def ask(self, reply: Reply | FileReply, request: bytes | None) -> asyncio.Future[None]:
        """Send a request with the latest serial number. The returned future is done once `reply` has an ending.

        The caller calls `stop` afterwards.

        Args:
            reply: receives the frames.
            request: the message; None to send nothing, if the kernel cannot answer any more.
        """
        assert self._channel is not None
        self._reply = reply
        done = self._done = asyncio.get_running_loop().create_future()
        if request is not None:
            self._channel.send(request)
            self._channel.start_reading()
        return done

    def allow(self, more_bytes: int = 0) -> None:
        """Set how much the kernel may send for this request: `more_bytes` of images or of a file besides the rest."""
        self._decoder.allow(more_bytes)

    def call_later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call a function later, unless the request is over by then. One at a time."""
        self._timer = asyncio.get_running_loop().call_later(seconds, call, *arguments)

    def end(self, ending: str) -> None:
        """End the current request, if there is one."""
        if self._done is not None and not self._done.done() and self._reply is not None:
            self._reply.ending = ending
            self._done.set_result(None)

    def stop(self) -> None:
        """Stop reading until the next request."""
        self._done = None
        if self._channel is not None:
            self._channel.stop_reading()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def read(self) -> bool:
        """Read some of what is in the pipe. Returns whether there was anything."""
        return self._channel is not None and self._channel.read()

    def _on_data(self, data: bytes) -> None:
        try:
            frames = self._decoder.feed(data)
            if self._starting:
                for kind, content in frames:
                    self._on_start(kind, content.decode("utf-8", "replace"))
                return
            for kind, content in frames:
                if self._done is None or self._done.done() or self._reply is None:
                    return
                self._reply.feed(kind, content, self.serial)
                if self._reply.ending:
                    self.end(self._reply.ending)
        except GarbageError as error:
            self._fail(f"the new kernel sent an invalid message: {error}", "garbage")
        except FloodError:
            self._fail("the new kernel sent too much", "flood")

    def _fail(self, reason: str, ending: str) -> None:
        if self._starting:
            self._on_failure(KernelProtocolError(reason))
        else:
            self.end(ending)

    def close(self) -> None:
        """Close both pipes. Safe to call again."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
