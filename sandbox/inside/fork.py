"""Runs a cell in a fork of the kernel, as a program that starts with the session's variables.

Its standard streams are files; it exits like a program (`sys.exit(0)` is a success, `atexit` functions are called,
threads are joined); and its changes to variables, descriptors, threads or limits are discarded. A fork that dies does
not affect the session. Where no process may be started (tier 3), the kernel itself runs the cell this way and cannot be
used afterwards.
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
from .requests import Request
from .shell import Shell
from .text import overflow
from .wire import Outcome

_MOST_SWEEPS = 100  # rounds of killing processes that keep starting others
_NOT_FLUSHED = 120  # Python's exit status when its standard streams could not be flushed at exit
_REPLY_BYTES = 4 * wire.FRAME_BYTES * 16  # a value and an error of maximum length

_libc = ctypes.CDLL(None)


class _HostInterruptError(BaseException):
    """The host has interrupted the cell while the kernel was waiting for the fork."""


class Fork:
    """Runs cells in forks of this process.

    Args:
        shell: runs the cells.
        settings: settings of the kernel.
        ends: descriptors that forks must not have; the last one is the pipe to the host.
    """

    def __init__(self, shell: Shell, settings: dict[str, Any], ends: tuple[int, ...]) -> None:
        self._shell = shell
        self._forks = settings["forks"]
        self._ends = ends
        self._grace = settings["grace_seconds"] / 2  # the host kills the kernel after twice that
        self._waiting = self._interrupted = False

    def run(self, request: Request) -> list[bytes]:
        """Run one cell. Returns the frames to send to the host."""
        try:
            with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
                files = (stdout.fileno(), stderr.fileno())
                return self._run(request, files) if self._forks else self._run_here(request, files)
        except Exception as error:  # e.g. earlier cells have used up processes, descriptors or disk space
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
        complete = _finalize(self._shell) or reply["outcome"] != "ok"
        frames = wire.result_frames(reply, "", request.serial, took) if complete else []
        return self._frames(request, files, frames, 0 if complete else _NOT_FLUSHED, began)

    def _run_program(self, request: Request, files: tuple[int, int]) -> dict[str, Any]:
        self._shell.exits = True
        return self._shell.run(request.code.decode(), request.cell, request.stdin, request.seed, files)

    def _frames(
        self, request: Request, files: tuple[int, int], reply: list[bytes], status: int, began: int
    ) -> list[bytes]:
        """All frames to send to the host for a cell: the content of its files, then its reply (empty if it died)."""
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
        """Wait until the fork ends. Returns its reply; forwards an interrupt, and kills the fork if it continues."""
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
        """In the fork: run the cell and exit as a program does."""
        try:
            os.setsid()
            process, pipe = os.getpid(), os.fstat(writing)
            for descriptor in self._ends:
                os.close(descriptor)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            reply = self._run_program(request, files)
            took = time.monotonic_ns() - began
            flushed = _finalize(self._shell)
            if os.getpid() != process:  # a child forked by the cell, whose end is not the end of the cell
                end_child(reply)
            if not flushed and reply["outcome"] == "ok":
                os._exit(_NOT_FLUSHED)
            with suppress(OSError):  # the cell may have closed it, or opened another file under its number
                if os.path.samestat(pipe, os.fstat(writing)):
                    wire.write(writing, wire.result_frames(reply, "", request.serial, took))
        except BaseException:  # whatever the cell did: exit in any case
            os._exit(1)
        os._exit(reply["status"])


def end_child(reply: dict[str, Any]) -> NoReturn:
    """Exit a process that was forked by a cell and has reached the end of that cell."""
    if reply["error"] is not None and not reply["exits"]:
        with suppress(OSError):
            os.write(2, f"{reply['error']}\n".encode("utf-8", "replace"))
    os._exit(reply["status"])


def _finalize(shell: Shell) -> bool:
    """Do what Python does at exit, as far as it is visible from outside.

    Returns whether the standard streams could be flushed.
    """
    _flush_standard()  # Python does this at the end of a program and ignores errors
    threading._shutdown()  # type: ignore[attr-defined]  # joins non-daemon threads
    atexit._run_exitfuncs()
    flushed = _flush_standard()
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, getattr(sys, f"__{name}__", None))
    # Delete the variables, which may print: in `__del__`, or in the `finally` of a generator.
    sys.modules.pop("__main__", None)
    shell.user_ns.clear()
    gc.collect()
    _flush_standard()  # Python ignores errors here
    writers = [thing for thing in gc.get_objects() if isinstance(thing, (io.TextIOWrapper, io.BufferedWriter))]
    for writer in sorted(writers, key=lambda writer: not isinstance(writer, io.TextIOWrapper)):
        with suppress(Exception):  # closed, detached, or with a broken underlying stream
            writer.flush()
    _libc.fflush(None)
    return flushed


def _flush_standard() -> bool:
    """Flush the present standard streams. Returns whether that worked."""
    flushed = True
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name, None)) is not None:
            try:
                if not getattr(stream, "closed", False):
                    stream.flush()
            except BaseException:  # the code may have put any object there
                flushed = False
    return flushed


def _read(sent: bytes) -> list[bytes]:
    """The frames that a fork has sent; none if it did not reach the end of the cell."""
    try:
        frames = wire.Decoder(_REPLY_BYTES, _REPLY_BYTES).feed(sent)
    except (wire.GarbageError, wire.FloodError):
        return []
    ended = bool(frames) and frames[-1][0] == wire.RESULT
    return [wire.frame(kind, data) for kind, data in frames] if ended else []


def _others() -> set[int]:
    """The other processes in the pid namespace, if this process is the first one in it."""
    if os.getpid() != 1:
        return set()
    return {int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()} - {1}


def _end(process: int, before: set[int]) -> int:
    """Reap a fork and kill everything that it has started. Returns its exit status."""
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
