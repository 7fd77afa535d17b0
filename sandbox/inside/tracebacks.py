"""How a cell failed, as bounded text. Runs inside the sandbox, on exceptions that are the code's."""

from __future__ import annotations

import linecache
import sys
import textwrap
import traceback
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

# Held, since code may put others in their places.
_getline, _format_only = linecache.getline, traceback.format_exception_only

# By these attributes of its own, whatever a class of the code's has by the same names.
_BEFORE: Any = [vars(BaseException)[name] for name in ("__context__", "__cause__", "__suppress_context__")]

_MOST_LINKS, _MOST_PARTS = 3, 5  # of a chain of errors and of a group that are shown
_FIRST_FRAMES, _LAST_FRAMES = 5, 10
_LONG_BITS = 64  # of a C long; an exit status that is no such number is -1

Frame = tuple[str, int, str]


def name_of(kind: type[BaseException]) -> str:
    """An exception's name, without asking the code's metaclass."""
    return str(type.__dict__["__name__"].__get__(kind))


class Tracebacks:
    """Exceptions as text, with only the frames of the model's own code.

    Args:
        folders: where the model writes its files.
    """

    def __init__(self, folders: tuple[str, ...]) -> None:
        self.folders = tuple(f"{folder.rstrip('/')}/" for folder in folders)
        self._own = ("<cell ", "<string>", *self.folders)
        # Which may be below /tmp, as this package may.
        self._not_own = (f"{sys.prefix}/", f"{sys.base_prefix}/", f"{Path(__file__).parent}/")

    def compact(self, error: BaseException, *, depth: int = 0) -> str:
        """The traceback as Python prints it.

        An error that it was raised from, or while another was handled, comes before it if it has such frames; the
        errors of a group follow. Raises whatever the code has its exceptions raise.
        """
        kind = type(error)
        first, left_out, last = self._frames(error.__traceback__)
        if issubclass(kind, SyntaxError) and not first:
            return _last_lines(error)
        lines = [line for frame in first for line in _lines_of(*frame)]
        if left_out:
            lines.append(f"  [... {left_out} more frames ...]")
        lines += [line for frame in last for line in _lines_of(*frame)]
        if lines:
            lines.insert(0, "Traceback (most recent call last):")
        lines.append(_last_lines(error))
        if depth == _MOST_LINKS:
            return "\n".join(lines)
        if isinstance(error, BaseExceptionGroup):
            for number, part in enumerate(error.exceptions[:_MOST_PARTS], start=1):
                text = self.compact(part, depth=depth + 1)
                lines += [f"  +---------------- {number} ----------------", textwrap.indent(text, "  | ")]
        before = error.__cause__
        if before is None and not error.__suppress_context__:
            before = error.__context__
        if before is not None and self._frames(before.__traceback__)[0]:
            link = "The above exception was the direct cause of the following exception:"
            if error.__cause__ is None:
                link = "During handling of the above exception, another exception occurred:"
            lines[:0] = [self.compact(before, depth=depth + 1), "", link, ""]
        return "\n".join(lines)

    def _frames(self, trace: TracebackType | None) -> tuple[list[Frame], int, deque[Frame]]:
        """File name, line and function of the frames in cells, in `exec`, and in files that the model wrote.

        The first of them, how many are left out, and the last.
        """
        first: list[Frame] = []
        last: deque[Frame] = deque(maxlen=_LAST_FRAMES)
        left_out = 0
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_filename.startswith(self._own) and not code.co_filename.startswith(self._not_own):
                frame = (code.co_filename, trace.tb_lineno, code.co_name)
                if len(first) < _FIRST_FRAMES:
                    first.append(frame)
                else:
                    left_out += len(last) == _LAST_FRAMES
                    last.append(frame)
            trace = trace.tb_next
        return first, left_out, last


def _lines_of(name: str, line: int, function: str) -> list[str]:
    where = "" if function == "<module>" else f", in {function}"
    lines = [f'  File "{name}", line {line}{where}']
    with suppress(Exception):  # the code may have done anything to `linecache`
        if source := _getline(name, line).strip():
            lines.append(f"    {source}")
    return lines


def _last_lines(error: BaseException) -> str:
    """What comes after the frames, without a look at the errors before it, of which there may be many."""
    before = [slot.__get__(error) for slot in _BEFORE]
    try:
        for slot in _BEFORE[:2]:
            slot.__set__(error, None)
        return "".join(_format_only(type(error), error)).rstrip()
    except Exception:  # likewise
        return f"{name_of(type(error))}: {error}"
    finally:
        for slot, value in zip(_BEFORE, before, strict=True):
            slot.__set__(error, value)  # the third last, as the second sets it, too


def exit_status(error: BaseException | None) -> int:
    """The status with which a program ends from which an exception runs out; 0 for None. Raises nothing."""
    if error is None:
        return 0
    with suppress(BaseException):  # the code's classes may have made something else of any of it
        if issubclass(type(error), SystemExit):
            code = error.code  # type: ignore[attr-defined]  # as Python asks for it, which a class may have changed
            if code is None:
                return 0
            if issubclass(type(code), int):
                number = int.__index__(code)
                return number & 0xFF if number.bit_length() < _LONG_BITS else 0xFF
    return 1
