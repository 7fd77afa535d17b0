"""The final answer in a model's text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from start_agent.trace import SpanKind, Trace, TraceOutcome
from start_agent.watch import StopKind

_BLOCK = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_PYTHON = frozenset({"", "python", "python3", "py"})
_BOX = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


class Box(NamedTuple):
    r"""A closed ``\boxed{…}``: from ``begin`` (its backslash) to ``end`` (behind its last brace)."""

    begin: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    r"""All boxes that are closed, in the order in which they begin.

    Braces nest; an escaped brace (``\{``) is a character like any other. An unterminated box is none.
    """
    begins = {box.end(): box.start() for box in _BOX.finditer(text)}
    # One pass over all braces: a search from each box would be quadratic where none of them is closed.
    open_braces: list[int] = []
    found: list[Box] = []
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            open_braces.append(brace.end())
        elif brace.group() == "}" and open_braces:
            opened = open_braces.pop()
            if opened in begins:
                found.append(Box(begins[opened], brace.end(), text[opened : brace.start()].strip()))
    return sorted(found)


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{…}`` that is closed (see ``boxes``); None where there is none."""
    found = boxes(text)
    return found[-1].content if found else None


def last_code_block(text: str) -> str | None:
    """The Python of the last block of code that is closed; None where there is none.

    A block is fenced by lines of three backticks. Blocks of another language are passed over.
    """
    blocks = [block[2] for block in _BLOCK.finditer(text) if block[1].lower() in _PYTHON]
    return blocks[-1] if blocks else None


def final_text(trace: Trace, decode: Callable[[Iterable[int]], str]) -> str | None:
    """What the model wrote after its thinking; all that it wrote where it ended without closing its thinking.

    None where it was stopped while it was still thinking. The same rule as for ``Trace.answer``. The end of sequence
    is none of it: a fence that it follows closes its block.
    """
    spans = list(trace.of_kind(SpanKind.MODEL))
    token_ids = [token_id for span in spans for token_id in span.token_ids]
    if spans and spans[-1].cause == StopKind.EOS:
        token_ids = token_ids[:-1]
    text = decode(token_ids)
    if trace.meta.get("thinking", True):
        _, marker, after = text.partition(trace.meta.get("think_end", "</think>"))
        if marker:
            return after
        return text if trace.outcome in (TraceOutcome.ANSWERED, TraceOutcome.NO_ANSWER) else None
    return text
