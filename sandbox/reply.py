"""What the host has heard of one cell."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.inside import wire
from sandbox.inside.wire import GarbageError


@dataclass(slots=True)
class Text:
    """A long text's beginning and end, and the number of characters missing in between.

    Attributes:
        most: characters of each that are kept; the real kernel sends half of that.
    """

    most: int
    head: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    omitted: int = 0
    _chars: int = 0

    def add(self, text: str) -> None:
        """Add to the beginning."""
        if self._chars <= self.most:
            self._chars += len(text)
            self.head.append(text)

    def add_end(self, text: str) -> None:
        """Add to the end."""
        if self._chars <= 2 * self.most:
            self._chars += len(text)
            self.tail.append(text)


@dataclass(slots=True)
class Reply:
    """What the host heard of one cell.

    Attributes:
        most: characters of what was printed that are kept, at its beginning and at its end.
        ending: "result" when the kernel answered, else "timeout", "died", "flood", "memory" or "garbage"; empty until
            then.
        interrupted: whether its time was up and it was interrupted.
        printed: all that was printed, in the order of printing.
        stdout: what of it was not printed to stderr.
        value, error, late: texts, of which `outcome` says whether they are meant.
        outcome: what the kernel answered.
        status: how the process ended (negative: by which signal); None unless it died.
    """

    most: int
    ending: str = ""
    interrupted: bool = False
    printed: Text = field(init=False)
    stdout: Text = field(init=False)
    value: list[str] = field(default_factory=list)
    error: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    outcome: wire.Outcome | None = None
    status: int | None = None
    _ends: bool = False

    def __post_init__(self) -> None:
        self.printed, self.stdout = Text(self.most), Text(self.most)

    def hear(self, kind: int, data: bytes, serial: int) -> None:
        """Take in one frame.

        Raises GarbageError for one that the real kernel would not send.
        """
        if kind in wire.TEXTS:
            text = data.decode("utf-8", "replace")
            if kind in (wire.STDOUT, wire.STDERR):
                for stream in (self.printed, self.stdout) if kind == wire.STDOUT else (self.printed,):
                    stream.add_end(text) if self._ends else stream.add(text)
            else:
                {wire.VALUE: self.value, wire.ERROR: self.error, wire.LATE: self.late}[kind].append(text)
        elif kind == wire.GAP and not self._ends:
            self._ends = True
            self.printed.omitted, self.stdout.omitted = wire.read_gap(data)
        elif kind == wire.RESULT:
            self.outcome = wire.Outcome.unpack(data)
            if self.outcome.serial != serial:
                raise GarbageError("the result of another cell")
            self.ending = "result"
        else:
            raise GarbageError("a frame of a strange kind")
