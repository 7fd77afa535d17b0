"""What the host sends to a kernel: settings, cells to run, file operations. Used on both sides.

The host is trusted, and its messages may have any size.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, NamedTuple

from .wire import PIPE_BUF

_SETTINGS = struct.Struct("<Q")  # length of the JSON that follows
# Serial, cell, seed, flags, lengths of code and standard input that follow. For a file operation: serial, operation, 0,
# flags, lengths of name and data.
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
"""File operations."""


class FileRequest(NamedTuple):
    """One file operation.

    Attributes:
        serial: number of the request on this wire, repeated in its answer.
        operation: WRITE, READ, LIST or REMOVE.
        name: of the file, in UTF-8; empty for LIST.
        data: the content for WRITE; otherwise empty.
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
    """Read the settings, in the kernel. Raises EOFError if the host is gone."""
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
    """The message to run one file operation."""
    sizes = len(request.name), len(request.data)
    head = _REQUEST.pack(request.serial, request.operation, 0, _FILE, *sizes)
    return b"".join((head, request.name, request.data))


def read_request(descriptor: int) -> Request | FileRequest:
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
        raise TooLargeError(serial, flags & _FILE != 0) from None
    if flags & _FILE:
        return FileRequest(serial, cell, *texts)
    seed = seed if flags & _SEEDED else None
    return Request(serial, cell, seed, flags & _FORKED != 0, *texts, flags & _IMAGES != 0)


class TooLargeError(Exception):
    """There is not enough memory for a request. Arguments: its serial, and whether it is a file operation."""


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
