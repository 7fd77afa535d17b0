"""The result of one cell, and the text that a model reads of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from sandbox.inside.cut import cut_middle, was_cut
from sandbox.inside.terminal import shown

__all__ = ["Image", "Outcome", "Result", "clean", "cut_middle", "was_cut"]

# CSI, OSC, other strings, character sets and two-character escape sequences (ECMA-48, ECMA-35). An unterminated
# sequence hides at most its line.
_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|\][^\x07\x1b\n]*+(?:\x07|\x1b\\)?|[PX^_][^\x1b\n]*+\x1b\\"
    r"|[()*+][0-9A-Z]|[@-Z\\-_7-9=>])"
)


class Outcome(StrEnum):
    """How a cell ended. Everything but OK is the fault of the code."""

    OK = "ok"
    ERROR = "error"
    """It raised an exception (`sys.exit()` and `input()` past the end of stdin among them)."""
    TIMEOUT = "timeout"
    """It exceeded its timeout and was interrupted or killed."""
    MEMORY = "memory"
    """It raised MemoryError at the memory limit, or its processes exceeded their total limit."""
    DIED = "died"
    """Its process ended or broke: `os._exit`, a segmentation fault, invalid messages from the kernel."""
    OUTPUT = "output"
    """It printed more than `Limits.printed_chars` and was stopped."""
    CELLS = "cells"
    """It was not run: the session has reached `Limits.cells`."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a cell displayed. Only its signature, size and end were checked; decoding it may still fail.

    Attributes:
        mime: "image/png" or "image/jpeg".
        data: the content of the file; at most 33,554,432 pixels according to its header.
    """

    mime: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one cell.

    Attributes:
        outcome: how it ended.
        stdout: what the cell printed to stdout, and all output of child processes, cut in the middle if too long.
        value: the last expression's value as a notebook shows it, or None if there was none.
        error: a compact traceback or a one-line message; None if the cell succeeded.
        duration_s: wall time in seconds.
        printed: stdout and stderr in the order of printing, cut likewise; None if that is the same as `stdout`.
        late: what threads of earlier cells printed meanwhile, and what was printed since the last cell; not part of
            the above. Only the beginning is kept.
        truncated: whether anything was cut from the output, value or error, or a requested image is missing: there were
            more or larger ones than `Limits` allows, or one could not be drawn.
        state_lost: whether the session's variables are gone (the next cell starts on a fresh kernel).
        exit_status: exit status of a fork that did not reach the end of the cell: 0 for `os._exit(0)`, negative for a
            signal. None otherwise.
        images: what it displayed, in order, if requested with ``execute(images=True)``.
    """

    outcome: Outcome
    stdout: str = ""
    value: str | None = None
    error: str | None = None
    duration_s: float = 0.0
    truncated: bool = False
    state_lost: bool = False
    printed: str | None = None
    late: str = ""
    exit_status: int | None = None
    images: tuple[Image, ...] = ()

    @classmethod
    def no_more_cells(cls, limit: int) -> Self:
        """The result of a cell that was not run because the session has reached its `limit` of cells."""
        return cls(Outcome.CELLS, error=f"LimitError: no more code runs here, after {limit:,} cells.")

    @property
    def text(self) -> str:
        """What the model reads: the printed text, then the value, then the error, without a trailing newline.

        Empty if the cell printed and returned nothing; the caller decides how to show that.
        """
        printed = self.stdout if self.printed is None else self.printed
        parts = [printed.rstrip("\n"), self.value, self.error]
        return "\n".join(part for part in parts if part).rstrip("\n")


_CONTROLS = "\x1b\r\b"
_MOST_CONTROLS = 4_000  # with more, a text is not rendered as a terminal would: it is not readable anyway
_MOST_CHARS = 64 << 10


def clean(text: str) -> str:
    """The text as a terminal finally shows it.

    Overwritten lines are shown in their final state (except in texts of more than 64 K characters) and ANSI sequences
    removed; if there are thousands, only the control characters are removed. Takes the host a few milliseconds for any
    text.
    """
    controls = sum(map(text.count, _CONTROLS))
    if controls > _MOST_CONTROLS:
        for control in _CONTROLS:
            text = text.replace(control, "")
    elif controls:
        text = _ANSI.sub("", shown(text) if len(text) <= _MOST_CHARS else text)
    return text
