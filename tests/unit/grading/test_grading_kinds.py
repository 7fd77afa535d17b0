"""Spellings of answers by kind: equivalent ones that are correct, and similar ones that are wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from fractions import Fraction

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from start_agent.grading import GraderPool, grade_choice
from start_agent.grading.intervals import as_interval
from start_agent.grading.math import asks_for_percentage, preliminary
from start_agent.grading.numbers import read_number
from start_agent.grading.spelling import spelled
from start_agent.grading.words import compare_words
from tests.support.shared import shared_file

SAME = {
    "order of words": [
        ("\\text{Friday}", "Friday"),
        ("Tuesday", "tuesday"),
        ("A,C", "A, C"),
        ("xy", "yx"),
        ("2ab", "2ba"),
    ],
    "several quantities": [
        ("3\\text{ hours }15\\text{ minutes}", "3 hours 15 minutes"),
        ("3\\text{ hours }15\\text{ minutes}", "195\\text{ minutes}"),
        ("3\\text{ hours }15\\text{ minutes}", "3.25\\text{ hours}"),
        ("6\\text{ ft }2\\text{ in}", "74\\text{ inches}"),
        ("500\\text{ cm}", "5\\text{ m}"),
    ],
    "times of day": [("7:15\\text{ PM}", "7:15 p.m."), ("7:15", "7:15 PM"), ("3:4", "6:8")],
    "opposites": [("15\\%\\text{ decrease}", "15\\%")],
    "words that multiply": [
        ("4000", "4\\text{ thousand}"),
        ("3.2\\text{ million}", "3200000"),
        ("24", "2\\text{ dozen}"),
        ("2.5", "2\\text{ and a half}"),
    ],
    "thousands": [
        ("2500(1.02)^n", "2,500(1.02)^n"),
        ("y=-1250x+3", "y=-1,250x+3"),
        ("\\frac{1}{2500}", "\\frac{1}{2,500}"),
        ("10^{1000}", "10^{1,000}"),
        ("(1000, 2000)", "(1,000, 2,000)"),
    ],
    "units": [
        ("12", "12 students"),
        ("12", "12 square feet"),
        ("12", "12 apples per day"),
        ("9.8", "9.8 m/s^2"),
        ("50", "50 kWh"),
        ("7", "\\text{7 people}"),
        ("12\\text{ square units}", "12"),
        ("36", "36 in^3"),
    ],
    "programs": [
        ("\\frac{\\pi}{3}", "pi/3"),
        ("3\\sqrt{2}", "3*sqrt(2)"),
        ("x^2+1", "x**2 + 1"),
        ("2x+3", "2*x + 3"),
        ("\\{1,2\\}", "[1, 2]"),
        ("\\cos 2", "cos(2)"),
        ("e^{-1}", "exp(-1)"),
    ],
    "unicode": [
        ("5\\sqrt{7}", "5√7"),
        ("45^\\circ", "45°"),
        ("x\\le 3", "x ≤ 3"),
        ("-3", "−3"),
        ("\\frac12", "½"),
        ("x^3", "x³"),
    ],
    "mixed numbers": [("3 1/3", "\\frac{10}{3}"), ("1\\frac{1}{2}", "1.5"), ("\\frac{5}{2}", "2 \\frac{1}{2}")],
    "both signs": [
        ("\\pm 3", "3,-3"),
        ("2\\pm\\sqrt{3}", "2+\\sqrt{3},2-\\sqrt{3}"),
        ("2+\\sqrt{3},2-\\sqrt{3}", "2\\pm\\sqrt{3}"),
    ],
    "repeating": [
        ("\\frac{2}{3}", "0.\\overline{6}"),
        ("0.1\\overline{6}", "\\frac16"),
        ("0.\\overline{12}", "\\frac{4}{33}"),
    ],
    "complex": [("|1+i|", "\\sqrt2"), ("2+3i", "3i+2"), ("(1-i)^2", "-2i")],
    "dots": [("3,6,9,\\ldots", "3, 6, 9, \\dots")],
    "intervals": [
        ("[3,5)", "3\\le x<5"),
        ("x>2", "(2,\\infty)"),
        ("(-\\infty,1)\\cup(4,\\infty)", "x<1\\text{ or }x>4"),
        ("-1<x<1", "(-1,1)"),
    ],
    "dress": [
        ("\\mathbb{Z}", "\\mathbb Z"),
        ("101_2", "(101)_2"),
        ("\\frac{x}{y}", "\\frac xy"),
        ("7", "\\text{Answer: }7"),
        ("7", "= 7"),
    ],
}
OTHER = {
    "order of words": [
        ("ACB", "ABC"),
        ("Bob", "Obb"),
        ("listen", "silent"),
        ("HTH", "HHT"),
        ("Tuesday", "Thursday"),
        ("AB", "BA"),
    ],
    "several quantities": [
        ("3", "3 hours 15 minutes"),
        ("5\\text{ ft }2\\text{ in}", "5\\text{ ft}"),
        ("5 \\text{ cm}", "5 \\text{ m}"),
    ],
    "times of day": [("7:15\\text{ PM}", "7:15\\text{ AM}"), ("2:30", "1:15")],
    "opposites": [
        ("15\\%\\text{ decrease}", "15\\%\\text{ increase}"),
        ("\\$20\\text{ gain}", "\\$20\\text{ loss}"),
        ("5\\text{ km north}", "5\\text{ km south}"),
        ("\\text{odd}", "\\text{even}"),
    ],
    "words that multiply": [("4", "4\\text{ thousand}"), ("12", "12\\pi"), ("3", "3 sqrt(2)"), ("12", "12x")],
    "mixed numbers": [("5", "2 1/2"), ("3", "2 1/2")],
    "both signs": [("\\pm 3", "3")],
    "repeating": [("0.\\overline{3}", "0.3")],
    "complex": [("2+3i", "2-3i"), ("i", "-i")],
    "dots": [("3,6,9,\\ldots", "3,6,9")],
    "intervals": [("x>2", "[2,\\infty)"), ("[1,2]", "(1,2)")],
    "dress": [("101_2", "101_3"), ("10", "10\\%")],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[GraderPool]:
    async with GraderPool(1) as pool:
        yield pool


def cases(table: dict[str, list[tuple[str, str]]]) -> list[object]:
    return [pytest.param(gold, pred, id=f"{kind}: {pred}") for kind, pairs in table.items() for gold, pred in pairs]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("gold", "pred"), cases(SAME))
async def test_other_spellings_are_right(pool: GraderPool, gold: str, pred: str) -> None:
    assert (await pool.grade_math(pred, gold)).correct
    for itself in (gold, pred):
        assert (await pool.grade_math(itself, itself)).correct


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("gold", "pred"), cases(OTHER))
async def test_other_answers_are_wrong(pool: GraderPool, gold: str, pred: str) -> None:
    assert not (await pool.grade_math(pred, gold)).correct
    assert (await pool.grade_math(gold, gold)).correct


@pytest.mark.asyncio(loop_scope="module")
async def test_inputs_that_failed(pool: GraderPool) -> None:
    wrong = []
    for line in shared_file("bugs/math.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if (await pool.grade_math(f"\\boxed{{{row['pred']}}}", row["gold"])).correct != row["right"]:
            wrong.append(row)
    assert wrong == []


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("What percent of 80 is 20?", True),
        ("By what percentage did it grow? Round to a whole number.", True),
        ("What is the percent decrease (i.e. the change)?", True),
        ("What is the rate (in %)?", True),
        ("Express the answer as a percent.", True),
        ("What is 20% of 50?", False),
        ("A shirt is 30% off. What does it cost?", False),
        ("If 40 percent of the 50 children are girls, how many are boys?", False),
    ],
)
def test_where_a_percentage_is_asked_for(question: str, asked: bool) -> None:
    assert asks_for_percentage(question) is asked


CHOICES = ("$\\frac{1}{2}$", "$x^2$", "3 m", "none of these")


@pytest.mark.parametrize(
    ("pred", "letter"),
    [
        ("\\textit{B}", "B"),
        ("\\mathbf{\\text{C}}", "C"),
        ("（A）", "A"),
        ("B\\quad x^2", "B"),
        ("C — 3.0 m", "C"),
        ("B\nx^2", "B"),
        ("\\frac{1}{2}", "A"),
        ("0.5", "A"),
        ("x^2", "B"),
        ("The correct answer is D", "D"),
        ("C is correct", "C"),
        ("none of these", "D"),
        ("A is wrong, so B or C", None),
        ("A and C", None),
        ("4 m", None),
    ],
)
def test_dressed_choices(pred: str, letter: str | None) -> None:
    assert grade_choice(pred, letter or "A", CHOICES).parsed == letter or (letter is None)
    assert grade_choice(pred, letter or "A", CHOICES).correct is (letter is not None)


@given(value=st.fractions(min_value=-1000, max_value=1000, max_denominator=50), other=st.integers(1, 9))
def test_a_number_in_any_spelling_is_itself_and_no_other(value: Fraction, other: int) -> None:
    whole, rest = divmod(abs(value), 1)
    sign = "-" if value < 0 else ""
    spellings = [f"\\frac{{{value.numerator}}}{{{value.denominator}}}", f"{value.numerator}/{value.denominator}"]
    spellings += [f"= {spellings[0]}", f"{spellings[1]} apples", f"\\text{{{spellings[1]} cm}}"]
    if whole and rest:
        spellings.append(f"{sign}{whole} {rest.numerator}/{rest.denominator}")
    for text in spellings:
        verdict = preliminary(text, spellings[0])
        assert verdict is not None and verdict.correct, text
        verdict = preliminary(text, str(value + Fraction(other, 7)))
        assert verdict is not None and not verdict.correct, text


@given(st.text("0123456789.,/ ()[]{}^_\\-+*=<>abxiπ√²½%$ sqrtfracpmtext", max_size=60))
def test_a_spelling_is_final_and_nothing_breaks_it(text: str) -> None:
    once = spelled(text)
    assert isinstance(once, str)
    compare_words(once, once)
    as_interval(once)
    read_number(once)
