"""What can go wrong with hints.

::

    HintError
    ├── HintFileError     a hint file is refused: where, which hint, why, and what to do
    ├── DuplicateHintError  two hints given to one library share an id
    └── NoHintError       the library holds no hint of the kind asked for
"""

from __future__ import annotations


class HintError(Exception):
    """The root of this package's exceptions."""


class HintFileError(HintError):
    """A hint file was refused. The message is one line: ``path:line: hint `id`: reason``.

    ``line`` counts from 1, and is None only where no line was reached (a missing or unreadable file).
    ``hint_id`` is None where the fault is not inside a hint, or the hint has no readable id.
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
        # The default would call __init__ with the message alone, and fail on its way out of a worker process.
        return type(self), (self.path, self.line, self.reason, self.hint_id)


class DuplicateHintError(HintError, ValueError):
    """Two hints handed to ``HintLibrary`` share an id."""


class NoHintError(HintError, LookupError):
    """No hint of the library fits what was asked for."""


def _one_line(text: str) -> str:
    """Spell out line breaks and other control characters (from a path or a value) as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
