"""Fenced blocks of code: which line opens one, which closes it, and what in it is the program.

One reading for the thoughts, which come as a stream (``markers.py``), and for the final text (``programs.py``).

* A fence is a run of at least three backticks or tildes. It opens a block where it begins its line, behind nothing but
  blanks and list markers. The first word behind it is the language; attributes, comments, file names or a version may
  follow it (``python title="a.py"``, ``{python}``, ``python:main.py``, ``Python 3``). Backticks behind a run of
  backticks make inline code of it.
* At the end of a line of prose, a run of backticks and one bare word open a block too, where the word is a language
  that is run: models often write it so.
* A block is closed by a run of the same character that is at least as long and begins its line, indented by at most
  three columns more than the opening fence. A tab reaches to the next multiple of four columns.
* A line that is quoted (``> ...``) is somebody's words: fences in it are text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

LONGEST_LINE = 256
"""Bytes; a fence that begins a longer line, its line break included, opens nothing."""

MOST_INDENT = 3
"""Columns by which a closing fence may be indented more than the opening one, as in CommonMark."""

_TAB = 4  # columns, as in CommonMark
_LEAD = re.compile(rb"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*")
_FENCE = re.compile(rb"(?P<run>`{3,}|~{3,})(?P<info>[^\n]*)")
_BEHIND_PROSE = re.compile(rb"(?<!`)(?P<run>`{3,})(?P<info>[\w+#.-]*)[ \t]*\r?\n?\Z")
_CLOSING = re.compile(rb"(?P<lead>[ \t]*)(?P<run>`{3,}|~{3,})")
_LANGUAGE = re.compile(rb"[\s{.]*(?P<word>[\w+#.\x80-\xff-]*)")
_UNDECIDED = re.compile(rb"(?<!`)`{3,}[\w+#.-]*\Z")
_RUN_BEGUN = re.compile(rb"(?<!`)`{1,2}\Z|(?<!~)~{1,2}\Z")


class Fence(NamedTuple):
    """What opened a block: ``run``, the backticks or tildes, stands behind ``indent`` columns."""

    run: bytes
    indent: int

    def closed_by(self, line: bytes) -> int:
        """Where the closing fence ends with which a line, or what there is of it, begins; 0 where there is none."""
        found = _CLOSING.match(line)
        if (
            found is None
            or not found["run"].startswith(self.run)
            or _columns(found["lead"]) > self.indent + MOST_INDENT
        ):
            return 0
        end = found.start("run") + len(self.run)
        return end if end <= LONGEST_LINE else 0


class Opening(NamedTuple):
    """A line that opens a block: ``begin`` is where its fence stands, ``language`` its first word in lower case.

    ``behind_prose``: it counts only where the language is one that is run.
    """

    fence: Fence
    begin: int
    language: str
    behind_prose: bool


def opening(line: bytes, *, begins: bool = True) -> Opening | None:
    """What a line opens; None where it opens nothing.

    Args:
        line: with or without its line break.
        begins: whether all of the line is there; else it is the end of one.
    """
    lead = _LEAD.match(line)
    assert lead is not None  # it matches the empty text
    if begins and line[: lead.end() + 1].lstrip(b" \t").startswith(b">"):
        return None
    found = _FENCE.match(line, lead.end()) if begins and len(line) <= LONGEST_LINE else None
    if found is not None and not (found["run"].startswith(b"`") and b"`" in found["info"]):
        return Opening(Fence(found["run"], _columns(lead.group())), found.start(), _language(found["info"]), False)
    found = _BEHIND_PROSE.search(line)
    if found is None:
        return None
    fence = Fence(found["run"], _columns(lead.group()) if begins else 0)
    return Opening(fence, found.start(), _language(found["info"]), True)


def may_open(line: bytes, *, begins: bool) -> bool:
    """Whether a line that goes on may still open a block with a fence that is there already."""
    if begins and (opened := opening(line)) is not None and not opened.behind_prose:
        return True
    return _UNDECIDED.search(line) is not None


def fence_begun(line: bytes, *, begins: bool) -> int:
    """How many of the last bytes of a line that goes on may belong to a fence that opens a block; 0 for none."""
    if begins and (opened := opening(line)) is not None and not opened.behind_prose:
        return len(line) - opened.begin
    found = _UNDECIDED.search(line) or _RUN_BEGUN.search(line)
    return 0 if found is None else len(line) - found.start()


def is_one_of(language: str, languages: Collection[str]) -> bool:
    """Whether a language is among some, all in lower case, whatever version is named (``python3.12``, ``py3``)."""
    unversioned = language.rstrip("0123456789.")
    return language in languages or (unversioned != "" and unversioned in languages)


def program(block: bytes) -> str:
    """What of the text inside a block is run: as Python wants it, without indentation of the whole.

    The indentation of the first line of code is taken from every line, or as much of it as a line has: a list, a
    quoted text or a fence that is indented moves all lines alike, but those of a long string may begin further left.
    """
    lines = block.decode("utf-8", errors="replace").replace("\r\n", "\n").removesuffix("\r").split("\n")
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    margin = first[: len(first) - len(first.lstrip(" \t"))]
    return "\n".join(line[_shared(margin, line) :] for line in lines)


def _shared(margin: str, line: str) -> int:
    """How many characters of the margin a line begins with."""
    length = 0
    while length < len(margin) and line[length : length + 1] == margin[length]:
        length += 1
    return length


def _language(info: bytes) -> str:
    found = _LANGUAGE.match(info)
    assert found is not None  # it matches the empty text
    return found["word"].decode("utf-8", errors="replace").lower()


def _columns(lead: bytes) -> int:
    return len(lead.expandtabs(_TAB))
