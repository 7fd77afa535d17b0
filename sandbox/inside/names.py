"""Names of files in a session's working folder. Used on both sides."""

from __future__ import annotations

import re

MOST_BYTES = 512
"""Maximum length of a name, in UTF-8."""
MOST_PART_BYTES = 255
"""Maximum length of a component (NAME_MAX, linux/limits.h)."""
MOST_PARTS = 8
"""Maximum number of components."""

# Control characters, line separators, surrogates, bidirectional controls (which can disguise an extension), and the
# backslash, which separates folders on other systems.
_FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\\\\]")


def objection(name: str) -> str | None:
    """Why a name is not allowed, or None if it is.

    A name is a path relative to the working folder. No component may start with a dot: this excludes ".." and the
    hidden files of programs.
    """
    if not name:
        return "the name is empty"
    if len(name) > MOST_BYTES:  # checked first, so that the rest takes little time
        return f"the name is longer than {MOST_BYTES} bytes"
    if _FORBIDDEN.search(name):
        return "the name contains characters that are not allowed"
    if len(name.encode()) > MOST_BYTES:
        return f"the name is longer than {MOST_BYTES} bytes"
    parts = name.split("/")
    if len(parts) > MOST_PARTS:
        return f"the name has more than {MOST_PARTS} components"
    for part in parts:
        if not part:
            return "the name starts or ends with a slash, or has two in a row"
        if part.startswith("."):
            return "a component of the name starts with a dot"
        if len(part.encode()) > MOST_PART_BYTES:
            return f"a component of the name is longer than {MOST_PART_BYTES} bytes"
    return None
