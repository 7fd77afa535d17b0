"""Markers by the letter of the rules: the whole text, line by line, no regular expressions, nothing incremental."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from start_agent.markers import CONNECTIVES, LANGUAGES, Block, MarkerKind, Match

WORD = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
LANGUAGE = WORD + b"+#.-"


@dataclass
class Reading:
    """What a text holds, and how it ends."""

    matches: list[Match] = field(default_factory=list)
    block: Block = Block.PROSE
    answering: bool = False


def read(text: bytes, think_end: bytes = b"</think>") -> Reading:
    reading = Reading()
    for begin, end in _lines(text):
        column = begin
        if reading.block is not Block.PROSE:
            fence = _after_indent(text, begin, end)
            if text[fence : fence + 3] != b"```":
                continue
            column = fence + 3
            if reading.block is Block.CODE:
                reading.matches.append(Match(MarkerKind.CODE_CLOSE, begin - 1, column, ""))
            reading.block = Block.PROSE
        _read_prose(reading, text, begin, column, end, think_end)
    return reading


def _lines(text: bytes) -> Iterator[tuple[int, int]]:
    """Where each line begins and ends, its line break included."""
    begin = 0
    for line in text.split(b"\n"):
        end = min(begin + len(line) + 1, len(text))
        yield begin, end
        begin = end


def _after_indent(text: bytes, begin: int, end: int) -> int:
    spaces = 0
    while spaces < 3 and begin + spaces < end and text[begin + spaces : begin + spaces + 1] == b" ":
        spaces += 1
    return begin + spaces


def _read_prose(reading: Reading, text: bytes, begin: int, column: int, end: int, think_end: bytes) -> None:
    place = column
    while place < end:
        if text.startswith(think_end, place):
            reading.matches.append(Match(MarkerKind.THINK_END, place, place + len(think_end), ""))
            reading.answering = True
            place += len(think_end)
            continue
        word = next((word for word in CONNECTIVES if _stands_at(text, place, word.encode())), None)
        if word is not None:
            reading.matches.append(Match(MarkerKind.CONNECTIVE, place, place + len(word), word))
            place += len(word)
            continue
        place += 1
    _open(reading, text, begin, column, end)


def _stands_at(text: bytes, place: int, word: bytes) -> bool:
    if not text.startswith(word, place):
        return False
    before, after = text[max(place - 1, 0) : place], text[place + len(word) : place + len(word) + 1]
    if (before and before in WORD + b"`") or not after or after in WORD:
        return False
    rest = text[:place].rstrip(LANGUAGE)
    return not (rest.endswith(b"```") and place - len(rest) <= 32)


def _open(reading: Reading, text: bytes, begin: int, column: int, end: int) -> None:
    line = text[column:end]
    if not line.endswith(b"\n"):
        return
    line = line[:-1].removesuffix(b"\r")
    stripped = line.rstrip(b" \t")
    fence = stripped.rstrip(LANGUAGE)
    language = stripped[len(fence) :].decode().lower()
    if not fence.endswith(b"```") or len(language) > 32 or len(line) - len(stripped) > 8:
        return
    place = column + len(fence) - 3
    if language in LANGUAGES:
        reading.matches.append(Match(MarkerKind.CODE_OPEN, place, end, language))
        reading.block = Block.CODE
    elif place <= begin + 3 and not text[begin:place].strip(b" "):
        reading.block = Block.OTHER
