"""The wire between the host and a kernel: two pipes, and frames of a few fixed kinds on them. Used on both sides.

Pipes are used instead of sockets because they cannot carry descriptors. The host sends one frame of settings and then
one request per cell; it is trusted, and its frames may have any size. The kernel sends frames of at most PIPE_BUF
bytes, which Linux writes atomically (pipe(7)), so that no thread, fork or kill leaves half a frame on the wire. They
contain only text and numbers of fixed size.

A frame from the kernel is its kind (1 byte), the length of the content (2 bytes, little-endian), and the content:

====== ========= =====================================================================================
kind   name      content
====== ========= =====================================================================================
``r``  READY     text: why the kernel could not enter its cgroups; empty if it did
``f``  FAILED    text: why the kernel could not start
``o``  STDOUT    text printed to stdout
``e``  STDERR    text printed to stderr
``g``  GAP       two counts: characters omitted here in total, and of stdout
``v``  VALUE     text of the last expression's value
``x``  ERROR     text of the error
``l``  LATE      text printed by threads of earlier cells, and between cells
``.``  RESULT    see `Outcome`; the cell is over
====== ========= =====================================================================================

Longer texts are sent as several frames of a kind.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

READY, FAILED, STDOUT, STDERR, GAP, VALUE, ERROR, LATE, RESULT = b"rfoegvxl."
"""Kinds of frames, as numbers."""

PIPE_BUF = 4096  # linux/limits.h
_HEAD = struct.Struct("<BH")
FRAME_BYTES = PIPE_BUF - _HEAD.size
"""Maximum content of a frame from the kernel."""

_FRAGMENT_CHARS = FRAME_BYTES // 4  # for non-ASCII text; UTF-8 takes up to four bytes per character

_SETTINGS = struct.Struct("<Q")  # length of the JSON that follows
_REQUEST = struct.Struct("<IIIBQQ")  # serial, cell, seed, flags, lengths of code and standard input that follow
_SEEDED, _FORKED = 1, 2
_GAP = struct.Struct("<QQ")
_OUTCOME = struct.Struct("<IBBiQ")
_HAS_VALUE, _HAS_ERROR, _EXHAUSTED, _CUT = 1, 2, 4, 8

Data = bytes | bytearray


class GarbageError(Exception):
    """A kernel has sent something that is not a valid frame."""


class FloodError(Exception):
    """A kernel has sent more than it is allowed to."""


class Request(NamedTuple):
    """One cell to run.

    Attributes:
        serial: number of the request on this wire, repeated in its result.
        cell: number of the cell in its session, for tracebacks.
        seed: seed of the random numbers, 32 bits; None to continue with the present generators.
        forked: whether to run it in a fork of the kernel.
        code: the cell, in UTF-8.
        stdin: its standard input.
    """

    serial: int
    cell: int
    seed: int | None
    forked: bool
    code: Data
    stdin: Data


ENDINGS = ("ok", "error", "memory", "output", "died")
"""How a cell ended, by number."""


@dataclass(slots=True)
class Outcome:
    """How a cell ended, as the kernel reports it.

    Attributes:
        serial: serial of the request.
        ending: index into `ENDINGS`; "died" only for a fork.
        has_value: whether the last expression had a value.
        has_error: whether there is an error text.
        exhausted: whether too little memory is left for another cell.
        cut: whether anything was cut from value or error.
        status: exit status of a fork (negative: the signal that ended it).
        nanoseconds: wall time of the code.
    """

    serial: int
    ending: int = 0
    has_value: bool = False
    has_error: bool = False
    exhausted: bool = False
    cut: bool = False
    status: int = 0
    nanoseconds: int = 0

    def pack(self) -> bytes:
        """The content of a frame."""
        flags = _HAS_VALUE * self.has_value | _HAS_ERROR * self.has_error | _EXHAUSTED * self.exhausted
        return _OUTCOME.pack(self.serial, self.ending, flags | _CUT * self.cut, self.status, self.nanoseconds)

    @classmethod
    def unpack(cls, data: bytes) -> Outcome:
        """Parse the content of a frame. Raises GarbageError."""
        if len(data) != _OUTCOME.size:
            raise GarbageError("a result with an invalid size")
        serial, ending, flags, status, nanoseconds = _OUTCOME.unpack(data)
        if ending >= len(ENDINGS):
            raise GarbageError("a result with an invalid ending")
        exhausted, cut = flags & _EXHAUSTED != 0, flags & _CUT != 0
        return cls(
            serial, ending, flags & _HAS_VALUE != 0, flags & _HAS_ERROR != 0, exhausted, cut, status, nanoseconds
        )


OUTCOME_BYTES = _OUTCOME.size


def frame(kind: int, data: bytes = b"") -> bytes:
    """A frame from the kernel; data that is too long is truncated."""
    data = data[:FRAME_BYTES]
    return _HEAD.pack(kind, len(data)) + data


def gap(omitted: int, of_stdout: int) -> bytes:
    """The frame with the number of omitted characters."""
    return frame(GAP, _GAP.pack(omitted, of_stdout))


def read_gap(data: bytes) -> tuple[int, int]:
    """Parse the content of a GAP frame. Raises GarbageError."""
    if len(data) != _GAP.size:
        raise GarbageError("a gap with an invalid size")
    omitted, of_stdout = _GAP.unpack(data)
    return omitted, of_stdout


def text_frames(kind: int, text: str) -> Iterator[bytes]:
    """A text as frames. Lone surrogates, which UTF-8 cannot encode, become question marks, as on a terminal."""
    step = FRAME_BYTES if text.isascii() else _FRAGMENT_CHARS
    for start in range(0, len(text), step):
        yield frame(kind, text[start : start + step].encode("utf-8", "replace"))


def result_frames(reply: dict[str, Any], late: str, serial: int, nanoseconds: int) -> list[bytes]:
    """The frames of a cell's result besides its output."""
    value, error = reply.get("value"), reply.get("error")
    outcome = Outcome(
        serial,
        ENDINGS.index(reply["outcome"]),
        value is not None,
        error is not None,
        reply.get("exhausted") is True,
        reply.get("cut") is True,
        nanoseconds=nanoseconds,
    )
    frames = [frame(RESULT, outcome.pack())]
    for kind, text in ((LATE, late), (ERROR, error), (VALUE, value)):
        if text:
            frames[:0] = text_frames(kind, text)
    return frames


def write(descriptor: int, frames: list[bytes]) -> None:
    """Write frames in batches that Linux writes atomically."""
    batch = b""
    for one in frames:
        if len(batch) + len(one) > PIPE_BUF:
            os.write(descriptor, batch)
            batch = b""
        batch += one
    if batch:
        os.write(descriptor, batch)


class Decoder:
    """Decodes bytes from a kernel into frames.

    Args:
        most_bytes, most_frames: maximum input until `allow` is called again, which bounds the host's work.
    """

    def __init__(self, most_bytes: int, most_frames: int) -> None:
        self._most = most_bytes, most_frames
        self._rest = b""
        self.allow()

    def allow(self) -> None:
        """Reset the counts: another cell begins."""
        self._bytes, self._frames = self._most

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Kind and content of the frames completed by these bytes.

        Raises:
            GarbageError: the bytes are not a valid frame.
            FloodError: the kernel has sent too much.
        """
        self._bytes -= len(data)
        if self._bytes < 0:
            raise FloodError
        data = self._rest + data
        position, end = 0, len(data)
        frames = []
        while end - position >= _HEAD.size:
            kind, size = _HEAD.unpack_from(data, position)
            if size > FRAME_BYTES:
                raise GarbageError("a frame that is too long")
            following = position + _HEAD.size + size
            if following > end:
                break
            self._frames -= 1
            if self._frames < 0:
                raise FloodError
            frames.append((kind, data[position + _HEAD.size : following]))
            position = following
        self._rest = data[position:]
        return frames


def settings_frame(settings: dict[str, Any]) -> bytes:
    """The first message to a kernel."""
    data = json.dumps(settings).encode()
    return _SETTINGS.pack(len(data)) + data


def read_settings(descriptor: int) -> dict[str, Any]:
    """Read the settings, in the kernel. Raises EOFError if the host is gone."""
    (size,) = _SETTINGS.unpack(_exactly(descriptor, _SETTINGS.size))
    settings: dict[str, Any] = json.loads(_exactly(descriptor, size))
    return settings


def request_frame(request: Request) -> bytes:
    """The message to run one cell."""
    flags = _SEEDED * (request.seed is not None) | _FORKED * request.forked
    sizes = len(request.code), len(request.stdin)
    head = _REQUEST.pack(request.serial, request.cell, request.seed or 0, flags, *sizes)
    return b"".join((head, request.code, request.stdin))


def read_request(descriptor: int) -> Request:
    """Wait for a request, in the kernel.

    Raises:
        EOFError: the host is gone.
        TooLargeError: there is not enough memory for it; it was skipped, and another may follow.
    """
    serial, cell, seed, flags, code, stdin = _REQUEST.unpack(_exactly(descriptor, _REQUEST.size))
    unread = code + stdin
    try:
        texts: tuple[Data, Data]
        if unread <= PIPE_BUF:  # one call instead of two
            both = _exactly(descriptor, unread)
            texts = both[:code], both[code:]
        else:
            first = _exactly(descriptor, code)
            unread = stdin
            texts = first, _exactly(descriptor, stdin)
    except MemoryError:
        while unread:
            unread -= len(_some(descriptor, min(unread, PIPE_BUF)))
        raise TooLargeError(serial) from None
    return Request(serial, cell, seed if flags & _SEEDED else None, bool(flags & _FORKED), *texts)


class TooLargeError(Exception):
    """There is not enough memory for a request; its serial is the argument."""


def _exactly(descriptor: int, size: int) -> Data:
    """Read exactly `size` bytes. Raises EOFError; raises MemoryError before anything is read."""
    if size <= PIPE_BUF:
        data = os.read(descriptor, size) if size else b""
        while len(data) < size:
            data += _some(descriptor, size - len(data))
        return data
    buffer = bytearray(size)
    view, done = memoryview(buffer), 0
    while done < size:
        count = os.readv(descriptor, [view[done:]])
        if not count:
            raise EOFError
        done += count
    return buffer


def _some(descriptor: int, most: int) -> bytes:
    data = os.read(descriptor, most)
    if not data:
        raise EOFError
    return data
