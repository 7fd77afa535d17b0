"""Fenced blocks of code: the lines that open and close a block, and the program in it.

The same rules apply to streamed thoughts (``markers.py``) and to the final text (``programs.py``).

* A fence is a run of at least three backticks or tildes. It opens a block at the beginning of a line, after white space
  and list markers at most. The first word after it is the language; attributes, comments, file names or a version may
  follow (``python title="a.py"``, ``{python}``, ``python:main.py``, ``Python 3``). If further backticks follow a run of
  backticks on the line, it is inline code.
* At the end of a line of prose, a run of backticks with one bare word also opens a block if the word is an executed
  language, because models often write this.
* A block is closed by a run of the same character that is at least as long, at the beginning of a line, indented by at
  most three columns more than the opening fence. A tab extends to the next multiple of four columns.
* In a quoted line (``> ...``), fences are plain text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

LONGEST_LINE = 256
"""In bytes; a fence in a longer line (including its line break) opens no block."""

MOST_INDENT = 3
"""The columns by which a closing fence may be indented more than the opening one, as in CommonMark."""

_TAB = 4  # columns, as in CommonMark
_LEAD = re.compile(rb"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*")
_FENCE = re.compile(rb"(?P<run>`{3,}|~{3,})(?P<info>[^\n]*)")
_AFTER_PROSE = re.compile(rb"(?<!`)(?P<run>`{3,})(?P<info>[\w+#.-]*)[ \t]*\r?\n?\Z")
_CLOSING = re.compile(rb"(?P<lead>[ \t]*)(?P<run>`{3,}|~{3,})")
_LANGUAGE = re.compile(rb"[\s{.]*(?P<word>[\w+#.\x80-\xff-]*)")
_UNDECIDED = re.compile(rb"(?<!`)`{3,}[\w+#.-]*\Z")
_RUN_START = re.compile(rb"(?<!`)`{1,2}\Z|(?<!~)~{1,2}\Z")


class Fence(NamedTuple):
    """An opening fence: ``run`` is its backticks or tildes, ``indent`` the columns before it."""

    run: bytes
    indent: int

    def closed_by(self, line: bytes) -> int:
        """Where a closing fence at the beginning of a (possibly incomplete) line ends; 0 if there is none."""
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
    """A line that opens a block: ``begin`` is the offset of its fence, ``language`` its first word in lower case.

    ``after_prose``: it counts only if the language is executed.
    """

    fence: Fence
    begin: int
    language: str
    after_prose: bool


def opening(line: bytes, *, begins: bool = True) -> Opening | None:
    """The block that a line opens; None if it opens none.

    Args:
        line: with or without its line break.
        begins: whether ``line`` has the beginning of the line, or is only its end.
    """
    lead = _LEAD.match(line)
    assert lead is not None  # it matches the empty text
    if begins and line[: lead.end() + 1].lstrip(b" \t").startswith(b">"):
        return None
    found = _FENCE.match(line, lead.end()) if begins and len(line) <= LONGEST_LINE else None
    if found is not None and not (found["run"].startswith(b"`") and b"`" in found["info"]):
        return Opening(Fence(found["run"], _columns(lead.group())), found.start(), _language(found["info"]), False)
    found = _AFTER_PROSE.search(line)
    if found is None:
        return None
    fence = Fence(found["run"], _columns(lead.group()) if begins else 0)
    return Opening(fence, found.start(), _language(found["info"]), True)


def may_open(line: bytes, *, begins: bool) -> bool:
    """Whether an incomplete line may still open a block with a fence that it already has."""
    if begins and (opened := opening(line)) is not None and not opened.after_prose:
        return True
    return _UNDECIDED.search(line) is not None


def fence_begun(line: bytes, *, begins: bool) -> int:
    """How many of the last bytes of an incomplete line may belong to a fence that opens a block; 0 for none."""
    if begins and (opened := opening(line)) is not None and not opened.after_prose:
        return len(line) - opened.begin
    found = _UNDECIDED.search(line) or _RUN_START.search(line)
    return 0 if found is None else len(line) - found.start()


def is_one_of(language: str, languages: Collection[str]) -> bool:
    """Whether a language is in ``languages`` (lower case), with or without a version (``python3.12``, ``py3``)."""
    unversioned = language.rstrip("0123456789.")
    return language in languages or (unversioned != "" and unversioned in languages)


def program(block: bytes) -> str:
    """The program in the text of a block, without common indentation.

    The indentation of the first line of code is removed from every line, or as much of it as the line has: in a list,
    or with an indented fence, all lines are indented, but those of a long string may begin further left.
    """
    lines = block.decode("utf-8", errors="replace").replace("\r\n", "\n").removesuffix("\r").split("\n")
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    margin = first[: len(first) - len(first.lstrip(" \t"))]
    return "\n".join(line[_shared(margin, line) :] for line in lines)


def _shared(margin: str, line: str) -> int:
    """The number of characters of the margin with which a line begins."""
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
