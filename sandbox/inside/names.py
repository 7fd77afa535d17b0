"""Names of files in a session's working folder. Used on both sides."""

from __future__ import annotations

import re

MOST_BYTES = 512
"""Of a name with its folders, in UTF-8."""
MOST_PART_BYTES = 255
"""Of a file's or folder's own name; more no file system of Linux holds (NAME_MAX, linux/limits.h)."""
MOST_PARTS = 8
"""Folders and file."""

# Controls, line separators, surrogates, which are no characters, and what reverses the order in which a name is shown.
# A backslash separates folders for some who get the name, as a slash does here.
_FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\\\\]")


def objection(name: str) -> str | None:
    """What makes this no name of a file, or None where it is one.

    It is one of up to `MOST_PARTS` parts with slashes in between, relative to the working folder. No part begins with a
    dot: neither "..", nor what programs keep for themselves.
    """
    if not name:
        return "it is empty"
    if len(name) > MOST_BYTES:  # before anything is looked for in it
        return f"it is longer than {MOST_BYTES} bytes"
    if _FORBIDDEN.search(name):
        return "it has characters that no file name may have"
    if len(name.encode()) > MOST_BYTES:
        return f"it is longer than {MOST_BYTES} bytes"
    parts = name.split("/")
    if len(parts) > MOST_PARTS:
        return f"it has more than {MOST_PARTS} parts"
    for part in parts:
        if not part:
            return "it begins or ends with a slash, or has two in a row"
        if part.startswith("."):
            return "a part of it begins with a dot"
        if len(part.encode()) > MOST_PART_BYTES:
            return f"a part of it is longer than {MOST_PART_BYTES} bytes"
    return None
