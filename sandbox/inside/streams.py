"""What the model's code finds as its standard streams. They are real text streams, whatever it does with them."""

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
    """The `buffer` of a `CellStream`. It stays open: a wrapper that is thrown away closes what it wraps."""

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
    """`sys.stdout` or `sys.stderr`: what is printed is in the output at once."""

    def __init__(self, output: CellOutput, name: str, descriptor: int) -> None:
        raw: Any = CellBytes(output, name, descriptor)
        super().__init__(raw, encoding="utf-8", errors="replace", write_through=True)
        self.mode: str = "w"  # which the streams of `open` have, and programs ask for


class Prepared:
    """Standard streams for the next cell, made while none runs. None of the code's descriptors is touched.

    Raises OSError where descriptor 0 is closed.
    """

    def __init__(self, output: CellOutput) -> None:
        self.output = [CellStream(output, "stdout", 1), CellStream(output, "stderr", 2)]
        # Most cells have no input: then what they read is the same as what the last one did.
        self.empty_input = _text_of_input() if _has_empty_input() else None


def open_output(output: CellOutput, prepared: Prepared | None = None) -> list[CellStream]:
    """Make new standard streams and descriptors for a cell: the last one may have done anything to its own."""
    output.take_descriptors()
    streams = prepared.output if prepared else [CellStream(output, "stdout", 1), CellStream(output, "stderr", 2)]
    sys.stdout, sys.stderr = streams
    sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]  # final to a reader of typeshed only
    return streams


def open_files(stdout: int, stderr: int) -> list[io.TextIOWrapper]:
    """Make two files the standard output and error, with the streams and descriptors that a program has."""
    opened: list[io.TextIOWrapper] = []
    for number, handle in ((1, stdout), (2, stderr)):
        os.dup2(handle, number)
        raw: Any = open(number, "wb", closefd=False)  # noqa: SIM115
        raw.raw.name = f"<{'stdout' if number == 1 else 'stderr'}>"
        stream: Any = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", line_buffering=number == 2)
        stream.mode = "w"  # which Python's have, and programs ask for
        opened.append(stream)
    sys.stdout, sys.stderr = opened
    sys.__stdout__, sys.__stderr__ = opened  # type: ignore[misc]  # final to a reader of typeshed only
    return opened


def open_input(data: bytes | bytearray, prepared: Prepared | None = None) -> None:
    """Make `data` what descriptor 0 and `sys.stdin` read."""
    # A file that code has opened on descriptor 0 closes it when it is thrown away: now, not while the cell runs.
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
                handle = os.dup(file.fileno())  # the file may itself be 0, where the last cell has closed its input
        except Exception:  # the disk is full, or too small, or the code has changed `tempfile`
            handle = _pipe_of(data)
    else:  # needs no disk
        handle = os.open(os.devnull, os.O_RDONLY)
    if handle != 0:
        os.dup2(handle, 0)
        os.close(handle)
    # The second is held, or the wrapper of a wrapped stream would close it.
    sys.stdin = sys.__stdin__ = _text_of_input()  # type: ignore[misc]


def _text_of_input() -> io.TextIOWrapper:
    text = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    text.buffer.raw.name, text.mode = "<stdin>", "r"  # type: ignore  # as Python's own
    return text


def _has_empty_input() -> bool:
    try:
        found = os.fstat(0)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL


def _pipe_of(data: bytes | bytearray) -> int:
    """The end of a pipe from which the data can be read once, as fast as the code does."""
    reading, writing = os.pipe()

    def feed() -> None:
        rest = memoryview(data)
        with suppress(OSError):  # nobody reads any more
            while rest:
                rest = rest[os.write(writing, rest) :]
        os.close(writing)

    threading.Thread(target=feed, daemon=True).start()
    return reading
