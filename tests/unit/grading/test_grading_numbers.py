"""Plain numbers, read exactly and compared exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.grading.numbers import equal_numbers, read_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("025", 25),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("- 7", -7),
        ("1,234", 1234),
        ("11,\\! 111,\\! 111,\\! 100", 11_111_111_100),
        ("10,\\!080", 10_080),
        ("1{,}234", 1234),
        ("27.0", 27),
        ("27.", 27),
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("3.21", Fraction(321, 100)),
        ("\\$18.90", Fraction(189, 10)),
        ("$18", 18),
        ("\\$32,\\!348", 32_348),
        ("90^\\circ", 90),
        ("90^{\\circ}", 90),
        ("18 dollars", 18),
        ("18\\text{ cm}", 18),
        ("5.4 \\text{ cents}", Fraction(27, 5)),
        ("7/2", Fraction(7, 2)),
        ("-7 / 2", Fraction(-7, 2)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("\\dfrac{-3}{4}", Fraction(-3, 4)),
        ("-\\frac34", Fraction(-3, 4)),
        ("\\frac {3} {4}", Fraction(3, 4)),
        ("6.72e-05", Fraction(672, 10**7)),
        ("1E3", 1000),
    ],
)
def test_read(text: str, value: Fraction | int) -> None:
    number = read_number(text)
    assert number is not None and number.value == value and not number.percent


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "x",
        "1 2",
        "100, 200",
        "1,23",
        "1,2345",
        "12 pi",
        "3 million",
        "\\frac{1}{0}",
        "1/0",
        "2k",
        "5!",
        "52_8",
        "2^3",
        "1/2/3",
        "3\\frac{1}{2}",
        "(1,2)",
        "1-2",
        "--1",
        "0x10",
        "1e9999",
        "9" * 2000,
        "\\frac123",
        "%",
        "1%%",
    ],
)
def test_not_a_plain_number(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize("text", ["50%", "50\\%", "50 \\%", "50 percent", "50\\text{ percent}", "$50\\%$"])
def test_percent(text: str) -> None:
    number = read_number(text)
    assert number is not None and number.percent and number.value == 50 and number.true_value == Fraction(1, 2)


@pytest.mark.parametrize(
    ("gold", "pred", "equal"),
    [
        ("25", "025", True),
        ("0.5", "1/2", True),
        ("27.0", "27", True),
        ("10", "10%", False),
        ("10%", "10", False),
        ("10%", "0.1", True),
        ("10%", "1/10", True),
        ("10%", "10.0%", True),
        ("0.333333", "1/3", False),
        ("1/3", "0.333333", True),
        ("1/3", "0.33333", False),
        ("1/3", "0.3333333333333333", True),
        ("1/3", "0.333334", True),  # off by one in the last place shown, as a truncated decimal may be
        ("1/3", "0.333335", False),
        ("2/3", "0.6666666666666666", True),
        ("1/1048576", "0.000001", False),
        ("1/1048576", "9.53674e-07", True),
        ("0.3", "0.30000000000000004", True),
        ("0.3", "0.3000001", False),
        ("3", "3.0000000000000004", False),
        ("3", "3.0", True),
        ("0.0000001", "0.0000002", False),
        ("1000000", "1000001", False),
        ("999", "1000", False),
    ],
)
def test_equal(gold: str, pred: str, equal: bool) -> None:
    one, two = read_number(gold), read_number(pred)
    assert one is not None and two is not None
    assert equal_numbers(one, two) is equal


@given(st.integers(), st.integers(0, 5))
def test_integers_are_compared_exactly(value: int, zeros: int) -> None:
    number = read_number(f"{'-' * (value < 0)}{'0' * zeros}{abs(value)}")
    other = read_number(f"{value:,}")
    assert number is not None and other is not None
    assert number.value == other.value == value
    next_one = read_number(str(value + 1))
    assert equal_numbers(number, other) and next_one is not None and not equal_numbers(number, next_one)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=6))
def test_a_decimal_is_shown_as_it_was_written(value: object) -> None:
    number = read_number(f"{value:f}")
    assert number is not None and str(number) == f"{value:f}".replace("-0.000000", "0.000000")


@given(st.fractions())
def test_a_fraction_in_every_spelling(value: Fraction) -> None:
    above, below = value.numerator, value.denominator
    for text in (f"{above}/{below}", f"\\frac{{{above}}}{{{below}}}", f"\\dfrac {{{above}}}{{{below}}}"):
        number = read_number(text)
        assert number is not None and number.value == value


@given(st.text(max_size=60))
def test_any_text_is_read_or_passed_over(text: str) -> None:
    read_number(text)
