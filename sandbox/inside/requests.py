"""What the host sends to a kernel over the wire: settings, cells to run, things to do with files. Used on both sides.

The host is trusted: what it sends is read as it comes, and may have any size.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, NamedTuple

from .wire import PIPE_BUF

_SETTINGS = struct.Struct("<Q")  # bytes of JSON that follow
# Serial, cell, seed, flags, bytes of code and of standard input that follow. Of a file: serial, operation, 0, flags,
# bytes of its name and of what is written.
_REQUEST = struct.Struct("<IIIBQQ")
_SEEDED, _FORKED, _IMAGES, _FILE = 1, 2, 4, 8

Data = bytes | bytearray


class Request(NamedTuple):
    """One cell to run.

    Attributes:
        serial: number of the request on this wire, repeated in its result.
        cell: number of the cell in its session, for tracebacks.
        seed: seed of the random numbers, 32 bits; None to continue with the present generators.
        forked: whether to run it in a fork of the kernel.
        code: the cell, in UTF-8.
        stdin: its standard input.
        images: whether the images that it displays are sent.
    """

    serial: int
    cell: int
    seed: int | None
    forked: bool
    code: Data
    stdin: Data
    images: bool = False


WRITE, READ, LIST, REMOVE = range(4)
"""What can be done with the files of the working folder."""


class FileRequest(NamedTuple):
    """One thing to do with a file.

    Attributes:
        serial: the number of the request on this wire, which its end names.
        operation: WRITE, READ, LIST or REMOVE.
        name: of the file, in UTF-8; empty for LIST.
        data: what is written; else empty.
    """

    serial: int
    operation: int
    name: Data
    data: Data


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
    flags = _SEEDED * (request.seed is not None) | _FORKED * request.forked | _IMAGES * request.images
    sizes = len(request.code), len(request.stdin)
    head = _REQUEST.pack(request.serial, request.cell, request.seed or 0, flags, *sizes)
    return b"".join((head, request.code, request.stdin))


def file_request_frame(request: FileRequest) -> bytes:
    """The message to do something with a file."""
    sizes = len(request.name), len(request.data)
    head = _REQUEST.pack(request.serial, request.operation, 0, _FILE, *sizes)
    return b"".join((head, request.name, request.data))


def read_request(descriptor: int) -> Request | FileRequest:
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
        raise TooLargeError(serial, flags & _FILE != 0) from None
    if flags & _FILE:
        return FileRequest(serial, cell, *texts)
    seed = seed if flags & _SEEDED else None
    return Request(serial, cell, seed, flags & _FORKED != 0, *texts, flags & _IMAGES != 0)


class TooLargeError(Exception):
    """There is no memory for a request; its serial, and whether it is for a file, are the arguments."""


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
