"""What the host has heard of one cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sandbox.inside.wire import GarbageError


@dataclass(slots=True)
class Text:
    """A long text's beginning and end, and the number of characters missing in between."""

    head: str = ""
    tail: str = ""
    omitted: int = 0


@dataclass(slots=True)
class Reply:
    """What the host heard of one cell.

    Attributes:
        ending: "reply" when the kernel answered, else "timeout", "died", "flood", "memory" or "garbage".
        interrupted: whether its time was up and it was interrupted.
        printed: all that was printed, in the order of printing.
        stdout: what of it was not printed to stderr.
        content: the kernel's answer, unchecked but for being a dict; empty without one.
        status: how the process ended (negative: by which signal); None unless it died.
    """

    ending: str
    interrupted: bool = False
    printed: Text = field(default_factory=Text)
    stdout: Text = field(default_factory=Text)
    content: dict[str, Any] = field(default_factory=dict)
    status: int | None = None

    def hear(self, content: dict[str, Any]) -> int:
        """Add what a stream message says was printed. Returns how much to count against a flood.

        Raises GarbageError for a message that the real kernel would not send.
        """
        text = content.get("text")
        if not isinstance(text, str):
            raise GarbageError("a stream message without text")
        if "omitted" not in content:
            self.printed.head += text
            if content.get("name") == "stdout":
                self.stdout.head += text
            return len(text) + 1
        plain, counts = content.get("plain"), (content["omitted"], content.get("plain_omitted"))
        if not isinstance(plain, str) or not all(type(count) is int and 0 <= count < 1 << 60 for count in counts):
            raise GarbageError("a stream message of a strange shape")
        self.printed.tail, self.stdout.tail = text, plain
        self.printed.omitted, self.stdout.omitted = (int(count) for count in counts if count is not None)
        return len(text) + len(plain) + 1
