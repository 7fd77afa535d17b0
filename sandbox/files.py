"""File operations on the host's side: checks of names and sizes, and the replies of kernels.

Replies come from hostile kernels: their size and number are bounded, and every frame is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from sandbox.errors import (
    FileError,
    FileNameError,
    FileNotFound,
    FileRefused,
    FilesLost,
    FileTooLarge,
    Loss,
    NotAFile,
    TooManyFiles,
)
from sandbox.inside import names, wire
from sandbox.inside.requests import LIST, READ
from sandbox.inside.wire import FileStatus, GarbageError
from sandbox.limits import Limits

_MOST_ERRNO = 4_095  # MAX_ERRNO, linux/err.h
_LOSSES: dict[str, Loss] = {reason: reason for reason in get_args(Loss)}


class FileInfo(NamedTuple):
    """A file of a session.

    Attributes:
        name: path relative to the working folder, with slashes.
        size_bytes: its size at the time of listing.
    """

    name: str
    size_bytes: int


def checked(name: str) -> bytes:
    """Encode a valid name. Raises FileNameError for one that is not allowed; see `sandbox.inside.names`."""
    if (reason := names.objection(name)) is not None:
        raise FileNameError(name, reason)
    return name.encode()


@dataclass(slots=True)
class FileReply:
    """What the host has received for one file operation.

    Attributes:
        operation: the operation; see `sandbox.inside.requests`.
        limits: of the session.
        ending: "result" once the kernel has answered, otherwise one of `Loss`; empty until then.
        data: content of the file, for READ.
        sizes: sizes of the files by name, for LIST.
        status: the kernel's answer.
    """

    operation: int
    limits: Limits
    ending: str = ""
    data: bytearray = field(default_factory=bytearray)
    sizes: dict[str, int] = field(default_factory=dict)
    status: FileStatus | None = None

    @property
    def most_bytes(self) -> int:
        """The most that a genuine kernel sends, apart from a few small frames."""
        entry = names.MOST_BYTES + wire.PIPE_BUF // 8  # with its header; `Decoder.allow` reckons with full frames
        return {READ: self.limits.file_bytes, LIST: self.limits.files * entry}.get(self.operation, 0)

    def feed(self, kind: int, data: bytes, serial: int) -> None:
        """Add one frame. Raises GarbageError for a frame that a genuine kernel would not send."""
        if kind == wire.DATA and self.operation == READ and len(self.data) + len(data) <= self.limits.file_bytes:
            self.data += data
        elif kind == wire.ENTRY and self.operation == LIST and len(self.sizes) < self.limits.files:
            name, size = wire.read_entry(data)
            if name in self.sizes or names.objection(name) is not None:
                raise GarbageError("an invalid or repeated name")
            self.sizes[name] = size
        elif kind == wire.DONE:
            status = FileStatus.unpack(data)
            if status.serial != serial or not self._is_plausible(status):
                raise GarbageError("an answer that does not match the request")
            self.status, self.ending = status, "result"
        else:
            raise GarbageError("a frame of a strange kind")

    def _is_plausible(self, status: FileStatus) -> bool:
        if status.ending == "refused":
            return 0 < status.number <= _MOST_ERRNO
        if status.ending == "ok" and self.operation in (READ, LIST):
            return status.number == (len(self.data) if self.operation == READ else len(self.sizes))
        return True

    def error(self, name: str) -> FileError | None:
        """The error that the operation ended with, or None."""
        if self.status is None:
            return FilesLost(name, _LOSSES.get(self.ending, "garbage"))
        ending, number = self.status.ending, self.status.number
        if ending == "refused":
            return FileRefused(name, number)
        if ending == "too large":
            return FileTooLarge(name, number, self.limits.file_bytes)
        if ending == "too many":
            return TooManyFiles(name, self.limits.files)
        if ending == "ok":
            return None
        return FileNotFound(name) if ending == "missing" else NotAFile(name)

    def infos(self) -> tuple[FileInfo, ...]:
        """The listed files, sorted by name."""
        return tuple(FileInfo(name, size) for name, size in sorted(self.sizes.items()))


def check_size(name: str, size: int, limits: Limits) -> None:
    """Raise FileTooLarge if a file to be written is too large."""
    if size > limits.file_bytes:
        raise FileTooLarge(name, size, limits.file_bytes)
