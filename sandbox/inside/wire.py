"""The wire between the host and a kernel: two pipes, and frames of a few fixed kinds on them. Used on both sides.

Pipes rather than sockets, since a pipe carries no descriptors. To the kernel go one frame of settings and then one
request for each cell; the host is trusted, and its frames may have any size. From the kernel come frames of at most
PIPE_BUF bytes, of which Linux writes all or nothing (pipe(7)): neither a thread, nor a fork, nor a kill leaves half of
one on the wire. The host reads nothing in them but text and numbers of fixed size.

A frame from the kernel is its kind (1 byte), the number of bytes that follow (2, little-endian), and these:

====== ========= =====================================================================================
kind   name      what follows
====== ========= =====================================================================================
``r``  READY     text: why the kernel could not enter its cgroups; empty where it did
``f``  FAILED    text: why there will be no kernel
``o``  STDOUT    text printed to stdout
``e``  STDERR    text printed to stderr
``g``  GAP       two counts: characters left out here of all that was printed, and of stdout
``v``  VALUE     text of the last expression's value
``x``  ERROR     text of the error
``l``  LATE      text that was printed by threads of earlier cells, and between cells
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
"""The most that a frame from the kernel holds besides its head."""

_FRAGMENT_CHARS = FRAME_BYTES // 4  # of text that is not ASCII; UTF-8 takes up to four bytes for a character

_SETTINGS = struct.Struct("<Q")  # bytes of JSON that follow
_REQUEST = struct.Struct("<IIIBQQ")  # serial, cell, seed, flags, bytes of code and of standard input that follow
_SEEDED, _FORKED = 1, 2
_GAP = struct.Struct("<QQ")
_OUTCOME = struct.Struct("<IBBiQ")
_HAS_VALUE, _HAS_ERROR, _EXHAUSTED, _CUT = 1, 2, 4, 8

Data = bytes | bytearray


class GarbageError(Exception):
    """What came from a kernel is not of the wire's form."""


class FloodError(Exception):
    """A kernel has said more than it may."""


class Request(NamedTuple):
    """One cell to run.

    Attributes:
        serial: the number of the request on this wire, which its result names.
        cell: the number of the cell in its session, for tracebacks.
        seed: where random numbers start, 32 bits; None to go on with those there are.
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
        serial: of the request.
        ending: a place in `ENDINGS`; "died" only of a fork.
        has_value: whether the last expression had a value.
        has_error: whether there is a text of an error.
        exhausted: whether too little memory is left for another cell.
        cut: whether anything is missing from value or error.
        status: exit status of a fork (negative: the signal that ended it).
        nanoseconds: wall time that the code ran.
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
        """As what follows the head of a frame."""
        flags = _HAS_VALUE * self.has_value | _HAS_ERROR * self.has_error | _EXHAUSTED * self.exhausted
        return _OUTCOME.pack(self.serial, self.ending, flags | _CUT * self.cut, self.status, self.nanoseconds)

    @classmethod
    def unpack(cls, data: bytes) -> Outcome:
        """From what follows the head. Raises GarbageError."""
        if len(data) != _OUTCOME.size:
            raise GarbageError("a result of a strange size")
        serial, ending, flags, status, nanoseconds = _OUTCOME.unpack(data)
        if ending >= len(ENDINGS):
            raise GarbageError("a result of a strange kind")
        exhausted, cut = flags & _EXHAUSTED != 0, flags & _CUT != 0
        return cls(
            serial, ending, flags & _HAS_VALUE != 0, flags & _HAS_ERROR != 0, exhausted, cut, status, nanoseconds
        )


OUTCOME_BYTES = _OUTCOME.size


def frame(kind: int, data: bytes = b"") -> bytes:
    """One frame of a kernel's; of data that is too long, the beginning."""
    data = data[:FRAME_BYTES]
    return _HEAD.pack(kind, len(data)) + data


def gap(omitted: int, of_stdout: int) -> bytes:
    """The frame that says how many characters were left out."""
    return frame(GAP, _GAP.pack(omitted, of_stdout))


def read_gap(data: bytes) -> tuple[int, int]:
    """What a GAP says. Raises GarbageError."""
    if len(data) != _GAP.size:
        raise GarbageError("a gap of a strange size")
    omitted, of_stdout = _GAP.unpack(data)
    return omitted, of_stdout


def text_frames(kind: int, text: str) -> Iterator[bytes]:
    """A text as frames. Lone surrogates, which cannot travel, become question marks, as on a terminal."""
    step = FRAME_BYTES if text.isascii() else _FRAGMENT_CHARS
    for start in range(0, len(text), step):
        yield frame(kind, text[start : start + step].encode("utf-8", "replace"))


def result_frames(reply: dict[str, Any], late: str, serial: int, nanoseconds: int) -> list[bytes]:
    """What the host is sent of a cell besides what it printed."""
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
    """Write frames, as many at a time as Linux writes at once or not at all."""
    batch = b""
    for one in frames:
        if len(batch) + len(one) > PIPE_BUF:
            os.write(descriptor, batch)
            batch = b""
        batch += one
    if batch:
        os.write(descriptor, batch)


class Decoder:
    """A kernel's bytes as frames.

    Args:
        most_bytes, most_frames: how much it may say until `allow` is called again, which bounds the host's work.
    """

    def __init__(self, most_bytes: int, most_frames: int) -> None:
        self._most = most_bytes, most_frames
        self._rest = b""
        self.allow()

    def allow(self) -> None:
        """Count anew: another cell begins."""
        self._bytes, self._frames = self._most

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Kind and content of the frames that these bytes complete.

        Raises:
            GarbageError: for what is not a frame of this form.
            FloodError: it has said more than it may.
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
    """What `settings_frame` made, in the kernel. Raises EOFError where the host is gone."""
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
        TooLargeError: there is no memory for it; it has been read, and another may follow.
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
    """There is no memory for a request; its serial is the argument."""


def _exactly(descriptor: int, size: int) -> Data:
    """So many bytes. Raises EOFError, and MemoryError before anything was read."""
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
