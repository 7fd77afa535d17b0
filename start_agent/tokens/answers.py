"""The final answer in a model's text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

from start_agent.tokens.programs import last_code_block
from start_agent.tokens.stop_strings import before_stop
from start_agent.tokens.stopping import StopKind
from start_agent.trace import SpanKind, Trace, TraceOutcome

__all__ = ["Box", "boxed", "boxes", "final_text", "last_boxed", "last_code_block"]

_ENDED = (TraceOutcome.ANSWERED, TraceOutcome.NO_ANSWER)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# TeX's argument without braces, as in MATH ("$\boxed 2$"): read up to a blank or the end of the mathematics.
_BARE = re.compile(r"\\boxed(?:[ \t]+(?![ \t{])|(?=[\d\\-]))((?:[^\s${}\\]|\\[^\s(){}\[\]]|\{[^{}\n]*\})+)")
_NOTHING = re.compile(r"(?:[\s.…~?_]|\\(?:[,;:! ]|[lcd]?dots\b|q?quad\b))*")


class Box(NamedTuple):
    r"""A box: from ``begin`` (its backslash) to ``end`` (behind its last brace or character)."""

    begin: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    r"""All boxes with a content, in the order in which they begin.

    A box is ``\boxed{…}`` or ``\fbox{…}`` that is closed, or ``\boxed 7``: one word that has a digit or a command in
    it, or is a single character. Braces nest; an escaped brace (``\{``) is a character like any other. A box with
    nothing in it (``\boxed{}``, ``\boxed{...}``) is words about boxes, and none.
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
    for bare in _BARE.finditer(text):
        content = bare[1].rstrip(".,;:!?)")
        if re.search(r"[\d\\]", content) or (len(content) == 1 and content not in "aI"):
            found.append(Box(bare.start(), bare.start(1) + len(content), content))
    return sorted(box for box in found if not _NOTHING.fullmatch(box.content))


def boxed(text: str) -> list[str]:
    r"""The contents of all boxes that hold no other box, in order: of a list that is asked for, each item may have
    its own."""
    found = boxes(text)
    last = [box.content for box in found[-1:]]
    return [box.content for box, later in pairwise(found) if later.begin >= box.end] + last


def last_boxed(text: str) -> str | None:
    r"""The content of the last box (see ``boxes``); None where there is none."""
    found = boxes(text)
    return found[-1].content if found else None


def final_text(trace: Trace, decode: Callable[[Iterable[int]], str]) -> str | None:
    """What the model wrote after its thinking; all that it wrote where it ended without closing its thinking.

    None where it was stopped while it was still thinking. The same text as ``Trace.answer`` is from. The end of
    sequence is none of it: a fence that it follows closes its block. It ends before a stop string.
    """
    spans = list(trace.of_kind(SpanKind.MODEL))
    ended = bool(spans) and spans[-1].cause == StopKind.EOS
    written = [token_id for span in spans for token_id in span.token_ids]
    if trace.schema == 1:
        return _final_text_of_old(trace, decode(written[:-1] if ended else written))
    if trace.answer_begins is not None:
        token, byte = trace.answer_begins
        ids = trace.token_ids[token:]
        text = decode(ids[:-1] if ended else ids).encode()[byte:]  # nothing is inserted after thinking
        stopped = bool(spans) and spans[-1].cause == StopKind.STOP
        return (before_stop(text, trace.meta["settings"]["stop"]) if stopped else text).decode()
    return decode(written[:-1] if ended else written) if trace.outcome in _ENDED else None


def _final_text_of_old(trace: Trace, text: str) -> str | None:
    """By the first spelling of the end of thinking, as traces of the first schema were read."""
    if not trace.meta.get("thinking", True):
        return text
    _, marker, after = text.partition(trace.meta.get("think_end", "</think>"))
    if marker:
        return after
    return text if trace.outcome in _ENDED else None
