from __future__ import annotations

import pytest

from start_agent.markdown import table


def test_names_and_values() -> None:
    assert table({"rows": 12345, "right": True, "run": "a"}) == (
        "| | |\n|---|---|\n| rows | 12,345 |\n| right | True |\n| run | a |\n"
    )


def test_rows_under_a_header() -> None:
    assert table([("a", "", 0.5)], ("", "x", "y")) == "| | x | y |\n|---|---|---|\n| a | | 0.5 |\n"
    assert table([], ("x",)) == "| x |\n|---|\n"


def test_no_cell_ends_its_cell_or_its_row() -> None:
    assert table({"a|b": "one\ntwo"}).splitlines()[2:] == [r"| a\|b | one two |"]


@pytest.mark.parametrize("row", [("a",), ("a", "b", "c")])
def test_a_row_of_another_width_is_refused(row: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        table([row])
