"""A reference parser of markers: on the whole text, line by line, without regular expressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from start_agent.tokens.markers import CONNECTIVES, LANGUAGES, Block, MarkerKind, Match

LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
LANGUAGE = LETTERS + b"+#.-"
WIDE = LANGUAGE + bytes(range(0x80, 0x100))
LONGEST = 256  # bytes of a line that a fence begins


@dataclass
class TraceView:
    """What a text holds, and how it ends."""

    matches: list[Match] = field(default_factory=list)
    block: Block = Block.PROSE
    answering: bool = False
    run: bytes = b""  # the fence of the open block ...
    indent: int = 0  # ... and its column


@dataclass
class Fence:
    """The first fence of a line, with what stands before and behind it."""

    place: int
    run: bytes
    info: bytes
    indent: int


def read(text: bytes, think_end: bytes = b"</think>") -> TraceView:
    reading = TraceView()
    for begin, end in _lines(text):
        start = begin
        if reading.block is Block.CODE and (closed := _closed(reading, text[begin:end])):
            reading.matches.append(Match(MarkerKind.CODE_CLOSE, begin - 1, begin + closed, ""))
            reading.block, start = Block.PROSE, begin + closed
        if _read_line(reading, text, begin, start, end, think_end):
            reading.block, reading.answering = Block.PROSE, True
            break
        if text[begin:end].endswith(b"\n"):
            _end_line(reading, text, begin, start, end)
    return reading


def _lines(text: bytes) -> Iterator[tuple[int, int]]:
    """Where each line begins and ends, its line break included."""
    begin = 0
    for line in text.split(b"\n"):
        end = min(begin + len(line) + 1, len(text))
        yield begin, end
        begin = end


def _blanks(line: bytes, place: int = 0) -> int:
    while line[place : place + 1] in (b" ", b"\t"):
        place += 1
    return place


def _run(line: bytes, place: int) -> bytes:
    mark = line[place : place + 1]
    if mark not in (b"`", b"~"):
        return b""
    end = place
    while line[end : end + 1] == mark:
        end += 1
    return line[place:end] if end - place >= 3 else b""


def _column(lead: bytes) -> int:
    column = 0
    for byte in lead:
        column = column + 4 - column % 4 if byte == ord("\t") else column + 1
    return column


def _lead(line: bytes) -> int:
    """Where the blanks and list markers end that a line begins with."""
    place = _blanks(line)
    while True:
        mark = place
        if line[mark : mark + 1] in (b"-", b"*", b"+"):
            mark += 1
        else:
            while mark - place < 9 and line[mark : mark + 1].isdigit():
                mark += 1
            if mark == place or line[mark : mark + 1] not in (b".", b")"):
                return place
            mark += 1
        after = _blanks(line, mark)
        if after == mark:
            return place
        place = after


def _closed(reading: TraceView, line: bytes) -> int:
    place = _blanks(line)
    run = _run(line, place)
    if not run.startswith(reading.run) or _column(line[:place]) > reading.indent + 3:
        return 0
    end = place + len(reading.run)
    return end if end <= LONGEST else 0


def _first_fence(line: bytes) -> Fence | None:
    """The fence that begins a line; what follows it is known up to where the line ends."""
    lead = _lead(line)
    run = _run(line, lead)
    info = line[lead + len(run) :].removesuffix(b"\n")
    if not run or (run.startswith(b"`") and b"`" in info):
        return None
    return Fence(lead, run, info, _column(line[:lead]))


def _last_fence(line: bytes, word_end: int) -> Fence | None:
    """Backticks and one bare word that end where ``word_end`` says."""
    word = word_end
    while word and line[word - 1] in LANGUAGE:
        word -= 1
    run = word
    while run and line[run - 1 : run] == b"`":
        run -= 1
    if word - run < 3:
        return None
    return Fence(run, line[run:word], line[word:word_end], _column(line[: _lead(line)]))


def _read_line(reading: TraceView, text: bytes, begin: int, start: int, end: int, think_end: bytes) -> bool:
    """The markers within a line; whether the thinking ends there."""
    place = start
    while place < end:
        if text.startswith(think_end, place) and (
            reading.block is Block.PROSE or _may_end(text[start:place], start == begin)
        ):
            reading.matches.append(Match(MarkerKind.THINK_END, place, place + len(think_end), ""))
            return True
        word = next((word for word in CONNECTIVES if _stands_at(text, place, word.encode())), None)
        if word is not None and reading.block is Block.PROSE:
            if not _may_open(text[start:place], start == begin):
                reading.matches.append(Match(MarkerKind.CONNECTIVE, place, place + len(word), word))
            place += len(word)
            continue
        place += 1
    return False


def _may_end(before: bytes, begins: bool) -> bool:
    stripped = before.rstrip(b" \t")
    return (begins and not stripped and len(before) <= LONGEST) or stripped[-3:] in (b"```", b"~~~")


def _may_open(before: bytes, begins: bool) -> bool:
    if begins and len(before) <= LONGEST and not before.lstrip(b" \t").startswith(b">") and _first_fence(before):
        return True
    return _last_fence(before, len(before)) is not None


def _stands_at(text: bytes, place: int, word: bytes) -> bool:
    if not text.startswith(word, place):
        return False
    before, after = text[max(place - 1, 0) : place], text[place + len(word) : place + len(word) + 1]
    return not (before and before in LETTERS + b"`") and bool(after) and after not in LETTERS


def _end_line(reading: TraceView, text: bytes, begin: int, start: int, end: int) -> None:
    """What opens or closes with a whole line."""
    line, whole = text[start:end], start == begin
    if reading.block is Block.CODE:
        return
    quoted = whole and line.lstrip(b" \t").startswith(b">")
    first = _first_fence(line) if whole and len(line) <= LONGEST and not quoted else None
    bare = line[:-1].removesuffix(b"\r").rstrip(b" \t")
    fence = first if first or quoted else _last_fence(line, len(bare))
    if fence and fence.run.startswith(reading.run if reading.block is Block.OTHER else b""):
        language = _language(fence.info)
        if language in LANGUAGES or (language.rstrip("0123456789.") in LANGUAGES):
            reading.matches.append(Match(MarkerKind.CODE_OPEN, start + fence.place, end, language))
            reading.block, reading.run = Block.CODE, fence.run
            reading.indent = fence.indent if whole and (first or len(line) <= LONGEST) else 0
            return
        if first and reading.block is Block.PROSE:
            reading.block, reading.run, reading.indent = Block.OTHER, fence.run, fence.indent
            return
    if reading.block is Block.OTHER and whole and (closed := _closed(reading, line)):
        rest = line[closed:].lstrip(reading.run[:1])
        if rest[:1] in (b" ", b"\t", b"\r", b"\n", b"\v", b"\f"):
            reading.block = Block.PROSE


def _language(info: bytes) -> str:
    info = info.lstrip(b" \t\r\n\v\f{.")
    length = 0
    while length < len(info) and info[length] in WIDE:
        length += 1
    return info[:length].decode(errors="replace").lower()
