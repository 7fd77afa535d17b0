"""File operations in the working folder, run between cells.

Code may have put anything there, and its threads and processes may change it meanwhile. Links are never followed, only
regular files are opened, and a file that grows is read up to its size at the beginning. Folders are opened relative to
the descriptor of the one above, which is then closed: the kernel has only a few descriptors in reserve.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from stat import S_ISREG
from typing import Any

from . import wire
from .names import MOST_PARTS, objection
from .requests import LIST, READ, REMOVE, WRITE, Data, FileRequest
from .wire import FileStatus

_CLOSED = os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | _CLOSED
_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _CLOSED
_MAKING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOSED
_UMASK = 0o022

# Errors for a path component that is not a folder, or a path that does not lead to a file. (With O_NOFOLLOW, links fail
# with ELOOP; sockets fail with ENXIO.)
_NO_FILE = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)


class _FailedError(Exception):
    """An operation failed. Arguments: ending and number of its `FileStatus`."""


class Files:
    """Runs file operations.

    Args:
        settings: of this kernel.
        send: function that sends frames to the host.
    """

    def __init__(self, settings: dict[str, Any], send: Callable[[list[bytes]], None]) -> None:
        self._home = settings["home"]
        self._most_bytes = settings["file_bytes"]
        self._most_files = settings["files"]
        self._send = send

    def serve(self, request: FileRequest) -> None:
        """Run an operation and send its data and its result."""
        ending, number = "ok", 0
        try:
            umask = os.umask(_UMASK)
            try:
                number = self._serve(request.operation, bytes(request.name).decode(), request.data)
            finally:
                os.umask(umask)
        except _FailedError as error:
            ending, number = error.args
        except FileNotFoundError:
            ending = "missing"
        except OSError as error:
            ending, number = ("no file", 0) if error.errno in _NO_FILE else ("refused", error.errno or errno.EIO)
        except MemoryError:
            ending, number = "refused", errno.ENOMEM
        self._send([wire.frame(wire.DONE, FileStatus(request.serial, ending, number).pack())])

    def _serve(self, operation: int, name: str, data: Data) -> int:
        """Run an operation. Returns the number of its `FileStatus`."""
        if operation == WRITE:
            return self._write(name, data)
        if operation == READ:
            return self._read(name)
        if operation == REMOVE:
            with self._folder_of(name) as (folder, last):
                _require_file(os.stat(last, dir_fd=folder, follow_symlinks=False))
                os.unlink(last, dir_fd=folder)
            return 0
        assert operation == LIST
        frames = []
        for path, entry in self._walk():
            with suppress(FileNotFoundError):
                frames.append(wire.entry(path.encode(), entry.stat(follow_symlinks=False).st_size))
        self._send(frames)
        return len(frames)

    def _write(self, name: str, data: Data) -> int:
        """Write a new file under another name, and rename it."""
        try:
            with self._folder_of(name) as (folder, last):
                _require_file(os.stat(last, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            if sum(1 for _ in self._walk()) >= self._most_files:
                raise _FailedError("too many", 0) from None
        beside = f".{os.urandom(12).hex()}"
        with self._folder_of(name, make=True) as (folder, last):
            file = os.open(beside, _MAKING, 0o644, dir_fd=folder)
            try:
                try:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[os.write(file, rest) :]
                finally:
                    os.close(file)
                os.rename(beside, last, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(beside, dir_fd=folder)
                raise
        return len(data)

    def _read(self, name: str) -> int:
        with self._folder_of(name) as (folder, last):
            _require_file(
                os.stat(last, dir_fd=folder, follow_symlinks=False)
            )  # opening a device or FIFO can have effects
            file = os.open(last, _READING, dir_fd=folder)
        try:
            found = os.fstat(file)
            _require_file(found)
            size = found.st_size
            if size > self._most_bytes:
                raise _FailedError("too large", size)
            sent = 0
            while piece := os.read(file, min(size - sent, wire.FRAME_BYTES)):
                self._send([wire.frame(wire.DATA, piece)])
                sent += len(piece)
            return sent
        finally:
            os.close(file)

    def _walk(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """All files with valid names (see `names`). Raises _FailedError if there are too many.

        Folders that cannot be read, or change meanwhile, are left out.
        """
        files, folders, waiting = 0, 0, deque([""])
        while waiting:
            inside = waiting.popleft()
            # The dot stands for any file in the folder.
            with suppress(OSError), self._folder_of(f"{inside}.") as (folder, _), os.scandir(folder) as entries:
                for entry in entries:
                    path = f"{inside}{entry.name}"
                    if objection(path) is not None:
                        continue
                    if entry.is_file(follow_symlinks=False):
                        files += 1
                        yield path, entry
                    elif entry.is_dir(follow_symlinks=False):
                        folders += 1
                        waiting.append(f"{path}/")
                    if files > self._most_files or folders > MOST_PARTS * self._most_files:
                        raise _FailedError("too many", 0)

    @contextmanager
    def _folder_of(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder of a file. Yields its descriptor and the last component of the name.

        Args:
            name: of the file.
            make: whether to create missing folders.
        """
        *folders, last = name.split("/")
        here = os.open(self._home, _FOLDER)
        try:
            for folder in folders:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(folder, 0o755, dir_fd=here)
                outer, here = here, os.open(folder, _FOLDER, dir_fd=here)
                os.close(outer)
            yield here, last
        finally:
            os.close(here)


def _require_file(found: os.stat_result) -> None:
    if not S_ISREG(found.st_mode):
        raise _FailedError("no file", 0)
