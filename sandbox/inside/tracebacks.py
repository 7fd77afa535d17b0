"""Formats exceptions of the code as bounded text. Runs inside the sandbox."""

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

# Saved here because code may replace them.
_getline, _format_only = linecache.getline, traceback.format_exception_only

# BaseException's own attributes, since classes of the code may override them.
_BEFORE: Any = [vars(BaseException)[name] for name in ("__context__", "__cause__", "__suppress_context__")]

_MOST_LINKS, _MOST_PARTS = 3, 5  # errors shown of a chain and of a group
_FIRST_FRAMES, _LAST_FRAMES = 5, 10
_LONG_BITS = 64  # of a C long; an exit status that does not fit is -1

Frame = tuple[str, int, str]


def name_of(kind: type[BaseException]) -> str:
    """The name of an exception class, without calling its metaclass."""
    return str(type.__dict__["__name__"].__get__(kind))


class Tracebacks:
    """Formats exceptions with only the frames of the model's own code.

    Args:
        folders: folders in which the model writes its files.
    """

    def __init__(self, folders: tuple[str, ...]) -> None:
        self.folders = tuple(f"{folder.rstrip('/')}/" for folder in folders)
        self._own = ("<cell ", "<string>", *self.folders)
        # These may be below /tmp, and so may this package.
        self._not_own = (f"{sys.prefix}/", f"{sys.base_prefix}/", f"{Path(__file__).parent}/")

    def compact(self, error: BaseException, *, depth: int = 0) -> str:
        """The traceback as Python prints it.

        The cause or context of the error precedes it if it has frames of the model's code; the errors of a group
        follow.
        Raises whatever the exception's own methods raise.
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
        """File name, line and function of frames in cells, in `exec`, and in files that the model wrote.

        Returns the first frames, the number of omitted frames, and the last frames.
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
    """The lines after the frames, without formatting the chain of errors, which may be long."""
    before = [slot.__get__(error) for slot in _BEFORE]
    try:
        for slot in _BEFORE[:2]:
            slot.__set__(error, None)
        return "".join(_format_only(type(error), error)).rstrip()
    except Exception:  # the code may have done anything to its exception
        return f"{name_of(type(error))}: {error}"
    finally:
        for slot, value in zip(_BEFORE, before, strict=True):
            slot.__set__(error, value)  # in this order, since setting the second also sets the third


def exit_status(error: BaseException | None) -> int:
    """The exit status of a program that ends with an uncaught exception; 0 for None. Raises nothing."""
    if error is None:
        return 0
    with suppress(BaseException):  # classes of the code may have overridden any of this
        if issubclass(type(error), SystemExit):
            code = error.code  # type: ignore[attr-defined]  # as Python reads it, although a class may override it
            if code is None:
                return 0
            if issubclass(type(code), int):
                number = int.__index__(code)
                return number & 0xFF if number.bit_length() < _LONG_BITS else 0xFF
    return 1
