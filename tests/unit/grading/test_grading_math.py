"""Math answers: what is correct, what is wrong, and what must not fool the grader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.errors import TraceFormatError
from start_agent.grading import Reason, Verdict, grade_math, pool
from start_agent.grading.math import MAX_CHARS, answer_text, asks_for_percentage, preliminary


@pytest.fixture(scope="module", autouse=True)
def own_process() -> Iterator[None]:
    """The process of ``grade_math`` is shut down when these tests are done, not when Python ends."""
    yield
    if pool._shared is not None:
        pool._shared[1].close()
        pool._shared = None


RIGHT = [
    ("5", "\\boxed{5}"),
    ("\\frac{1}{2}", "\\boxed{\\dfrac12}"),
    ("\\frac{1}{2}", "0.5"),
    ("x^2+1", "1 + x^2"),
    ("(x+1)^2", "x^2+2x+1"),
    ("2\\sqrt{3}", "\\sqrt{12}"),
    ("3\\frac{1}{2}", "7/2"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)"),
    ("(1,2)", "(1, 2)"),
    ("1,-2", "-2, 1"),
    ("3, 5, 7", "7,5,3"),
    ("\\{1,2\\}", "\\{2,1\\}"),
    ("1 \\pm \\sqrt{19}", "1+\\sqrt{19},1-\\sqrt{19}"),
    ("(-\\infty, 2) \\cup (3, \\infty)", "(3,\\infty)\\cup(-\\infty,2)"),
    ("x \\in [-2,7]", "[-2,7]"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("y = 2x + 3", "2x+3"),
    ("4", "2+2=4"),
    ("6+9i", "9i + 6"),
    ("2516_8", "2516_{8}"),
    ("2516_8", "2516"),
    ("864 \\mbox{ inches}^2", "864"),
    ("\\frac{270}7\\text{ degrees}", "\\frac{270}{7}"),
    ("\\text{(C)}", "C"),
    ("\\text{Evelyn}", "Evelyn"),
    ("\\text{even}", "Even"),
    ("\\begin{pmatrix} -1/3 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} -\\frac13 \\\\ 2 \\end{pmatrix}"),
    ("5x - 7y + 11z + 4 = 0", "10x-14y+22z+8=0"),
    ("\\pi", "3.14159265"),
    ("\\sqrt2", "1.4142135623730951"),
    ("e^{10}", "22026.4657948067"),
    ("0", "\\sin(\\pi)"),
    ("\\log_2 3", "\\frac{\\ln 3}{\\ln 2}"),
    ("42", "The answer is 42."),
    ("42", "$42$"),
    ("1.5", "\\sqrt{9/4}"),
    ("6.02 \\times 10^{23}", "6.02e23"),
    ("1500", "1.5 \\times 10^3"),
    ("0.5", "50\\%"),
    ("\\pm 5", "5,-5"),
    ("f(x)=x^2", "x^2"),
]

WRONG = [
    ("5", "\\boxed{5"),  # an unterminated box is no answer
    ("1/2^{99}", "1/2^{98}"),
    ("\\frac{1}{2^{400}}", "\\frac{1}{2^{401}}"),
    ("(1/2^{99}, 1)", "(1/2^{98}, 1)"),
    ("\\begin{pmatrix}1/2^{99}\\\\2\\end{pmatrix}", "\\begin{pmatrix}1/2^{98}\\\\2\\end{pmatrix}"),
    ("\\frac{x}{2^{99}}", "\\frac{x}{2^{98}}"),
    ("10", "10\\%"),
    ("10\\%", "10"),
    ("10x", "10x\\%"),
    ("0.333333", "1/3"),
    ("0.333333", "\\boxed{\\frac{1}{3}}"),
    ("0.8660254", "\\frac{\\sqrt3}{2}"),
    ("0.0000001", "0.0000002"),
    ("\\pi", "3.1415"),
    ("\\pi", "3.14159365"),
    ("\\sqrt{2}", "\\sqrt{2+10^{-40}}"),
    ("2^{99}", "2^{99}+1"),
    ("3", "1/2 = 3"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "2,1"),
    ("[0,1]", "(0,1)"),
    ("\\infty", "-\\infty"),
    ("2516_8", "2516_{7}"),
    ("100, 200", "100200"),
    ("5", "5!"),
    ("|x|", "x"),
    ("\\text{east}", "west"),
    ("42", ""),
    ("42", "42 or 43"),
    ("12", "1 2"),
    ("6.02 \\times 10^{23}", "6.03e23"),
    ("1500", "1.5 \\times 10^{-3}"),
    ("1000", "1.000"),
    ("5", "5, 6"),
    ("5", "5=6"),
    ("5", "\\pm 5"),
    ("2", "x=1,y=2"),
]


@pytest.mark.parametrize(("gold", "pred"), RIGHT)
def test_right(gold: str, pred: str) -> None:
    verdict = grade_math(pred, gold)
    assert verdict.correct and verdict.reason is Reason.EQUAL and verdict.parsed, verdict


@pytest.mark.parametrize(("gold", "pred"), WRONG)
def test_wrong(gold: str, pred: str) -> None:
    verdict = grade_math(pred, gold)
    assert not verdict.correct and verdict.reason is not Reason.TIMEOUT, verdict
    assert (verdict.parsed is None) == (verdict.reason is Reason.NO_ANSWER)


def test_every_answer_of_aime_with_leading_zeros() -> None:
    for number in range(1000):
        right = Verdict(True, str(number), Reason.EQUAL, str(number))
        for gold in (str(number), f"{number:03}"):
            assert preliminary(f"\\boxed{{{number:03}}}", gold) == right
            other = preliminary(f"\\boxed{{{number + 1}}}", gold)
            assert other is not None and not other.correct


def test_the_last_closed_box_counts() -> None:
    assert grade_math("First \\boxed{1}, then \\boxed{2}.", "2").parsed == "2"
    assert grade_math("First \\boxed{1}, then \\boxed{2", "1").correct
    assert grade_math(None, "1") == Verdict(False, None, Reason.NO_ANSWER, "1")
    assert "not closed" in grade_math("\\boxed{1", "1").detail


def test_a_percentage_where_one_is_asked_for() -> None:
    for pred in ("20", "20\\%", "\\boxed{20\\%}", "50% of 40, so \\boxed{20}", "20 percent", "20.0%"):
        assert grade_math(pred, "20", percent=True).correct, pred
    assert grade_math("20", "20\\%", percent=True).correct
    assert not grade_math("0.2", "20", percent=True).correct
    assert grade_math("33\\frac13\\%", "\\frac{100}{3}", percent=True).correct


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("He saves 20% of it. What percentage of it is left?", True),
        ("What percent of 5 is 4?", True),
        ("What is the percentage discount obtained by Mr. Roger's friend?", True),
        ("He saves 20% of 50. How many are left?", False),
        ("How many?", False),
    ],
)
def test_what_asks_for_a_percentage(question: str, asked: bool) -> None:
    assert asks_for_percentage(question) is asked


@pytest.mark.parametrize(
    "hostile",
    ["9^{9^{9^{9}}}", "99999999!", "\\prod_{k=1}^{10^{9}} k + x", "(" * 600 + "1" + ")" * 600],
)
def test_a_hostile_answer_is_killed_and_the_next_one_graded(hostile: str) -> None:
    verdict = grade_math(hostile, "\\sqrt{2}", seconds=1)
    assert not verdict.correct and verdict.reason is Reason.TIMEOUT and verdict.detail == "not decided within 1 s"
    assert grade_math("\\sqrt{8}", "2\\sqrt{2}").correct


@pytest.mark.parametrize(
    "hostile", ["\\frac{1}{" * 200 + "2" + "}" * 200, "\\sqrt{" * 5000, "\\boxed{" * 5000, "x" * 10**6]
)
def test_an_endless_answer_is_not_even_parsed(hostile: str) -> None:
    verdict = grade_math(hostile, "\\sqrt{2}")
    assert verdict.reason in (Reason.UNREADABLE, Reason.NO_ANSWER)
    assert len(verdict.parsed or "") <= MAX_CHARS


def test_from_many_threads() -> None:
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda n: grade_math(f"\\sqrt{{{n * n * 3}}}", f"{n}\\sqrt{{3}}"), range(2, 22)))
    assert all(verdict.correct for verdict in verdicts)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The final answer is: $\\frac12$.", "\\frac12"),
        ("So the answer is 7", "7"),
        ("\\(x\\)", "x"),
        ("$1$ and $2$", "$1$ and $2$"),
        ("**B**", "B"),
        ("  ", None),
        ("\\boxed{}", None),
        ("\\boxed{a", None),
    ],
)
def test_answer_text(text: str, answer: str | None) -> None:
    assert answer_text(text) == answer


@given(st.text(max_size=80), st.text(max_size=80))
def test_what_the_text_decides_never_raises_and_is_json(pred: str, gold: str) -> None:
    verdict = preliminary(pred, gold)
    if verdict is not None:
        assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@given(st.text(min_size=1, max_size=80))
def test_an_answer_equals_itself(text: str) -> None:
    verdict = preliminary(text, text)
    if verdict is not None and verdict.reason is not Reason.NO_ANSWER:
        assert verdict.correct


@pytest.mark.parametrize(
    "change", [{"reason": "nonsense"}, {"correct": "yes"}, {"gold": 5}, {"more": 1}, {"reason": ["equal"]}]
)
def test_a_stored_verdict_that_is_none(change: dict[str, object]) -> None:
    data = Verdict(True, "1", Reason.EQUAL, "1").to_json()
    with pytest.raises(TraceFormatError):
        Verdict.from_json(data | change)
    del data["reason"]
    with pytest.raises(TraceFormatError):
        Verdict.from_json(data)
