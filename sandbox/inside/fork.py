"""A cell in a fork of the kernel: as a program would run that begins with the session's variables.

Its standard streams are files, its exit is one (`sys.exit(0)` ends it well, functions of `atexit` are called, threads
waited for), and nothing that it does to variables, descriptors, threads or limits is there afterwards. A fork that dies
costs the session nothing. Where no process may be started (tier 3), the kernel itself runs the cell like this, and is
used up by it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import os
import select
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from . import wire
from .shell import Shell
from .text import overflow
from .wire import Outcome, Request

_MOST_SWEEPS = 100  # of processes that go on starting others
_NOT_FLUSHED = 120  # Python's exit status where its standard streams could not be flushed at the end
_REPLY_BYTES = 4 * wire.FRAME_BYTES * 16  # a value and an error at their longest

_libc = ctypes.CDLL(None)


class _HostInterruptError(BaseException):
    """The host has interrupted the cell while the kernel waits for the fork."""


class Fork:
    """Runs cells in forks of this process.

    Args:
        shell: what runs them.
        settings: of the kernel.
        ends: descriptors that are the kernel's alone, the last of them for what it says to the host.
    """

    def __init__(self, shell: Shell, settings: dict[str, Any], ends: tuple[int, ...]) -> None:
        self._shell = shell
        self._forks = settings["forks"]
        self._ends = ends
        self._grace = settings["grace_seconds"] / 2  # the host gives the kernel up after twice that
        self._waiting = self._interrupted = False

    def run(self, request: Request) -> list[bytes]:
        """Run one. Returns the frames that the host is sent of it."""
        try:
            with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
                files = (stdout.fileno(), stderr.fileno())
                return self._run(request, files) if self._forks else self._run_here(request, files)
        except Exception as error:  # no process, descriptor or disk is left, or whatever else earlier cells have done
            reason = getattr(error, "strerror", None) or type(error).__name__
            reply = {"outcome": "error", "error": f"RuntimeError: the code cannot be run in a fork: {reason}"}
            return [*self._shell.output.finish(), *wire.result_frames(reply, "", request.serial, 0)]

    def _run(self, request: Request, files: tuple[int, int]) -> list[bytes]:
        self._interrupted = False
        signal.signal(signal.SIGINT, self._interrupt)
        before = _others()
        reading, writing = os.pipe()
        began = time.monotonic_ns()
        try:
            process = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if process == 0:
            os.close(reading)
            self._run_in_fork(request, files, writing, began)
        os.close(writing)
        try:
            sent = self._wait(process, reading)
        finally:
            os.close(reading)
            status = _end(process, before)
        return self._frames(request, files, _read(sent), status, began)

    def _run_here(self, request: Request, files: tuple[int, int]) -> list[bytes]:
        began, leave = time.monotonic_ns(), os._exit

        def leave_early(status: int) -> NoReturn:
            wire.write(self._ends[-1], self._frames(request, files, [], status, began))
            leave(status)

        os._exit = leave_early
        reply = self._run_program(request, files)
        took = time.monotonic_ns() - began
        whole = _finalize(self._shell) or reply["outcome"] != "ok"
        frames = wire.result_frames(reply, "", request.serial, took) if whole else []
        return self._frames(request, files, frames, 0 if whole else _NOT_FLUSHED, began)

    def _run_program(self, request: Request, files: tuple[int, int]) -> dict[str, Any]:
        self._shell.exits = True
        return self._shell.run(request.code.decode(), request.cell, request.stdin, request.seed, files)

    def _frames(
        self, request: Request, files: tuple[int, int], reply: list[bytes], status: int, began: int
    ) -> list[bytes]:
        """All that the host is sent of a cell: what is in its files, and its reply, which is empty if it died."""
        output, took = self._shell.output, time.monotonic_ns() - began
        for file, name in zip(files, ("stdout", "stderr"), strict=True):
            output.take_file(file, name)
        if output.printed > output.limit:
            error = {"outcome": "output", "error": overflow(output.limit)}
            reply = wire.result_frames(error, "", request.serial, took)
        elif not reply:
            died = Outcome(request.serial, wire.ENDINGS.index("died"), status=status, nanoseconds=took)
            reply = [wire.frame(wire.RESULT, died.pack())]
        return [*output.finish(), *reply]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        if self._waiting:
            raise _HostInterruptError

    def _wait(self, process: int, reading: int) -> bytes:
        """Wait for the fork's end. Returns what it has sent; passes an interrupt on, and kills it later."""
        ended = os.pidfd_open(process)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(reading, select.POLLIN)
        os.set_blocking(reading, False)
        sent, deadline, closed = b"", 0.0, False
        while True:
            try:
                self._waiting = True
                if self._interrupted and not deadline:
                    deadline = time.monotonic() + self._grace
                    os.kill(process, signal.SIGINT)
                left = max(0.0, deadline - time.monotonic()) * 1000 if deadline else None
                ready = poll.poll(left)
                self._waiting = False
            except _HostInterruptError:
                continue
            finally:
                self._waiting = False
            if not ready:
                os.kill(process, signal.SIGKILL)
                deadline += self._grace
            with suppress(BlockingIOError):
                while piece := os.read(reading, wire.PIPE_BUF):
                    sent = (sent + piece)[:_REPLY_BYTES]
                if not closed:
                    closed = True
                    poll.unregister(reading)
            if any(descriptor == ended for descriptor, _ in ready):
                os.close(ended)
                return sent

    def _run_in_fork(self, request: Request, files: tuple[int, int], writing: int, began: int) -> NoReturn:
        """In the fork: run the cell and end as a program does."""
        try:
            os.setsid()
            process, pipe = os.getpid(), os.fstat(writing)
            for descriptor in self._ends:
                os.close(descriptor)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            reply = self._run_program(request, files)
            took = time.monotonic_ns() - began
            flushed = _finalize(self._shell)
            if os.getpid() != process:  # a child that the cell has forked: how that ends is not how the cell ends
                end_child(reply)
            if not flushed and reply["outcome"] == "ok":
                os._exit(_NOT_FLUSHED)
            with suppress(OSError):  # closed by the cell, and perhaps another file by now
                if os.path.samestat(pipe, os.fstat(writing)):
                    wire.write(writing, wire.result_frames(reply, "", request.serial, took))
        except BaseException:  # whatever the cell has left: it is the end in any case
            os._exit(1)
        os._exit(reply["status"])


def end_child(reply: dict[str, Any]) -> NoReturn:
    """End a process that a cell has forked and that has come to the end of the cell."""
    if reply["error"] is not None and not reply["exits"]:
        with suppress(OSError):
            os.write(2, f"{reply['error']}\n".encode("utf-8", "replace"))
    os._exit(reply["status"])


def _finalize(shell: Shell) -> bool:
    """What Python does at its end, as far as one sees it from outside.

    Returns whether the standard streams could be flushed.
    """
    _flush_standard()  # as Python does where a program ends, and ignores what comes of it
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    flushed = _flush_standard()
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, getattr(sys, f"__{name}__", None))
    # The variables go, which some print at: in `__del__`, or in the `finally` of a generator.
    sys.modules.pop("__main__", None)
    shell.user_ns.clear()
    gc.collect()
    _flush_standard()  # by now Python looks no more whether it works
    writers = [thing for thing in gc.get_objects() if isinstance(thing, (io.TextIOWrapper, io.BufferedWriter))]
    for writer in sorted(writers, key=lambda writer: not isinstance(writer, io.TextIOWrapper)):
        with suppress(Exception):  # closed, detached, or over something that is not there any more
            writer.flush()
    _libc.fflush(None)
    return flushed


def _flush_standard() -> bool:
    """Flush the standard streams, whatever they are by now. Returns whether that worked."""
    flushed = True
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name, None)) is not None:
            try:
                if not getattr(stream, "closed", False):
                    stream.flush()
            except BaseException:  # whatever the code has put there
                flushed = False
    return flushed


def _read(sent: bytes) -> list[bytes]:
    """The frames that a fork has sent of its cell; none where it did not come to the end."""
    try:
        frames = wire.Decoder(_REPLY_BYTES, _REPLY_BYTES).feed(sent)
    except (wire.GarbageError, wire.FloodError):
        return []
    ended = bool(frames) and frames[-1][0] == wire.RESULT
    return [wire.frame(kind, data) for kind, data in frames] if ended else []


def _others() -> set[int]:
    """The processes beside this one, where it is the first of a namespace of its own."""
    if os.getpid() != 1:
        return set()
    return {int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()} - {1}


def _end(process: int, before: set[int]) -> int:
    """Wait for a fork that has ended, and end what it has started. Returns its exit status."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    for _ in range(_MOST_SWEEPS):
        started = _others() - before
        if not started:
            break
        for other in started:
            with suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
        for other in started:
            with suppress(ChildProcessError):  # its parent has not ended yet
                os.waitpid(other, 0)
    return status
