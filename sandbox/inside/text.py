"""Collects the output of a cell as bounded text. Runs inside the sandbox."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from . import wire
from .earlier import EarlierThreads
from .terminal import Rewriting

FLUSH_SECONDS = 0.05
FLUSH_CHARS = 4096

_MOST_RUNS = 2_048  # runs of one stream sent per cell, before stdout and stderr are ordered more coarsely


class PrintedTooMuch(BaseException):
    """Raised in the model's code by the print that exceeds the limit. `except Exception` does not catch it."""


def overflow(limit: int) -> str:
    """The error message of a cell that has printed too much."""
    return f"OutputLimitError: the code printed more than {limit:,} characters and was stopped."


class CellOutput:
    """The output of the running cell: the beginning is sent to the host at once, of the rest only the end is kept.

    File descriptors 1 and 2 are one file, so that output of child processes and C code is collected too. It is read
    whenever Python prints and when the cell ends, without threads or timers.

    Output of threads of earlier cells, and output while no cell runs, is not part of the running cell's output: its
    beginning is kept in `late`.
    """

    def __init__(self, keep: int, limit: int) -> None:
        self.keep = max(1, keep)
        self.limit = limit
        self.send: Callable[[list[bytes]], None]
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.earlier = EarlierThreads()
        handle, path = tempfile.mkstemp()
        os.close(handle)
        self.file = os.open(path, os.O_RDWR | os.O_APPEND)
        Path(path).unlink()
        self.read = 0
        self.late = ""
        self.begin()

    def take_descriptors(self) -> None:
        """Point descriptors 1 and 2 at the file."""
        os.dup2(self.file, 1)
        os.dup2(self.file, 2)

    def begin(self) -> None:
        """A cell begins: output since the last one ended goes to `late`."""
        with self.lock:
            if os.fstat(self.file).st_size > 0:
                data = os.pread(self.file, 4 * self.keep, self.read)  # of child processes
                self._add_late(data.decode("utf-8", "replace"))
                os.ftruncate(self.file, 0)
            self.read = 0
            self.earlier.begin()
            self.idle = False
            self.printed = 0
            self.total = self.total_plain = 0
            self.line, self.line_name = Rewriting(), "stdout"
            self.sent = self.sent_plain = 0
            self.pending: list[tuple[str, str]] = []
            self.pending_chars = 0
            self.flushed_at = 0.0
            self.runs = 0
            self.tail: deque[tuple[str, str]] = deque()
            self.tail_chars = 0

    def write(self, name: str, text: str) -> None:
        """Add what Python printed to `name` (stdout or stderr). Raises PrintedTooMuch over the limit."""
        if os.getpid() != self.pid:  # a forked child has no way to the host but the shared file
            os.write(1, text.encode("utf-8", "replace"))
            return
        with self.lock:
            if self.idle or self.earlier.has_current():
                self.printed += len(text)
                self._add_late(text)
            else:
                self.collect()
                self._add(name, text)
            over = self.printed > self.limit
            now = time.monotonic()
            if self.pending_chars > FLUSH_CHARS or (now - self.flushed_at > FLUSH_SECONDS and self.runs < _MOST_RUNS):
                self.flush()
                self.flushed_at = now
        if over:
            raise PrintedTooMuch

    def _add_late(self, text: str) -> None:
        self.late += text[: max(0, self.keep - len(self.late))]

    def _add(self, name: str, text: str) -> None:
        self.printed += len(text)
        if name != self.line_name:
            self._pass_on(self.line_name, self.line.end())
            self.line_name = name
        self._pass_on(name, self.line.feed(text))

    def _pass_on(self, name: str, text: str) -> None:
        plain = name == "stdout"
        self.total += len(text)
        self.total_plain += len(text) * plain
        room = self.keep - self.sent
        if room > 0:
            head, text = text[:room], text[room:]
            self.sent += len(head)
            self.sent_plain += len(head) * plain
            self.pending.append((name, head))
            self.pending_chars += len(head)
        if text:
            text = text[-self.keep :]
            self.tail.append((name, text))
            self.tail_chars += len(text)
            while self.tail_chars - len(self.tail[0][1]) >= self.keep:
                self.tail_chars -= len(self.tail.popleft()[1])

    def collect(self) -> None:
        """Read what was written to the descriptors, at most its beginning and end."""
        self.read, text = self._read_file(self.file, "stdout", self.read)
        if text:
            self._add("stdout", text)

    def take_file(self, file: int, name: str) -> None:
        """Add the content of a file, unchanged, as output to `name`."""
        _, text = self._read_file(file, name, 0)
        self.printed += len(text)
        self._pass_on(name, text)

    def _read_file(self, file: int, name: str, start: int) -> tuple[int, str]:
        """The size of a file, and what was written since `start`; of long output, the beginning and the end."""
        size = os.fstat(file).st_size
        if size <= start:
            return start, ""
        new, most = size - start, 4 * self.keep
        if new <= 2 * most:
            data = os.pread(file, new, start)
        else:
            data = os.pread(file, most, start) + os.pread(file, most, size - most)
            self.printed += new - len(data)
            self.total += new - len(data)
            self.total_plain += (new - len(data)) * (name == "stdout")
        return size, data.decode("utf-8", "replace")

    def flush(self) -> None:
        """Send what is pending."""
        if self.pending:
            self.send(self._take_pending())

    def _take_pending(self) -> list[bytes]:
        pending, self.pending, self.pending_chars = self.pending, [], 0
        return self._frames(pending)

    def _frames(self, printed: Iterable[tuple[str, str]]) -> list[bytes]:
        """Output as frames, one or more for each run of the same stream.

        Beyond a number of runs, all of stdout comes first and then all of stderr, to limit the number of small frames.
        """
        runs: list[tuple[str, list[str]]] = []
        for name, text in printed:
            if not runs or runs[-1][0] != name:
                runs.append((name, []))
            runs[-1][1].append(text)
        if len(runs) > max(2, _MOST_RUNS - self.runs):
            names = ("stdout", "stderr")
            runs = [(name, [text for other, texts in runs if other == name for text in texts]) for name in names]
        self.runs += len(runs)
        kinds = {"stdout": wire.STDOUT, "stderr": wire.STDERR}
        return [frame for name, texts in runs for frame in wire.text_frames(kinds[name], "".join(texts))]

    def finish(self) -> list[bytes]:
        """End the cell. Returns the rest as frames, with the number of characters omitted in the middle."""
        with self.lock:
            self.collect()
            self._pass_on(self.line_name, self.line.end())
            self.idle = True
            frames = self._take_pending()
            if self.tail:
                plain = sum(len(text) for name, text in self.tail if name == "stdout")
                omitted = self.total - self.sent - self.tail_chars
                frames.append(wire.gap(omitted, self.total_plain - self.sent_plain - plain))
                frames += self._frames(self.tail)
            self.tail.clear()
            return frames

    def take_late(self) -> str:
        """Return the late output so far, and clear it."""
        with self.lock:
            late, self.late = self.late, ""
        return late
