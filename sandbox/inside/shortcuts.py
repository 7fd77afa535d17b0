"""Faster replacements for per-cell work of IPython, which is half of an ordinary cell's time.

Each skips work that would change nothing, and calls IPython's own code in all other cases.
"""

from __future__ import annotations

import re
from typing import Any

from IPython.core.formatters import DisplayFormatter, PlainTextFormatter
from IPython.core.history import HistoryManager
from IPython.lib import pretty

from .images import images

# Syntax that IPython transforms: magics, commands, help, prompts, leading indentation, calls without parentheses.
_SPECIAL = re.compile(r"[%!?\t\f]|\A[ \n]|^(?:[,;/]|>>>|\.\.\.|In \[)|\n\.\.\. ", re.MULTILINE)
_WORD = re.compile(r"\w+", re.ASCII)
_PLAIN = (int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset)


def is_plain(code: str, magics: dict[str, Any]) -> bool:
    """Whether IPython would run the cell unchanged.

    Args:
        code: the cell.
        magics: the line magics, which may be called without `%`.
    """
    if _SPECIAL.search(code):
        return False
    line = code.strip()
    if "\n" in line:
        return True
    word = _WORD.match(line)  # a single word may be a macro
    return word is not None and word[0] != line and word[0] not in magics


def may_await(code: str) -> bool:
    """Whether the cell could need an event loop."""
    return "await" in code or "async" in code


class TextFormatter(DisplayFormatter):
    """Formats a value as plain text, and as an image if images are requested."""

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The text, as `text/plain`, and perhaps an image; see `DisplayFormatter.format`."""
        forms: dict[str, Any] = {}
        if type(obj) not in _PLAIN:
            if self.ipython_display_formatter(obj):
                return {}, {}
            forms = images.forms(obj)
            bundle, metadata = self.mimebundle_formatter(obj, include={"text/plain"}, exclude=exclude)
            if "text/plain" in bundle:
                return forms | {"text/plain": bundle["text/plain"]}, metadata
        formatter = self.formatters["text/plain"]
        text = repr(obj) if _is_shown_by_repr(obj, formatter) else formatter(obj)
        if text is not None:
            forms["text/plain"] = text
        return forms, {}


def _is_shown_by_repr(value: Any, formatter: Any) -> bool:
    """Whether IPython's pretty printer would use `repr`, as for numbers unless code has registered a printer."""
    if type(value) not in (int, str, bytes) or type(formatter) is not PlainTextFormatter or not formatter.pprint:
        return False
    types: Any = formatter.type_printers
    singletons: Any = formatter.singleton_printers
    return types.get(type(value)) is pretty._repr_pprint and id(value) not in singletons


class History(HistoryManager):
    """The history, in memory."""

    # The last inputs (`_i` etc.). In IPython these are traits, whose notifications for each cell cost time.
    _i00 = _i = _ii = _iii = ""
