"""Skipping parts of IPython's work changes nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from IPython.core.inputtransformer2 import TransformerManager

from sandbox.inside.shortcuts import TextFormatter, is_plain, may_await

_BLANK = re.compile(r"^ +$", re.MULTILINE)
_MAGICS = {"ls": None, "time": None, "who": None}

_LINES = st.sampled_from(
    [
        *("x = 1", "x", "ls", "ls -l", "time f()", "%time f()", "%%time", "!ls", "y = !ls", "x?", "?x", "x??", "f(x)?"),
        *(
            "    x = 1",
            "\tx = 1",
            "",
            "   ",
            ">>> x",
            "... x",
            "In [1]: x",
            "Out[1]: x",
            "   ...: y",
            "...",
            "'%'",
            "a % b",
        ),
        *(
            ",f a",
            ";f a",
            "/f a",
            "def f():",
            "    return 1",
            "if x:",
            "# %%",
            "s = '''",
            "!",
            "'''",
            "x \\",
            "for a in b:",
        ),
        *("await f()", "async with a as b:", "lambda: 0", "print('?')", "print(1); x", "@f", "(x", ")", "[1, 2,", "3]"),
    ]
)


@given(st.lists(_LINES, max_size=6), st.booleans())
def test_plain_cells_are_those_that_ipython_leaves_alone(lines: list[str], ends: bool) -> None:
    code = "\n".join(lines) + "\n" * ends
    if is_plain(code, _MAGICS):
        expected = code if code.endswith("\n") else f"{code}\n"
        manager: Any = TransformerManager
        # But for spaces in lines that have nothing else.
        assert _BLANK.sub("", manager().transform_cell(code)) == _BLANK.sub("", expected)


@pytest.mark.parametrize("code", ["x = 1", "1+1", "import os\nos.getpid()", "def f():\n    return 1\nf()"])
def test_ordinary_cells_are_plain(code: str) -> None:
    assert is_plain(code, _MAGICS) and not may_await(code)


@pytest.mark.parametrize("code", ["ls", "ls -l", "time f()", "x", "", "\n", " x", "%x", "!x", "x?", ",f x"])
def test_others_are_not(code: str) -> None:
    assert not is_plain(code, _MAGICS)


_VALUES = [0, 10**200, True, "", "a\nb\u2028'\"", "x" * 300, b"a\n\xff", 1.5, None, (1, "a"), range(3)]


def _shown(formatter: Any, value: Any) -> Any:
    formatter.active_types = ["text/plain"]
    return formatter.format(value)[0]


@pytest.mark.parametrize("value", _VALUES)
def test_values_are_shown_as_ipython_does(value: object) -> None:
    make: Any = (TextFormatter, DisplayFormatter)
    ours, theirs = (_shown(formatter(), value) for formatter in make)
    assert ours == theirs


@pytest.mark.parametrize(("value", "text"), [(7, "<7>"), ("seven", "<seven>"), (True, "True")])
def test_values_are_shown_as_code_has_asked_for(value: object, text: str) -> None:
    formatter: Any = TextFormatter()
    plain = formatter.formatters["text/plain"]
    plain.for_type(int, lambda value, printer, cycle: printer.text(f"<{value:d}>"))
    plain.for_type(str, lambda value, printer, cycle: printer.text(f"<{value}>"))
    assert _shown(formatter, value) == {"text/plain": text}
