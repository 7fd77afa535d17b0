"""The exceptions of the hint library.

::

    HintError
    ├── HintFileError       a hint file is invalid; the message has place, hint, reason and remedy
    ├── DuplicateHintError  two hints of one library share an id
    └── NoHintError         no hint of the library matches
"""

from __future__ import annotations


class HintError(Exception):
    """Base class of this package's exceptions."""


class HintFileError(HintError):
    """A hint file is invalid. The message is one line: ``path:line: hint `id`: reason``.

    ``line`` counts from 1, and is None if the file could not be read. ``hint_id`` is None if the error is not
    inside a hint, or the hint has no readable id.
    """

    def __init__(self, path: str, line: int | None, reason: str, hint_id: str | None = None) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        self.hint_id = hint_id
        where = path if line is None else f"{path}:{line}"
        which = "" if hint_id is None else f"hint `{hint_id}`: "
        super().__init__(_one_line(f"{where}: {which}{reason}"))

    def __reduce__(self) -> tuple[type[HintFileError], tuple[str, int | None, str, str | None]]:
        # The default calls __init__ with the message only, which would fail when unpickling in another process.
        return type(self), (self.path, self.line, self.reason, self.hint_id)


class DuplicateHintError(HintError, ValueError):
    """Two hints passed to ``HintLibrary`` share an id."""


class NoHintError(HintError, LookupError):
    """No hint of the library matches the request."""


def _one_line(text: str) -> str:
    """Escape line breaks and other control characters (from a path or a value)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
