"""Overwritten lines, compared with a simple terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.inside.terminal import Rewriting, settled
from sandbox.result import clean

UP = "\x1b[A"
TEXTS = st.text(st.sampled_from("ab \r\b\n%"), max_size=60)
BARS = st.lists(st.sampled_from([*"ab \r\n", UP]), max_size=60).map("".join)


def screen(text: str) -> str:
    """What a terminal shows: a grid of cells and a cursor, cell by cell."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for char in text.replace(UP, "^"):
        if char == "\n":
            row, column = row + 1, 0
            rows += [[] for _ in range(row + 1 - len(rows))]
        elif char == "^":
            row = max(0, row - 1)
            column = min(column, len(rows[row]))  # here the cursor stays within what is there
        elif char == "\r":
            column = 0
        elif char == "\b":
            column = max(0, column - 1)
        else:
            rows[row][column : column + 1] = [char]
            column += 1
    return "\n".join("".join(row).rstrip(" ") for row in rows)


def stripped(text: str) -> str:
    return "\n".join(line.rstrip(" ") for line in text.split("\n"))


@given(TEXTS)
def test_a_text_is_shown_as_a_terminal_shows_it(text: str) -> None:
    assert stripped(clean(text)) == screen(text)


@given(BARS)
def test_so_are_lines_to_which_the_cursor_goes_up(text: str) -> None:
    assert stripped(clean(text)) == screen(text)


@given(st.lists(TEXTS, max_size=8))
def test_what_is_passed_on_piece_by_piece_shows_the_same(pieces: list[str]) -> None:
    rewriting = Rewriting()
    passed = "".join(map(rewriting.feed, pieces)) + rewriting.end()
    assert stripped(clean(passed)) == screen("".join(pieces))


@given(BARS)
def test_bars_below_one_another_are_passed_on_as_they_come(text: str) -> None:
    rewriting = Rewriting()
    passed = "".join(map(rewriting.feed, text.splitlines(keepends=True))) + rewriting.end()
    assert stripped(clean(UP + passed)) == screen(UP + text)


@given(st.text(st.sampled_from("ab\n\r\b\x1b[0123456789;ABKCDGm"), max_size=80))
def test_the_line_is_never_longer_than_what_was_written(line: str) -> None:
    assert len(settled(line)) <= len(line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\r 10%\r 20%\r100%\n", "100%\n"),
        ("\rlong words\r\x1b[Kend", "end"),
        ("\rlong words\x1b[2K\rend", "end"),
        ("\rabc\x1b[1Gx\x1b[1Cy\x1b[2Dz", "xzy"),
        ("\r\x1b[32mgreen\x1b[0m 1/2\r\x1b[32mgreen\x1b[0m 2/2", "green 2/2"),
        ("\rbar 3/3\r       \rdone", "done"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("a 0/2\n\rb 1/2\x1b[A\ra 1/2\n\r     \r\x1b[A\ra 2/2\nx", "a 2/2\nx"),
        ("\x1b[" + "9" * 5000 + "Gx\r", "x"),
    ],
)
def test_lines_as_they_end(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_progress_bar_of_many_states_is_one_of_them() -> None:
    rewriting = Rewriting()
    passed = "".join(rewriting.feed(f"\r{n:6} {'#' * 50}") for n in range(10_000)) + rewriting.feed("\n")
    assert passed == f"\r  9999 {'#' * 50}\n" and not rewriting.held
    assert rewriting.feed("\r" + "x" * 10_000) == "\r" + "x" * 10_000  # a long line is not waited for


@pytest.mark.parametrize("piece", ["ab\b", "a\r", "\n\x1b[A", "a\n\x1b[9999A", "\x1b[2K", "\x1b[99999C", "x\x1b[K"])
def test_what_is_shown_is_bounded_by_what_was_written(piece: str) -> None:
    text = "y" * 50_000 + piece * 20_000
    assert len(clean(text[:200_000])) <= 200_000
    assert clean(text * 10).count("y") == 500_000  # so much is not looked through
