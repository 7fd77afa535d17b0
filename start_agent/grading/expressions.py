r"""Mathematical answers through Math-Verify, with a second look at what it calls equal.

Runs in a process that may be killed (``worker``): a few characters can keep SymPy busy for ever. Math-Verify
compares decimals to six places and other constants to an absolute 1e-15, so that it takes 1/2^99 for 1/2^98. What
it calls equal is therefore evaluated again with relative precision, part by part: constants to 50 digits,
expressions with variables at fixed rational points.
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

# Only what is in the box is read. Math-Verify's other extractor, for plain numbers in prose, goes through eval.
_CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)
_DIGITS = 50
_CLOSE = sympy.Rational(1, 10**45)  # relative
_SHOWN = 300  # characters of an expression that a verdict shows
_BASE = re.compile(r"_\{?(\d+)\}?$")
_MEMBER = re.compile(r"^[a-zA-Z]\s*\\in\s*")


def compare(pred: str, gold: str) -> Verdict:
    """The verdict on a prediction that the texts alone do not settle. May take for ever."""
    pred_answer, gold_answer = _in_one_spelling(answer_text(pred) or "", answer_text(gold) or gold)
    gold_parsed, parsed = _parse(gold_answer), _parse(pred_answer)
    shown, gold_shown = _shown(parsed, pred_answer), _shown(gold_parsed, gold_answer)
    if not _readable(parsed) or not _readable(gold_parsed):
        if not _readable(gold_parsed):  # whatever the model says could not be compared with it
            return Verdict(False, shown, Reason.UNGRADABLE, gold_shown, "the gold answer cannot be parsed")
        return Verdict(False, shown, Reason.UNREADABLE, gold_shown, "the prediction cannot be parsed")
    # The order matters: what the gold answer is decides what the prediction may be.
    if _same_complex(gold_parsed[0], parsed[0]):
        return Verdict(True, shown, Reason.EQUAL, gold_shown)
    equal = verify(gold_parsed, parsed, timeout_seconds=None) or _same_decimals(gold_parsed[0], parsed[0])
    detail = ""
    if equal and (detail := _refutation(gold_parsed[0], parsed[0], gold_answer, pred_answer)):
        equal = False
    return Verdict(equal, shown, Reason.EQUAL if equal else Reason.DIFFERENT, gold_shown, detail)


def _in_one_spelling(pred: str, gold: str) -> tuple[str, str]:
    """Both answers in one spelling; where one is an inequality and the other an interval, both as intervals."""
    pred, gold = spelled(pred), spelled(gold)
    if "[" not in gold or pred.count(",") > 1:
        pred = without_brackets(pred)
    ranges = as_interval(pred), as_interval(gold)
    if (ranges[0] is None) != (ranges[1] is None):
        pred, gold = ranges[0] or without_member(pred), ranges[1] or without_member(gold)
    return _both_signs(pred), _both_signs(gold)


def _both_signs(text: str) -> str:
    r"""Each item with a plus-minus sign as its two values; a text without one unchanged."""
    items = text.split(",") if r"\pm" in text and not set("([") & set(text) else [text]
    return ",".join(value for item in items for value in both_signs(item))


def _parse(text: str) -> list[Any]:
    """What Math-Verify makes of a text: an expression and the normalized text, or fewer of these."""
    number = read_number(text)
    if number is not None and "e" in text.lower():
        text = str(number)  # "6.02e23" has another meaning in LaTeX
    return list(parse(f"\\boxed{{{_MEMBER.sub('', text)}}}", _CONFIG, parsing_timeout=None))


def _readable(parsed: list[Any]) -> bool:
    return bool(parsed) and isinstance(parsed[0], Basic | MatrixBase)


def _shown(parsed: list[Any], text: str) -> str:
    try:
        return str(parsed[0])[:_SHOWN] if parsed else text[:_SHOWN]
    except Exception:  # an expression that SymPy can hold but not print (ValueError, RecursionError, MemoryError, ...)
        return text[:_SHOWN]


def _refutation(gold: Any, pred: Any, gold_text: str, pred_text: str) -> str:
    """Why two expressions that Math-Verify calls equal are not; empty where nothing speaks against it."""
    bases = [_BASE.search(text) for text in (gold_text, pred_text)]
    if bases[0] and bases[1] and bases[0][1] != bases[1][1]:
        return "numerals of different bases"
    if ("%" in gold_text) != ("%" in pred_text) and _percent_stripped(gold) == _percent_stripped(pred):
        return "the same number, but only one of them is a percentage"
    try:
        agree = _agree(gold, pred)
    except Exception:  # what cannot be evaluated is left to Math-Verify's judgement
        return ""
    return "" if agree is not False else f"not equal when computed to {_DIGITS} digits"


def _percent_stripped(expression: Any) -> Any:
    hundredth = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
    if isinstance(expression, sympy.Mul) and hundredth in expression.args:
        return sympy.Mul(*(factor for factor in expression.args if factor != hundredth))
    return expression


def _agree(gold: Any, pred: Any) -> bool | None:
    """Whether two expressions are worth the same; None where that cannot be told."""
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
    """The right side of "x = 5"."""
    return expression.rhs if isinstance(expression, Eq) and isinstance(expression.lhs, sympy.Symbol) else expression


def _parts(expression: Any) -> list[Any] | None:
    """The parts of a container; None of a single expression."""
    if isinstance(expression, MatrixBase):
        return list(expression.flat())
    if isinstance(expression, Interval):
        return [expression.start, expression.end]
    if isinstance(expression, Tuple | FiniteSet | sympy.Union):
        # latex2sympy's own sets remember the order in which the elements were written
        return list(getattr(expression, "_unsorted_args", expression.args))
    return None


def _same_value(gold: sympy.Expr, pred: sympy.Expr) -> bool | None:
    if isinstance(pred, sympy.Float) and not isinstance(gold, sympy.Float) and not gold.free_symbols:
        return _rounds(pred, gold)
    gold, pred = _exact(gold), _exact(pred)
    names = sorted({symbol.name for symbol in gold.free_symbols | pred.free_symbols})
    if {symbol.name for symbol in gold.free_symbols} != {symbol.name for symbol in pred.free_symbols}:
        return None  # Math-Verify has its reasons: "Evelyn" is a word here and a product there
    results = [_same_at(gold, pred, names, point) for point in ((3, 7), (11, 13), (17, 5))[: 3 if names else 1]]
    known = [result for result in results if result is not None]
    return all(known) if known else None


def _same_at(gold: sympy.Expr, pred: sympy.Expr, names: list[str], point: tuple[int, int]) -> bool | None:
    """Compare at a rational point: the n-th variable is 1 + (n + 1) a/b, positive, small and unlikely to be special."""
    values = {name: 1 + sympy.Rational((place + 1) * point[0], 10 * point[1]) for place, name in enumerate(names)}
    numbers = []
    for expression in (gold, pred):
        substituted = expression.subs({symbol: values[symbol.name] for symbol in expression.free_symbols})
        number = sympy.N(substituted.doit(), _DIGITS)
        if not number.is_number or number.has(sympy.nan, sympy.zoo, sympy.oo):
            return None
        # Of an expression that is zero SymPy computes some tiny number, and says that not one digit of it is sure.
        numbers.append(number.xreplace({part: sympy.S.Zero for part in number.atoms(sympy.Float) if part._prec < 8}))
    return bool(abs(numbers[0] - numbers[1]) <= _CLOSE * max(abs(number) for number in numbers))


def _rounds(pred: sympy.Float, gold: sympy.Expr) -> bool | None:
    """Whether a predicted decimal is an exact gold value, or its rounded form."""
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
    r"""Whether two constants with decimals in them are exactly the same, as 1.5 \times 10^3 and 1500 are.

    Math-Verify compares a product with a decimal and an integer as they stand, and finds them different.
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
    """Whether two constants are the same with the letter i for the imaginary unit."""
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
    """The expression with its decimals as the fractions that they spell."""
    floats: Iterable[sympy.Float] = expression.atoms(sympy.Float)
    return expression.xreplace({number: sympy.Rational(str(number)) for number in floats})
