"""What a kernel is asked over its wire, one thing after the other, and what it answers."""

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

_OTHER_BYTES, _OTHER_FRAMES = 512 << 10, 4_096  # of a cell, beside its output: value, error, frames' heads


class Exchange:
    """The host's side of a kernel's wire.

    Args:
        output_chars: of a cell that are kept; see `Limits`.
        on_start: called with kind and text of each frame until `has_started`. May raise GarbageError.
        on_failure: called if what comes until then is not of the wire's form.

    Attributes:
        serial: the number of the latest request; 0 before the first.
    """

    def __init__(
        self, output_chars: int, on_start: Callable[[int, str], None], on_failure: Callable[[Exception], None]
    ) -> None:
        # What the real kernel says of a cell is less than this: four bytes a character, and most frames full.
        self._decoder = wire.Decoder(_OTHER_BYTES + 4 * output_chars, _OTHER_FRAMES + output_chars // 256)
        self._on_start = on_start
        self._on_failure = on_failure
        self._starting = True
        self._channel: Channel | None = None
        self._reply: Reply | FileReply | None = None
        self._done: asyncio.Future[None] | None = None  # of the request that the kernel is at work on
        self._timer: asyncio.TimerHandle | None = None
        self.serial = 0

    def open(self, requests: int, replies: int) -> None:
        """Take the host's ends of the two pipes, which `close` closes."""
        self._channel = Channel(requests, replies, self._on_data)

    def begin(self, settings: bytes) -> None:
        """Send the settings, and read what comes."""
        assert self._channel is not None
        self._channel.send(settings)
        self._channel.start_reading()

    def has_started(self) -> None:
        """The kernel is ready: from now on it only answers."""
        assert self._channel is not None
        self._starting = False
        self._channel.stop_reading()

    @property
    def asked(self) -> bool:
        """Whether the kernel is at work on a request."""
        return self._done is not None

    def next(self) -> int:
        """The serial of a new request."""
        self.serial += 1
        return self.serial

    def ask(self, reply: Reply | FileReply, request: bytes | None) -> asyncio.Future[None]:
        """Send a request, of the serial that was given out last. Returns what is done when `reply` has its ending.

        Whoever calls this calls `stop` afterwards. None for a request that there is nobody to answer.
        """
        assert self._channel is not None
        self._reply = reply
        done = self._done = asyncio.get_running_loop().create_future()
        if request is not None:
            self._channel.send(request)
            self._channel.start_reading()
        return done

    def allow(self, more_bytes: int = 0) -> None:
        """Let the kernel say as much as of any request, and so many bytes of images or of a file."""
        self._decoder.allow(more_bytes)

    def call_later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call something, unless the request is over by then. One call at a time."""
        self._timer = asyncio.get_running_loop().call_later(seconds, call, *arguments)

    def end(self, ending: str) -> None:
        """The request, if there is one, is over."""
        if self._done is not None and not self._done.done() and self._reply is not None:
            self._reply.ending = ending
            self._done.set_result(None)

    def stop(self) -> None:
        """Nobody waits for the request any more: read nothing until the next."""
        self._done = None
        if self._channel is not None:
            self._channel.stop_reading()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def read(self) -> bool:
        """Read at once what has come, or some of it. Returns whether there was something."""
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
            self._fail(f"the new kernel does not speak as it should: {error}", "garbage")
        except FloodError:
            self._fail("the new kernel does not stop speaking", "flood")

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
