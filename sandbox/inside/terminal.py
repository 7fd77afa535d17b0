"""What a terminal shows of a line that is written over, as progress bars do with theirs. Used on both sides."""

from __future__ import annotations

import re

_HELD = 4096  # characters of a line's states that are kept before they are made one
_PIECE = re.compile(r"\x1b\[([0-?]*)[ -/]*([@-~])|[^\r\b\x1b]+|.", re.DOTALL)


def is_rewritten(line: str) -> bool:
    """Whether the cursor moves back in it."""
    return "\r" in line or "\b" in line


def settled(line: str) -> str:
    """The line as it stands after all of it was written.

    Understood are carriage returns, backspaces and the sequences that erase (K) or move the cursor within what is
    there (C, D, G); other sequences are left out. See ECMA-48. The text is never longer than the line.
    """
    shown, column = "", 0
    for piece in _PIECE.finditer(line):
        text, sequence = piece[0], piece[2]
        if sequence is not None:
            amount = int(piece[1]) if piece[1].isdecimal() and len(piece[1]) < 6 else 0
            if sequence == "K":
                after = "" if amount != 1 else shown[column:]
                shown = (shown[:column] if amount == 0 else " " * column) + after
            elif sequence in "CDG":
                moved = {"C": column + max(1, amount), "D": column - max(1, amount), "G": max(1, amount) - 1}[sequence]
                column = min(max(0, moved), len(shown))
        elif text == "\r":
            column = 0
        elif text == "\b":
            column = max(0, column - 1)
        elif text != "\x1b":
            shown = shown[:column] + text + shown[column + len(text) :]
            column += len(text)
    return shown


class Rewriting:
    """Lets text through, but for a line that is being rewritten: of its states only the last is passed on."""

    def __init__(self) -> None:
        self.held = ""  # from the first carriage return of the line on

    def feed(self, text: str) -> str:
        """What may be passed on, of what is held and the text that follows it."""
        if not self.held and "\r" not in text:
            return text
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
