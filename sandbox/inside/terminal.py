"""What a terminal shows of a line that is written over, as progress bars do with theirs. Used on both sides."""

from __future__ import annotations

import re

_HELD = 4096  # characters of a line's states that are kept before they are made one
_PIECE = re.compile(r"\x1b\[([0-?]*+)[ -/]*+([@-~])|[^\r\b\n\x1b]+|.", re.DOTALL)
_UP_OR_DOWN = re.compile(r"\x1b\[[0-9]*+[AB]")


def shown(text: str) -> str:
    """The text as it stands after all of it was written, without spaces at the end of lines that were written over."""
    if _UP_OR_DOWN.search(text):
        return "\n".join(line.rstrip(" ") for line in settled(text).split("\n"))
    if "\r" not in text and "\b" not in text:
        return text
    lines = text.split("\n")
    return "\n".join(settled(line).rstrip(" ") if "\r" in line or "\b" in line else line for line in lines)


def settled(text: str) -> str:
    """The text as a screen of endless width and height shows it, with all of its spaces. Never longer than the text.

    Understood are carriage returns, backspaces and the sequences that erase the line or its rest (K) or move the cursor
    within what is there (A, B, C, D, G); other sequences are left out. See ECMA-48. The time is linear in the text.
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
    """Lets text through, but for a line that is being rewritten: of its states only the last is passed on.

    Once the cursor has gone up, as for bars below one another, all is let through.
    """

    def __init__(self) -> None:
        self.held = ""  # from the first carriage return of the line on
        self._free = False

    def feed(self, text: str) -> str:
        """What may be passed on, of what is held and the text that follows it."""
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
            if len(self.held) > _HELD:  # one long line
                return passed + begin + self.end()
        return passed + begin

    def end(self) -> str:
        """What is held: nothing more of the line is waited for."""
        held, self.held = self.held, ""
        return _condensed(held)


def _condensed(line: str) -> str:
    """The line with its states made one. What was written of it before stays apart: it is on the screen already."""
    begin, mark, states = line.partition("\r")
    return f"{begin}\r{settled(states)}" if mark else line
