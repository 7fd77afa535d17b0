"""Files of a session on the host's side: what is asked of a kernel, and what its answer means.

A hostile kernel answers: what it says is bounded in size and number, and nothing in it is trusted but its form.
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
        name: relative to the working folder, with slashes between folders.
        size_bytes: its size when it was looked at.
    """

    name: str
    size_bytes: int


def checked(name: str) -> bytes:
    """A name in UTF-8. Raises FileNameError where it is none; see `sandbox.inside.names`."""
    if (reason := names.objection(name)) is not None:
        raise FileNameError(name, reason)
    return name.encode()


@dataclass(slots=True)
class FileReply:
    """What the host has received of a request for a file.

    Attributes:
        operation: what was asked for; see `sandbox.inside.requests`.
        limits: of the session.
        ending: "result" when the kernel answered, else one of `Loss`; empty until then.
        data: of a file that is read.
        sizes: of files, by name.
        status: what the kernel answered.
    """

    operation: int
    limits: Limits
    ending: str = ""
    data: bytearray = field(default_factory=bytearray)
    sizes: dict[str, int] = field(default_factory=dict)
    status: FileStatus | None = None

    @property
    def most_bytes(self) -> int:
        """That the real kernel sends, beside a few frames."""
        entry = names.MOST_BYTES + wire.PIPE_BUF // 8  # with its head, and as if frames were not full
        return {READ: self.limits.file_bytes, LIST: self.limits.files * entry}.get(self.operation, 0)

    def feed(self, kind: int, data: bytes, serial: int) -> None:
        """Add one frame. Raises GarbageError for one that the real kernel would not send."""
        if kind == wire.DATA and self.operation == READ and len(self.data) + len(data) <= self.limits.file_bytes:
            self.data += data
        elif kind == wire.ENTRY and self.operation == LIST and len(self.sizes) < self.limits.files:
            name, size = wire.read_entry(data)
            if name in self.sizes or names.objection(name) is not None:
                raise GarbageError("a name that is none")
            self.sizes[name] = size
        elif kind == wire.DONE:
            status = FileStatus.unpack(data)
            if status.serial != serial or not self._is_plausible(status):
                raise GarbageError("the end of something else")
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
        """What went wrong with a file, or None."""
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
        """The files, sorted by name."""
        return tuple(FileInfo(name, size) for name, size in sorted(self.sizes.items()))


def check_size(name: str, size: int, limits: Limits) -> None:
    """Raise FileTooLarge where a file that is to be written has too many bytes."""
    if size > limits.file_bytes:
        raise FileTooLarge(name, size, limits.file_bytes)
