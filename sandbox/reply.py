"""What the host has received of one cell."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

from sandbox.inside import formats, wire
from sandbox.inside.wire import GarbageError
from sandbox.result import Image

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
class Images:
    """The images of one cell.

    Attributes:
        most: maximum number of images.
        most_bytes: maximum total size; reduced by each image.
        images: the complete images.
    """

    most: int
    most_bytes: int
    images: list[Image] = field(default_factory=list)
    _kind: int = 0
    _data: bytearray = field(default_factory=bytearray)
    _missing: int = 0  # bytes of the current image

    def begin(self, kind: int, size: int) -> None:
        """Begin an image. Raises GarbageError if a genuine kernel would not send it."""
        self.require_complete()
        if kind >= len(formats.MIMES) or len(self.images) >= self.most or not 0 < size <= self.most_bytes:
            raise GarbageError("an image beyond the limits")
        self.most_bytes -= size
        self._kind, self._missing = kind, size

    def add(self, data: bytes) -> None:
        """Add bytes to the current image. Raises GarbageError for too many, and if the result is not an image."""
        if not 0 < len(data) <= self._missing:
            raise GarbageError("data that belongs to no image")
        self._data += data
        self._missing -= len(data)
        if not self._missing:
            image = bytes(self._data)
            self._data.clear()
            if not formats.is_image(self._kind, image):
                raise GarbageError("not an image of its type")
            self.images.append(Image(formats.MIMES[self._kind], image))

    def require_complete(self) -> None:
        """Raise GarbageError if the current image is incomplete."""
        if self._missing:
            raise GarbageError("an incomplete image")


@dataclass(slots=True)
class Reply:
    """What the host has received of one cell.

    Attributes:
        most: characters of what was printed that are kept, at its beginning and at its end.
        images: the images that it displays; None if not requested.
        ending: "result" when the kernel answered, else "timeout", "died", "flood", "memory" or "garbage"; empty until
            then.
        interrupted: whether its time was up and it was interrupted.
        head, tail: the beginning of what was printed, and the end of it where something is missing in between.
        gap: how many characters are missing there, of all and of stdout; None where nothing is.
        value, error, late: texts, of which `outcome` says whether they are meant.
        outcome: what the kernel answered.
        status: how the process ended (negative: by which signal); None unless it died.
        size: bytes of all frames except images.
    """

    most: int
    images: Images | None = None
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
        if kind != wire.DATA:
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
                if self.images is not None:
                    self.images.require_complete()
                self.outcome = wire.Outcome.unpack(data)
                if self.outcome.serial != serial:
                    raise GarbageError("the result of another cell")
                self.ending = "result"
            elif kind == wire.IMAGE and self.images is not None:
                self.images.begin(*wire.read_image(data))
            elif kind == wire.DATA and self.images is not None:
                self.images.add(data)
            else:
                raise GarbageError("a frame of a strange kind")
        except UnicodeDecodeError as error:
            raise GarbageError("a text that is none") from error
