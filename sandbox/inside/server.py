"""The kernel: runs cells as the host asks for them, one at a time.

It shares a process with the model's code, which may change any of it: it makes results readable and bounded early,
and the host trusts none of it.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any

from . import wire
from .fork import Fork
from .shell import Shell
from .wire import Outcome, Request


class Server:
    """One kernel's end of the wire.

    Args:
        shell: what runs the cells.
        settings: of this kernel.
        requests: the reading end of the pipe from the host.
        replies: the writing end of the pipe to it.
    """

    def __init__(self, shell: Shell, settings: dict[str, Any], requests: int, replies: int) -> None:
        self.shell = shell
        self.output = shell.open_output(settings)
        self.output.send = self.send
        self.running = False
        self.process = os.getpid()
        self._requests = requests
        self._replies = replies
        self._fork = Fork(shell, settings, (requests, replies))

    def send(self, frames: list[bytes]) -> None:
        """Send frames to the host."""
        wire.write(self._replies, frames)

    def serve(self) -> None:
        """Run cells until the host is gone."""
        signal.signal(signal.SIGINT, self._interrupt)
        while True:
            try:
                request = wire.read_request(self._requests)
            except wire.TooLargeError as error:
                words = "MemoryError: there is no memory for the code and its standard input"
                outcome = Outcome(error.args[0], wire.ENDINGS.index("memory"), has_error=True)
                self.send([*wire.text_frames(wire.ERROR, words), wire.frame(wire.RESULT, outcome.pack())])
                continue
            except EOFError:
                return
            self.send(self._execute(request))

    def _execute(self, request: Request) -> list[bytes]:
        """Run a cell. Returns the frames that end it."""
        self.output.begin()
        signal.signal(signal.SIGINT, self._interrupt)  # the last cell may have set another
        reply: dict[str, Any] = {"outcome": "error", "error": "KeyboardInterrupt"}
        began = time.monotonic_ns()
        try:
            self.running = True
            try:
                if request.forked:
                    return self._fork.run(request)
                reply = self.shell.run(request.code.decode(), request.cell, request.stdin, request.seed)
            finally:
                self.running = False
        except KeyboardInterrupt:  # it came when the cell itself was just over
            pass
        took = time.monotonic_ns() - began
        if os.getpid() != self.process:  # a child that the cell has forked, and that has come to its end
            os._exit(0)
        return [*self.output.finish(), *wire.result_frames(reply, self.output.take_late(), request.serial, took)]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.running:
            raise KeyboardInterrupt
