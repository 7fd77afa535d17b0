"""What the host has received of one cell."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

from sandbox.inside import wire
from sandbox.inside.wire import GarbageError

_TEXTS = {wire.VALUE: "value", wire.ERROR: "error", wire.LATE: "late"}


_STEP_BYTES = 256 << 10  # that are decoded at a time: of 16 MB it takes 50 ms, in which no other thread of Python runs


def _decoded(data: bytes | bytearray) -> str:
    if len(data) <= _STEP_BYTES:
        return data.decode()
    decode = codecs.getincrementaldecoder("utf-8")().decode
    with memoryview(data) as view:
        return "".join(decode(view[start : start + _STEP_BYTES]) for start in range(0, len(data), _STEP_BYTES))


@dataclass(slots=True)
class Text:
    """What was printed, or its beginning or end.

    Attributes:
        most: characters that are kept; the real kernel sends half of that.
    """

    most: int
    _data: bytearray = field(default_factory=bytearray)  # one block, which goes back to Linux as one
    _errors: list[tuple[int, int]] = field(default_factory=list)  # what of it was printed to stderr
    _chars: int = 0

    def add(self, data: bytes, *, to_stderr: bool) -> None:
        """Add what was printed next. Raises UnicodeDecodeError."""
        chars = len(data.decode())
        if self._chars <= self.most:
            self._chars += chars
            if to_stderr:
                self._errors.append((len(self._data), len(self._data) + len(data)))
            self._data += data

    def printed(self) -> str:
        """All of it."""
        return _decoded(self._data)

    def stdout(self) -> str | None:
        """What was not printed to stderr; None where that is all."""
        if not self._errors:
            return None
        starts = [0, *(end for _, end in self._errors)]
        ends = [*(start for start, _ in self._errors), len(self._data)]
        return _decoded(b"".join(self._data[start:end] for start, end in zip(starts, ends, strict=True)))


@dataclass(slots=True)
class Reply:
    """What the host has received of one cell.

    Attributes:
        most: characters of what was printed that are kept, at its beginning and at its end.
        ending: "result" when the kernel answered, else "timeout", "died", "flood", "memory" or "garbage"; empty until
            then.
        interrupted: whether its time was up and it was interrupted.
        head, tail: the beginning of what was printed, and the end of it where something is missing in between.
        gap: how many characters are missing there, of all and of stdout; None where nothing is.
        value, error, late: texts, of which `outcome` says whether they are meant.
        outcome: what the kernel answered.
        status: how the process ended (negative: by which signal); None unless it died.
        size: bytes of all texts.
    """

    most: int
    ending: str = ""
    interrupted: bool = False
    head: Text = field(init=False)
    tail: Text = field(init=False)
    gap: tuple[int, int] | None = None
    value: list[str] = field(default_factory=list)
    error: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    outcome: wire.Outcome | None = None
    status: int | None = None
    size: int = 0

    def __post_init__(self) -> None:
        self.head, self.tail = Text(self.most), Text(self.most)

    def feed(self, kind: int, data: bytes, serial: int) -> None:
        """Add one frame.

        Raises GarbageError for one that the real kernel would not send.
        """
        self.size += len(data)
        try:
            if kind in (wire.STDOUT, wire.STDERR):
                (self.head if self.gap is None else self.tail).add(data, to_stderr=kind == wire.STDERR)
            elif kind in _TEXTS:
                texts: list[str] = getattr(self, _TEXTS[kind])
                texts.append(data.decode())
            elif kind == wire.GAP and self.gap is None:
                self.gap = wire.read_gap(data)
            elif kind == wire.RESULT:
                self.outcome = wire.Outcome.unpack(data)
                if self.outcome.serial != serial:
                    raise GarbageError("the result of another cell")
                self.ending = "result"
            else:
                raise GarbageError("a frame of a strange kind")
        except UnicodeDecodeError as error:
            raise GarbageError("a text that is none") from error
