"""ZMTP 3.0, the protocol of ZeroMQ's sockets, as far as Jupyter needs it. Bytes in, messages out; no input or output.

Both ends of a kernel's connections speak it by this module rather than by libzmq. At the host, since a hostile kernel
is at the other end: libzmq holds a message's frames until the last has come, however many, and aborts the process on
some kinds of broken connections. In the kernel, since libzmq starts two threads and code that forks should find
itself in a process with one. Other clients may connect with libzmq; the tests do.

See https://rfc.zeromq.org/spec/23/.
"""

from __future__ import annotations

from .wire import GarbageError

_MORE, _LONG, _COMMAND = 1, 2, 4
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
SUBSCRIBE_TO_ALL = b"\x01"


def opening(kind: str) -> bytes:
    """All that one side says before its first message: the greeting, and which kind of socket it is."""
    command = b"\x05READY"
    for name, value in ((b"Socket-Type", kind.encode()), (b"Identity", b"")):
        command += bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value
    return _GREETING + bytes([_COMMAND, len(command)]) + command


def encode(frames: list[bytes]) -> bytes:
    """A message."""
    parts = []
    for number, frame in enumerate(frames, 1):
        more = _MORE if number < len(frames) else 0
        size = len(frame)
        parts.append(bytes([more, size]) if size < 256 else bytes([more | _LONG]) + size.to_bytes(8, "big"))
        parts.append(frame)
    return b"".join(parts)


class Decoder:
    """What the other side says, as messages.

    Args:
        most_bytes: the longest message.
        most_frames: frames in a message.
    """

    def __init__(self, most_bytes: int, most_frames: int = 16) -> None:
        self._most_bytes = most_bytes
        self._most_frames = most_frames
        self._buffer = bytearray()
        self._greeted = False
        self._frames: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The messages that these bytes complete. Raises GarbageError for what is not ZMTP, or beyond the bounds."""
        buffer = self._buffer
        buffer += data
        position = 0
        messages = []
        if not self._greeted:
            if len(buffer) < len(_GREETING):
                return []
            if buffer[0] != 0xFF or buffer[9] != 0x7F or buffer[10] < 3 or buffer[12:16] != b"NULL":
                raise GarbageError("not a greeting of ZMTP 3")
            self._greeted = True
            position = len(_GREETING)
        while (frame := self._frame(position)) is not None:
            flags, start, end = frame
            body = bytes(buffer[start:end])
            position = end
            if flags & _COMMAND:
                if not body.startswith(b"\x05READY"):
                    raise GarbageError("a command of ZMTP that is not for us")
                continue
            self._frames.append(body)
            self._held += len(body)
            if not flags & _MORE:
                messages.append(self._frames)
                self._frames, self._held = [], 0
            elif len(self._frames) >= self._most_frames:
                raise GarbageError("a message of too many frames")
        del buffer[:position]
        return messages

    def _frame(self, position: int) -> tuple[int, int, int] | None:
        """Flags, beginning and end of the frame there, once all of it has come."""
        buffer = self._buffer
        if len(buffer) < position + 2:
            return None
        flags = buffer[position]
        if flags & ~(_MORE | _LONG | _COMMAND):
            raise GarbageError("not a frame of ZMTP")
        if flags & _LONG:
            if len(buffer) < position + 9:
                return None
            start = position + 9
            size = int.from_bytes(buffer[position + 1 : start], "big")
        else:
            start = position + 2
            size = buffer[position + 1]
        if self._held + size > self._most_bytes:
            raise GarbageError("a message that is too long")
        return (flags, start, start + size) if len(buffer) >= start + size else None
