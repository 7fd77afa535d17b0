"""The final answer in a model's text."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{…}`` that is closed; None where there is none.

    Braces nest; an escaped brace (``\{``) is a character like any other. An unterminated box is no answer.
    """
    boxes = {box.end() for box in _BOX.finditer(text)}
    # One pass over all braces: a search from each box would be quadratic where none of them is closed.
    open_braces: list[int] = []
    begin, end = -1, -1
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            open_braces.append(brace.end())
        elif brace.group() == "}" and open_braces:
            opened = open_braces.pop()
            if opened in boxes and opened > begin:
                begin, end = opened, brace.start()
    return None if begin < 0 else text[begin:end].strip()
