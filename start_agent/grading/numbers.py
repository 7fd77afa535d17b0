r"""Reads plain numbers and compares them exactly, which is enough for most answers of most data sets.

A number is an integer, a decimal or a fraction in the notations of people and models: ``025``, ``1,234``,
``10,\!080``, ``-3.50``, ``\$18.90``, ``50\%``, ``\frac{3}{4}``, ``7/2``, ``90^\circ``. Everything else is left to
Math-Verify.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 1000
"""Longer numerals are not read: Python's conversion is quadratic and rejects more than 4,300 digits."""

FLOAT_DIGITS = 15
"""A decimal with this many significant digits is a printed double; its last digits are noise."""

FLOAT_NOISE = Fraction(1, 10**12)
"""The relative error accepted as floating-point noise (a double has a precision of about 1e-16 per operation)."""

ROUNDED_DIGITS = 6
"""Decimal places and significant digits that a decimal needs to count as a rounded fraction or root.

The same as Math-Verify's ``float_rounding``.
"""

# Words that may follow a number without changing it; a closed list, because "12 pi" and "3 million" are other numbers.
# The sizes of units, and other words that may follow a number, are in ``words``.
_UNITS = (
    "dollars?|cents?|degrees?|feet|foot|ft|inch(?:es)?|in|miles?|yards?|km|cm|mm|m|meters?|metres?|kilometers?|"
    "centimeters?|hours?|minutes?|seconds?|days?|weeks?|months?|years?|people|units?|square units|cubic units"
)
_NUMERAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?"
# An exponent as programs print it. In mathematics "2e3" would be a product, but that is not a plausible answer.
_PLAIN = re.compile(rf"([+-]?)({_NUMERAL})(?:[eE]([+-]?\d{{1,3}}))?(%?)")
_FRACTION = re.compile(
    r"([+-]?)(?:\\[dtc]?frac\{([+-]?\d+)\}\{([+-]?\d+)\}|\\[dtc]?frac(\d)(\d)|\(?([+-]?\d+)/([+-]?\d+)\)?)(%?)"
)
# White space is removed, except between digits and between a comma and a digit: "1 2" is not 12, "100, 200" is a list.
_NOISE = re.compile(
    r"\\!\s*|\\[,;: ]|~|\\left(?![a-z])|\\right(?![a-z])|\\displaystyle|(?<![\d,])\s+|\s+(?!\d)|\\?\$|"
    r"\^\{?\\circ\}?|[°€£]"
)
_PERCENT = re.compile(r"(?<=\d)\s*\\?\s*(?:\\(?:text|mbox|mathrm)\s*\{\s*)?(?:percent|\\?%)\s*\}?$", re.I)
_UNIT_WORDS = re.compile(
    rf"(?<=[\d.}}])(?:\\?\s|~|(?=\\))+(?:\\(?:text|mbox|mathrm)\s*\{{\s*)?(?:{_UNITS})\.?\s*\}}?\s*$", re.I
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written.

    Attributes:
        value: the number without its percent sign.
        percent: whether a percent sign follows it.
        places: digits after the decimal point; None for a fraction or an integer without a decimal point.
        digits: significant digits of a decimal.
    """

    value: Fraction
    percent: bool = False
    places: int | None = None
    digits: int = 0

    def __str__(self) -> str:
        text = str(self.value)
        if self.places is not None:  # as it was written, without currency sign or unit
            digits = str(abs(self.value) * 10**self.places).zfill(self.places + 1)
            text = f"{'-' * (self.value < 0)}{digits[: -self.places]}.{digits[-self.places :]}"
        return text + "%" * self.percent

    @property
    def true_value(self) -> Fraction:
        """The value, divided by 100 for a percentage."""
        return self.value / 100 if self.percent else self.value


def read_number(text: str) -> Number | None:
    """Read a number with an optional currency sign, degree sign or unit; None if the text is anything else."""
    if len(text) > MAX_DIGITS:
        return None
    text = _UNIT_WORDS.sub("", _PERCENT.sub("%", text.strip()))
    text = _NOISE.sub("", text).replace("{,}", ",").replace("\\%", "%").replace("−", "-")
    if plain := _PLAIN.fullmatch(text):
        sign, numeral, exponent, percent = plain.groups()
        numeral = numeral.replace(",", "")
        whole, _, decimals = numeral.partition(".")
        if not whole and not decimals:
            return None
        power = int(exponent or 0) - len(decimals)
        value = int(whole + decimals) * Fraction(10) ** power * (-1 if sign == "-" else 1)
        significant = len((whole + decimals).lstrip("0"))
        return Number(value, bool(percent), -power if power < 0 else None, significant)
    if fraction := _FRACTION.fullmatch(text):
        sign, *parts, percent = fraction.groups()
        above, below = (int(part) for part in parts if part is not None)
        if below:
            return Number(Fraction(above, below) * (-1 if sign == "-" else 1), bool(percent))
    return None


def equal_numbers(gold: Number, pred: Number) -> bool:
    """Whether a predicted number equals the gold number.

    Numbers must be exactly equal, with two exceptions for printed decimals: one with at least ``ROUNDED_DIGITS`` digits
    may be the rounded form of a gold *fraction* (0.333333 for 1/3), and one with ``FLOAT_DIGITS`` digits may differ by
    floating-point noise. A gold decimal is exact: for the gold answer 0.333333, 1/3 is incorrect. For the gold answer
    10%, 10 is incorrect (and the other way round), 0.1 is correct.
    """
    if gold.true_value == pred.true_value:
        return True
    if pred.places is None or gold.percent is not pred.percent:
        return False
    return stands_for(pred, gold.value, exact=gold.places is None, whole=gold.value.denominator == 1)


def stands_for(pred: Number, gold: Fraction, *, exact: bool, whole: bool = False) -> bool:
    """Whether a decimal is the rounded form of a gold value that it does not equal.

    Args:
        pred: the decimal.
        gold: the value; for a root or the like, rounded to many more digits.
        exact: whether the gold answer is a fraction or a root, not a decimal.
        whole: whether the gold answer is an integer, which needs no rounding.
    """
    if whole or pred.places is None:
        return False
    error = abs(pred.value - gold)
    if pred.digits >= FLOAT_DIGITS and error <= FLOAT_NOISE * abs(gold):
        return True
    shown = min(pred.places, pred.digits)
    return exact and shown >= ROUNDED_DIGITS and error <= Fraction(1, 10**pred.places)
