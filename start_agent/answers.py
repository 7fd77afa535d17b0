"""The final answer in a model's text."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\boxed\s*\{")


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{…}`` that is closed; None where there is none.

    Braces nest; an escaped brace (``\{``) is a character like any other. An unterminated box is no answer.
    """
    for opening in reversed(list(_BOX.finditer(text))):
        content = _until_closed(text, opening.end())
        if content is not None:
            return content.strip()
    return None


def _until_closed(text: str, begin: int) -> str | None:
    depth, position = 1, begin
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[begin:position]
        position += 1
    return None
