"""The standard streams of the model's code, which are real text streams."""

from __future__ import annotations

import codecs
import gc
import io
import os
import stat
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any

from .text import CellOutput

_NULL = os.makedev(1, 3)  # /dev/null; see the kernel's admin-guide/devices.txt


class CellBytes(io.RawIOBase):
    """The `buffer` of a `CellStream`. It cannot be closed, since a discarded wrapper closes what it wraps."""

    def __init__(self, output: CellOutput, name: str, descriptor: int) -> None:
        self.name = f"<{name}>"
        self._output = output
        self._stream = name
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: Any) -> int:
        """Print bytes."""
        data = bytes(data)
        self._output.write(self._stream, self._decoder.decode(data))
        return len(data)

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The descriptor that child processes inherit."""
        return self._descriptor

    def close(self) -> None:
        """Nothing."""


class CellStream(io.TextIOWrapper):
    """`sys.stdout` or `sys.stderr`, which writes to the output without buffering."""

    def __init__(self, output: CellOutput, name: str, descriptor: int) -> None:
        raw: Any = CellBytes(output, name, descriptor)
        super().__init__(raw, encoding="utf-8", errors="replace", write_through=True)
        self.mode: str = "w"  # as for streams of `open`; some programs read it


class Prepared:
    """Standard streams for the next cell, made while no cell runs. Does not touch descriptors of the code.

    Raises OSError if descriptor 0 is closed.
    """

    def __init__(self, output: CellOutput) -> None:
        self.output = [CellStream(output, "stdout", 1), CellStream(output, "stderr", 2)]
        # Most cells have no input, and can use the same empty input as the last one.
        self.empty_input = _text_of_input() if _has_empty_input() else None


def open_output(output: CellOutput, prepared: Prepared | None = None) -> list[CellStream]:
    """Create new standard streams and descriptors for a cell, since the last one may have changed its own."""
    output.take_descriptors()
    streams = prepared.output if prepared else [CellStream(output, "stdout", 1), CellStream(output, "stderr", 2)]
    sys.stdout, sys.stderr = streams
    sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]  # final in typeshed only
    return streams


def open_files(stdout: int, stderr: int) -> list[io.TextIOWrapper]:
    """Use two files as standard output and error, with streams and descriptors as in a program."""
    opened: list[io.TextIOWrapper] = []
    for number, handle in ((1, stdout), (2, stderr)):
        os.dup2(handle, number)
        raw: Any = open(number, "wb", closefd=False)  # noqa: SIM115
        raw.raw.name = f"<{'stdout' if number == 1 else 'stderr'}>"
        stream: Any = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", line_buffering=number == 2)
        stream.mode = "w"  # as Python sets it; some programs read it
        opened.append(stream)
    sys.stdout, sys.stderr = opened
    sys.__stdout__, sys.__stderr__ = opened  # type: ignore[misc]  # final in typeshed only
    return opened


def open_input(data: bytes | bytearray, prepared: Prepared | None = None) -> None:
    """Let descriptor 0 and `sys.stdin` read `data`."""
    # Drop the old ones now: a file that code opened on descriptor 0 closes it when it is collected.
    sys.stdin = sys.__stdin__ = None  # type: ignore[misc]  # until the end of this function
    if not data and prepared and prepared.empty_input and _has_empty_input():
        sys.stdin = sys.__stdin__ = prepared.empty_input  # type: ignore[misc]
        return
    if data:
        gc.collect()
        try:
            with tempfile.TemporaryFile() as file:
                file.write(data)
                file.seek(0)
                handle = os.dup(file.fileno())  # the file itself may be 0, if the last cell closed its input
        except Exception:  # the disk is full or too small, or the code has changed `tempfile`
            handle = _pipe_of(data)
    else:  # needs no disk
        handle = os.open(os.devnull, os.O_RDONLY)
    if handle != 0:
        os.dup2(handle, 0)
        os.close(handle)
    # Both are set: a stream without a reference would be closed with the wrapper that code puts around it.
    sys.stdin = sys.__stdin__ = _text_of_input()  # type: ignore[misc]


def _text_of_input() -> io.TextIOWrapper:
    text = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    text.buffer.raw.name, text.mode = "<stdin>", "r"  # type: ignore  # as in Python's own
    return text


def _has_empty_input() -> bool:
    try:
        found = os.fstat(0)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL


def _pipe_of(data: bytes | bytearray) -> int:
    """The reading end of a pipe that a thread fills with the data."""
    reading, writing = os.pipe()

    def feed() -> None:
        rest = memoryview(data)
        with suppress(OSError):  # the reading end was closed
            while rest:
                rest = rest[os.write(writing, rest) :]
        os.close(writing)

    threading.Thread(target=feed, daemon=True).start()
    return reading
