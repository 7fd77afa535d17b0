"""The kernel: runs cells and file operations on request, one at a time.

It shares a process with the model's code, which may change any of it: it makes results readable and bounded early,
and the host trusts none of it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps in enums, which takes ten times as long
import errno
import os
import signal
import time
from types import FrameType
from typing import Any

from . import wire
from .files import Files
from .fork import Fork, end_child
from .images import images
from .requests import FileRequest, Request, TooLargeError, read_request
from .shell import Shell
from .tracebacks import name_of
from .wire import FileStatus, Outcome


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
        self.broken = False  # whether the last cell could not be run
        self.process = os.getpid()
        self._requests = requests
        self._replies = replies
        self._fork = Fork(shell, settings, (requests, replies))
        self._files = Files(settings, self.send)

    def send(self, frames: list[bytes]) -> None:
        """Send frames to the host."""
        wire.write(self._replies, frames)

    def serve(self) -> None:
        """Run cells until the host is gone."""
        signal.signal(signal.SIGINT, self._interrupt)
        while True:
            try:
                request = read_request(self._requests)
            except TooLargeError as error:
                self.send(_too_large(*error.args))
                continue
            except EOFError:
                return
            if isinstance(request, FileRequest):
                self._files.serve(request)
            else:
                self.send(self._execute(request))
                self.shell.prepare()

    def _execute(self, request: Request) -> list[bytes]:
        """Run a cell. Returns the frames that end it.

        Raises only where the code has made of this process one that cannot run two cells in a row: another is better.
        """
        reply: dict[str, Any] = {"outcome": "error", "error": "KeyboardInterrupt", "status": 1, "exits": False}
        began = time.monotonic_ns()
        try:
            self.output.begin()
            images.begin(wanted=request.images and not request.forked)
            self.running = True
            try:
                if request.forked:
                    return self._fork.run(request)
                reply = self.shell.run(request.code.decode(), request.cell, request.stdin, request.seed)
                self.broken = False
            finally:
                self.running = False
                _signal.signal(signal.SIGINT, self._interrupt)  # the code, or the wait for a fork, may have set another
        except KeyboardInterrupt:  # it came when the cell itself was just over
            self.shell.end()
        except BaseException as error:
            if self.broken:
                raise
            self.broken = True
            reply["error"] = name_of(type(error))
        if os.getpid() != self.process:
            end_child(reply)
        took = time.monotonic_ns() - began
        try:
            late = self.output.take_late()
            if images.dropped:
                reply["cut"] = True
            shown = images.take() if request.images else ()
            return [*self.output.finish(), *shown, *wire.result_frames(reply, late, request.serial, took)]
        except BaseException as error:
            reply = {"outcome": "error", "error": name_of(type(error))}
            return wire.result_frames(reply, "", request.serial, took)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.running:
            raise KeyboardInterrupt


def _too_large(serial: int, of_file: bool) -> list[bytes]:
    """The answer to a request that does not fit into memory."""
    if of_file:
        return [wire.frame(wire.DONE, FileStatus(serial, "refused", errno.ENOMEM).pack())]
    words = "MemoryError: there is no memory for the code and its standard input"
    outcome = Outcome(serial, wire.ENDINGS.index("memory"), has_error=True)
    return [*wire.text_frames(wire.ERROR, words), wire.frame(wire.RESULT, outcome.pack())]
