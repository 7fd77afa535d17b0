"""Renders overwritten lines, such as progress bars, as a terminal shows them. Used on both sides."""

from __future__ import annotations

import re

_HELD = 4096  # characters of a line's states that are buffered before they are merged
_PIECE = re.compile(r"\x1b\[([0-?]*+)[ -/]*+([@-~])|[^\r\b\n\x1b]+|.", re.DOTALL)
_UP_OR_DOWN = re.compile(r"\x1b\[[0-9]*+[AB]")


def shown(text: str) -> str:
    """The text as a terminal finally shows it, without trailing spaces on overwritten lines."""
    if _UP_OR_DOWN.search(text):
        return "\n".join(line.rstrip(" ") for line in settled(text).split("\n"))
    if "\r" not in text and "\b" not in text:
        return text
    lines = text.split("\n")
    return "\n".join(settled(line).rstrip(" ") if "\r" in line or "\b" in line else line for line in lines)


def settled(text: str) -> str:
    """The text as a screen of infinite width and height shows it, with all spaces. Never longer than the input.

    Handles carriage returns, backspaces and the sequences that erase the line or its rest (K) or move the cursor within
    the text (A, B, C, D, G); other sequences are removed. See ECMA-48. Takes linear time.
    """
    rows: list[list[str]] = [[]]
    row = column = 0
    for piece in _PIECE.finditer(text):
        written, sequence, line = piece[0], piece[2], rows[row]
        if sequence is not None:
            amount = int(piece[1]) if piece[1].isdecimal() and len(piece[1]) < 6 else 0
            steps = max(1, amount)
            if sequence == "K" and amount in (0, 2):
                column = column if amount == 0 else 0
                del line[column:]
            elif sequence in "AB":
                row = max(0, row - steps) if sequence == "A" else min(len(rows) - 1, row + steps)
                column = min(column, len(rows[row]))
            elif sequence in "CDG":
                moved = {"C": column + steps, "D": column - steps, "G": steps - 1}[sequence]
                column = min(max(0, moved), len(line))
        elif written == "\n":
            row, column = row + 1, 0
            if row == len(rows):
                rows.append([])
        elif written == "\r":
            column = 0
        elif written == "\b":
            column = max(0, column - 1)
        elif written != "\x1b":
            line[column : column + len(written)] = written
            column += len(written)
    return "\n".join(map("".join, rows))


class Rewriting:
    """Passes text on, but merges the states of a line that is being rewritten, so that only the last one is kept.

    After the cursor has moved up or down, as for several progress bars, everything is passed on unchanged.
    """

    def __init__(self) -> None:
        self.held = ""  # from the first carriage return of the line on
        self._free = False

    def feed(self, text: str) -> str:
        """Add text. Returns the part of the buffer and the text that can be passed on."""
        if self._free or (not self.held and "\r" not in text and "\x1b" not in text):
            return text
        if _UP_OR_DOWN.search(text):
            self._free = True
            return self.end() + text
        lines, newline, last = (self.held + text).rpartition("\n")
        passed = "\n".join(map(_condensed, lines.split("\n"))) + newline
        begin, mark, states = last.partition("\r")
        self.held = mark + states
        if len(self.held) > _HELD:
            before, _, state = states.rpartition("\r")
            self.held = f"\r{settled(before)}\r{state}"
            if len(self.held) > _HELD:  # a single long line
                return passed + begin + self.end()
        return passed + begin

    def end(self) -> str:
        """Return the buffered rest: the line is complete."""
        held, self.held = self.held, ""
        return _condensed(held)


def _condensed(line: str) -> str:
    """Merge the states of a line. Text before the first carriage return was passed on already and stays unchanged."""
    begin, mark, states = line.partition("\r")
    return f"{begin}\r{settled(states)}" if mark else line
