"""The wire between the host and a kernel: two pipes, and frames of a few fixed kinds on them. Used on both sides.

Pipes are used instead of sockets because they cannot carry descriptors. The host sends one frame of settings and then
one request per cell or file operation (see `requests`); it is trusted, and its frames may have any size. The kernel
sends frames of at most PIPE_BUF bytes, which Linux writes atomically (pipe(7)), so that no thread, fork or kill leaves
half a frame on the wire. They contain only text, bytes and numbers of fixed size.

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
``m``  IMAGE     an image follows: its type (an index into `formats.MIMES`) and its size in bytes
``d``  DATA      the next bytes of that image, or of the file being read
``.``  RESULT    see `Outcome`; the cell is over
``n``  ENTRY     a file in the working folder: its size in bytes and its name
``=``  DONE      see `FileStatus`; the file operation is over
====== ========= =====================================================================================

Longer texts are sent as several frames of a kind. Images are only sent for a cell that requests them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

READY, FAILED, STDOUT, STDERR, GAP, VALUE, ERROR, LATE, RESULT = b"rfoegvxl."
IMAGE, DATA, ENTRY, DONE = b"mdn="
"""Kinds of frames, as numbers."""

PIPE_BUF = 4096  # linux/limits.h
_HEAD = struct.Struct("<BH")
FRAME_BYTES = PIPE_BUF - _HEAD.size
"""Maximum content of a frame from the kernel."""

_FRAGMENT_CHARS = FRAME_BYTES // 4  # for non-ASCII text; UTF-8 takes up to four bytes per character

_GAP = struct.Struct("<QQ")
_OUTCOME = struct.Struct("<IBBiQ")
_HAS_VALUE, _HAS_ERROR, _EXHAUSTED, _CUT = 1, 2, 4, 8
_IMAGE = struct.Struct("<BI")
_ENTRY = struct.Struct("<Q")
_STATUS = struct.Struct("<IBQ")


class GarbageError(Exception):
    """A kernel has sent something that is not a valid frame."""


class FloodError(Exception):
    """A kernel has sent more than it is allowed to."""


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

FILE_ENDINGS = ("ok", "missing", "no file", "too large", "too many", "refused")
"""Possible results of a file operation, by number."""


class FileStatus(NamedTuple):
    """Result of a file operation, as the kernel reports it.

    Attributes:
        serial: of the request.
        ending: one of `FILE_ENDINGS`.
        number: for "ok", the number of bytes read or written, or of files listed; for "too large", the size of the
            file; for "refused", the errno; otherwise 0.
    """

    serial: int
    ending: str
    number: int = 0

    def pack(self) -> bytes:
        """As what follows the head of a frame."""
        return _STATUS.pack(self.serial, FILE_ENDINGS.index(self.ending), self.number)

    @classmethod
    def unpack(cls, data: bytes) -> FileStatus:
        """From what follows the head. Raises GarbageError."""
        if len(data) != _STATUS.size:
            raise GarbageError("a file status with an invalid size")
        serial, ending, number = _STATUS.unpack(data)
        if ending >= len(FILE_ENDINGS):
            raise GarbageError("a file status with an invalid ending")
        return cls(serial, FILE_ENDINGS[ending], number)


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


def data_frames(data: bytes) -> Iterator[bytes]:
    """Split bytes of an image or of a file into frames."""
    for start in range(0, len(data), FRAME_BYTES):
        yield frame(DATA, data[start : start + FRAME_BYTES])


def image_frames(kind: int, data: bytes) -> Iterator[bytes]:
    """Encode an image as frames.

    Args:
        kind: an index into `formats.MIMES`.
        data: content of the image file.
    """
    yield frame(IMAGE, _IMAGE.pack(kind, len(data)))
    yield from data_frames(data)


def read_image(data: bytes) -> tuple[int, int]:
    """Decode an IMAGE frame into type and size in bytes. Raises GarbageError."""
    if len(data) != _IMAGE.size:
        raise GarbageError("an image header with an invalid size")
    kind, size = _IMAGE.unpack(data)
    return kind, size


def entry(name: bytes, size: int) -> bytes:
    """The frame that lists a file."""
    return frame(ENTRY, _ENTRY.pack(size) + name)


def read_entry(data: bytes) -> tuple[str, int]:
    """Decode an ENTRY frame into name and size in bytes. Raises GarbageError."""
    if len(data) < _ENTRY.size:
        raise GarbageError("a file entry with an invalid size")
    (size,) = _ENTRY.unpack_from(data)
    try:
        return data[_ENTRY.size :].decode(), size
    except UnicodeDecodeError as error:
        raise GarbageError("a name that is not UTF-8") from error


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

    def allow(self, more_bytes: int = 0) -> None:
        """Reset the counts: another cell or file operation begins.

        Args:
            more_bytes: additional bytes of images or of a file, in full frames.
        """
        self._bytes, self._frames = self._most
        if more_bytes:
            frames = -(-more_bytes // FRAME_BYTES)
            self._bytes += more_bytes + frames * _HEAD.size
            self._frames += frames

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
