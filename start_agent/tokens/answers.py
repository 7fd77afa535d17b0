"""Finds the final answer in a model's text."""

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
# TeX's argument without braces, as in MATH ("$\boxed 2$"): up to a space or the end of the math.
_BARE = re.compile(r"\\boxed(?:[ \t]+(?![ \t{])|(?=[\d\\-]))((?:[^\s${}\\]|\\[^\s(){}\[\]]|\{[^{}\n]*\})+)")
_NOTHING = re.compile(r"(?:[\s.…~?_]|\\(?:[,;:! ]|[lcd]?dots\b|q?quad\b))*")


class Box(NamedTuple):
    r"""A box: from ``begin`` (its backslash) to ``end`` (after its last brace or character)."""

    begin: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    r"""All boxes with content, in the order in which they begin.

    A box is a closed ``\boxed{…}`` or ``\fbox{…}``, or ``\boxed 7`` with one word that contains a digit or a command,
    or is a single character. Braces may be nested; an escaped brace (``\{``) is an ordinary character. An empty box
    (``\boxed{}``, ``\boxed{...}``) only talks about boxes and does not count.
    """
    begins = {box.end(): box.start() for box in _BOX.finditer(text)}
    # One pass over all braces: a search from each box would be quadratic if none of them is closed.
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
    r"""The contents of all boxes without a nested box, in order; each item of a list may have its own box."""
    found = boxes(text)
    last = [box.content for box in found[-1:]]
    return [box.content for box, later in pairwise(found) if later.begin >= box.end] + last


def last_boxed(text: str) -> str | None:
    r"""The content of the last box (see ``boxes``); None if there is none."""
    found = boxes(text)
    return found[-1].content if found else None


def final_text(trace: Trace, decode: Callable[[Iterable[int]], str]) -> str | None:
    """The model's text after its thinking, or all of its text if it ended without closing its thinking.

    None if it was stopped while thinking. ``Trace.answer`` comes from the same text. It does not include the end of
    sequence, so that a fence before it closes its block, and it ends before a stop string.
    """
    spans = list(trace.of_kind(SpanKind.MODEL))
    ended = bool(spans) and spans[-1].cause == StopKind.EOS
    written = [token_id for span in spans for token_id in span.token_ids]
    if trace.schema == 1:
        return _final_text_of_old(trace, decode(written[:-1] if ended else written))
    if trace.answer_begins is not None:
        token, byte = trace.answer_begins
        ids = trace.token_ids[token:]
        text = decode(ids[:-1] if ended else ids).encode()[byte:]  # there are no insertions after thinking
        stopped = bool(spans) and spans[-1].cause == StopKind.STOP
        return (before_stop(text, trace.meta["settings"]["stop"]) if stopped else text).decode()
    return decode(written[:-1] if ended else written) if trace.outcome in _ENDED else None


def _final_text_of_old(trace: Trace, text: str) -> str | None:
    """The text after the first end of thinking, for traces of schema 1."""
    if not trace.meta.get("thinking", True):
        return text
    _, marker, after = text.partition(trace.meta.get("think_end", "</think>"))
    if marker:
        return after
    return text if trace.outcome in _ENDED else None
