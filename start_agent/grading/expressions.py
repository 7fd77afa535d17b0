r"""Compares mathematical answers with Math-Verify and checks again what it calls equal.

Runs in a process that can be killed (``worker``), because a few characters can keep SymPy busy forever. Math-Verify
compares decimals to six places and other constants to an absolute 1e-15, so it accepts 1/2^99 for 1/2^98. What it calls
equal is therefore evaluated again with relative precision, part by part: constants to 50 digits, expressions with
variables at fixed rational points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from itertools import zip_longest
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, FiniteSet, Interval, MatrixBase, Tuple
from sympy.core.relational import Relational

from start_agent.grading.intervals import as_interval, without_member
from start_agent.grading.math import answer_text
from start_agent.grading.numbers import Number, read_number, stands_for
from start_agent.grading.spelling import both_signs, spelled, without_brackets
from start_agent.grading.verdict import Reason, Verdict

# Only the box is read. Math-Verify's other extractor, for plain numbers in prose, uses eval.
_CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)
_DIGITS = 50
_CLOSE = sympy.Rational(1, 10**45)  # relative
_SHOWN = 300  # characters of an expression in a verdict
_BASE = re.compile(r"_\{?(\d+)\}?$")
_MEMBER = re.compile(r"^[a-zA-Z]\s*\\in\s*")


def compare(pred: str, gold: str) -> Verdict:
    """The verdict on a prediction that the texts alone do not decide. May run forever."""
    pred_answer, gold_answer = _in_one_spelling(answer_text(pred) or "", answer_text(gold) or gold)
    gold_parsed, parsed = _parse(gold_answer), _parse(pred_answer)
    shown, gold_shown = _shown(parsed, pred_answer), _shown(gold_parsed, gold_answer)
    if not _readable(parsed) or not _readable(gold_parsed):
        if not _readable(gold_parsed):  # no answer could be compared with it
            return Verdict(False, shown, Reason.UNGRADABLE, gold_shown, "the gold answer cannot be parsed")
        return Verdict(False, shown, Reason.UNREADABLE, gold_shown, "the prediction cannot be parsed")
    # The order of the arguments matters: Math-Verify treats the gold answer and the prediction differently.
    if _same_complex(gold_parsed[0], parsed[0]):
        return Verdict(True, shown, Reason.EQUAL, gold_shown)
    equal = verify(gold_parsed, parsed, timeout_seconds=None) or _same_decimals(gold_parsed[0], parsed[0])
    detail = ""
    if equal and (detail := _refutation(gold_parsed[0], parsed[0], gold_answer, pred_answer)):
        equal = False
    return Verdict(equal, shown, Reason.EQUAL if equal else Reason.DIFFERENT, gold_shown, detail)


def _in_one_spelling(pred: str, gold: str) -> tuple[str, str]:
    """Both answers normalized; if one is an inequality and the other an interval, both as intervals."""
    pred, gold = spelled(pred), spelled(gold)
    if "[" not in gold or pred.count(",") > 1:
        pred = without_brackets(pred)
    ranges = as_interval(pred), as_interval(gold)
    if (ranges[0] is None) != (ranges[1] is None):
        pred, gold = ranges[0] or without_member(pred), ranges[1] or without_member(gold)
    return _both_signs(pred), _both_signs(gold)


def _both_signs(text: str) -> str:
    r"""Replace each item with a plus-minus sign by its two values; other texts are unchanged."""
    items = text.split(",") if r"\pm" in text and not set("([") & set(text) else [text]
    return ",".join(value for item in items for value in both_signs(item))


def _parse(text: str) -> list[Any]:
    """Math-Verify's result for a text: an expression and the normalized text, or fewer of these."""
    number = read_number(text)
    if number is not None and "e" in text.lower():
        text = str(number)  # "6.02e23" has another meaning in LaTeX
    return list(parse(f"\\boxed{{{_MEMBER.sub('', text)}}}", _CONFIG, parsing_timeout=None))


def _readable(parsed: list[Any]) -> bool:
    return bool(parsed) and isinstance(parsed[0], Basic | MatrixBase)


def _shown(parsed: list[Any], text: str) -> str:
    try:
        return str(parsed[0])[:_SHOWN] if parsed else text[:_SHOWN]
    except Exception:  # SymPy cannot print some expressions (ValueError, RecursionError, MemoryError, ...)
        return text[:_SHOWN]


def _refutation(gold: Any, pred: Any, gold_text: str, pred_text: str) -> str:
    """Why two expressions that Math-Verify calls equal are different; empty if no difference is found."""
    bases = [_BASE.search(text) for text in (gold_text, pred_text)]
    if bases[0] and bases[1] and bases[0][1] != bases[1][1]:
        return "numerals of different bases"
    if ("%" in gold_text) != ("%" in pred_text) and _percent_stripped(gold) == _percent_stripped(pred):
        return "the same number, but only one of them is a percentage"
    try:
        agree = _agree(gold, pred)
    except Exception:  # SymPy cannot evaluate it: Math-Verify's judgement stands
        return ""
    return "" if agree is not False else f"not equal when computed to {_DIGITS} digits"


def _percent_stripped(expression: Any) -> Any:
    hundredth = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
    if isinstance(expression, sympy.Mul) and hundredth in expression.args:
        return sympy.Mul(*(factor for factor in expression.args if factor != hundredth))
    return expression


def _agree(gold: Any, pred: Any) -> bool | None:
    """Whether two expressions have the same value; None if that cannot be decided."""
    if isinstance(pred, Eq) and not pred.lhs.free_symbols and _agree(pred.lhs, pred.rhs) is False:
        return False  # "1/2 = 3"
    gold, pred = _right_side(gold), _right_side(pred)
    if isinstance(gold, Relational) or isinstance(pred, Relational):
        return None
    parts, other = _parts(gold), _parts(pred)
    if parts is not None and other is not None:
        if isinstance(gold, FiniteSet) and isinstance(pred, FiniteSet):
            return all(any(_agree(one, two) is not False for two in other) for one in parts)
        agreed = [one is not None and two is not None and _agree(one, two) for one, two in zip_longest(parts, other)]
        return False if False in agreed else None if None in agreed else True
    if parts is None and other is None and isinstance(gold, sympy.Expr) and isinstance(pred, sympy.Expr):
        return _same_value(gold, pred)
    return None


def _right_side(expression: Any) -> Any:
    """The right side of an equation like "x = 5"; any other expression unchanged."""
    return expression.rhs if isinstance(expression, Eq) and isinstance(expression.lhs, sympy.Symbol) else expression


def _parts(expression: Any) -> list[Any] | None:
    """The parts of a container; None for a single expression."""
    if isinstance(expression, MatrixBase):
        return list(expression.flat())
    if isinstance(expression, Interval):
        return [expression.start, expression.end]
    if isinstance(expression, Tuple | FiniteSet | sympy.Union):
        # latex2sympy's own sets keep the order in which the elements were written
        return list(getattr(expression, "_unsorted_args", expression.args))
    return None


def _same_value(gold: sympy.Expr, pred: sympy.Expr) -> bool | None:
    if isinstance(pred, sympy.Float) and not isinstance(gold, sympy.Float) and not gold.free_symbols:
        return _rounds(pred, gold)
    gold, pred = _exact(gold), _exact(pred)
    names = sorted({symbol.name for symbol in gold.free_symbols | pred.free_symbols})
    if {symbol.name for symbol in gold.free_symbols} != {symbol.name for symbol in pred.free_symbols}:
        return None  # left to Math-Verify: it may have read "Evelyn" as a word here and as a product there
    results = [_same_at(gold, pred, names, point) for point in ((3, 7), (11, 13), (17, 5))[: 3 if names else 1]]
    known = [result for result in results if result is not None]
    return all(known) if known else None


def _same_at(gold: sympy.Expr, pred: sympy.Expr, names: list[str], point: tuple[int, int]) -> bool | None:
    """Compare at a rational point: the n-th variable is 1 + (n + 1) a/10b, positive, small and hardly ever special."""
    values = {name: 1 + sympy.Rational((place + 1) * point[0], 10 * point[1]) for place, name in enumerate(names)}
    numbers = []
    for expression in (gold, pred):
        substituted = expression.subs({symbol: values[symbol.name] for symbol in expression.free_symbols})
        number = sympy.N(substituted.doit(), _DIGITS)
        if not number.is_number or number.has(sympy.nan, sympy.zoo, sympy.oo):
            return None
        # For an expression that is zero, SymPy returns a tiny number with hardly any precision.
        numbers.append(number.xreplace({part: sympy.S.Zero for part in number.atoms(sympy.Float) if part._prec < 8}))
    return bool(abs(numbers[0] - numbers[1]) <= _CLOSE * max(abs(number) for number in numbers))


def _rounds(pred: sympy.Float, gold: sympy.Expr) -> bool | None:
    """Whether a predicted decimal equals an exact gold value, or is its rounded form."""
    written = str(pred).rstrip("0")
    if "e" in written:
        return None
    value, exact = Fraction(written), sympy.N(_exact(gold), _DIGITS)
    if not exact.is_Float:
        return None
    target = Fraction(str(exact)) if not gold.is_Rational else Fraction(int(gold.p), int(gold.q))
    places = len(written.partition(".")[2])
    digits = len(written.replace(".", "").lstrip("-0"))
    return value == target or stands_for(Number(value, places=places, digits=digits), target, exact=True)


def _same_decimals(gold: Any, pred: Any) -> bool:
    r"""Whether two constants that contain decimals are exactly equal, like 1.5 \times 10^3 and 1500.

    Math-Verify does not evaluate a product with a decimal, and so finds it different from an integer.
    """
    if not all(isinstance(side, sympy.Expr) and not side.free_symbols for side in (gold, pred)):
        return False
    if not (gold.has(sympy.Float) or pred.has(sympy.Float)):
        return False
    try:
        return _same_at(_exact(gold), _exact(pred), [], (1, 1)) is True
    except Exception:  # SymPy cannot evaluate it
        return False


def _same_complex(gold: Any, pred: Any) -> bool:
    """Whether two constants are equal when the letter i is the imaginary unit."""
    letter = sympy.Symbol("i")
    sides = [side for side in (gold, pred) if isinstance(side, sympy.Expr)]
    names = {symbol.name for side in sides for symbol in side.free_symbols}
    if len(sides) != 2 or names != {"i"}:
        return False
    try:
        one, other = (side.xreplace({s: sympy.I for s in side.free_symbols if s.name == letter.name}) for side in sides)
        difference = sympy.N(_exact(one).doit() - _exact(other).doit(), _DIGITS)
        size = max(abs(sympy.N(_exact(one).doit(), _DIGITS)), 1)
        return bool(abs(difference) <= _CLOSE * size)
    except Exception:  # SymPy cannot evaluate it
        return False


def _exact(expression: sympy.Expr) -> sympy.Expr:
    """The expression with its decimals replaced by exact fractions."""
    floats: Iterable[sympy.Float] = expression.atoms(sympy.Float)
    return expression.xreplace({number: sympy.Rational(str(number)) for number in floats})
