"""Rows of each known format."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent import pocket
from start_agent.errors import DataError
from start_agent.grading.cases import Case, read_cases
from start_agent.problem import LETTERS, CodeTests, Kind, Problem
from start_agent.tasks import known_tasks, load
from start_agent.tasks.reading import by_columns, read_choices
from start_agent.tasks.task import Task

GPQA = {
    "Question": "Which?",
    "Correct Answer": " right ",
    "Incorrect Answer 1": "wrong 1",
    "Incorrect Answer 2": "wrong 2",
    "Incorrect Answer 3": "wrong 3",
    "High-level domain": "Physics",
    "Record ID": "rec1",
}
NESTED = {
    "answerKey": "B",
    "id": "x1",
    "question": {
        "question_concept": "door",
        "stem": "Where?",
        "choices": [{"label": "A", "text": "bank"}, {"label": "B", "text": "mall"}],
    },
}
FLAT = {
    "id": "x1",
    "question": "Where?",
    "question_concept": "door",
    "choices": {"label": ["A", "B"], "text": ["bank", "mall"]},
    "answerKey": "B",
}
ROWS = [{"input": "1", "output": "2", "testtype": "functional"}]
CODE = {
    "question_content": "Double it.",
    "starter_code": "class Solution:\n    def double(self, n: int) -> int:\n        ",
    "public_test_cases": json.dumps(ROWS),
    "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(json.dumps(ROWS)))).decode(),
    "metadata": json.dumps({"func_name": "double"}),
    "difficulty": "easy",
    "platform": "leetcode",
    "question_id": "7",
    "contest_date": "2024-01-01T00:00:00",
}


def read(name: str, row: dict[str, Any], seed: int = 0) -> Problem:
    task: Task = known_tasks()[name]
    assert task.read is not None
    problem = task.read(row, seed)
    assert problem.kind is task.kind
    json.dumps(dict(problem.meta))
    return problem


def test_gsm8k() -> None:
    problem = read("gsm8k", {"question": " How many? ", "answer": "She has 2,000 + 125.\n#### 2,125"})
    assert (problem.question, problem.answer) == ("How many?", "2125")
    with pytest.raises(DataError, match="no '####'"):
        read("gsm8k", {"question": "How many?", "answer": "5"})


def test_math_in_its_forms() -> None:
    row = {
        "problem": "P",
        "answer": "\\pi",
        "solution": "\\boxed{3}",
        "level": 5,
        "subject": "Algebra",
        "unique_id": "u",
    }
    problem = read("math500", row)
    assert (problem.answer, problem.meta) == ("\\pi", {"level": 5, "subject": "Algebra", "id": "u"})
    assert (
        read("math500", {"problem": "P", "solution": "So \\boxed{\\frac12}.", "type": "Algebra"}).answer == "\\frac12"
    )
    assert read("amc23", {"question": "P", "answer": 27.0}).answer == "27.0"
    assert read("aime24", {"problem": "P", "answer": "025"}).answer == "025"
    assert read("aime25", {"question": "P", "answer": 70}).answer == "70"
    assert read("aime25", {"question": "P", "answer": 70.0}).answer == "70"
    with pytest.raises(DataError, match="no closed box"):
        read("math500", {"problem": "P", "solution": "\\boxed{3"})
    for answer in ("1000", "-1", "4.5", "x"):
        with pytest.raises(DataError, match="0 to 999"):
            read("aime24", {"problem": "P", "answer": answer})


def test_gpqa_choices_are_shuffled_by_a_recorded_seed() -> None:
    letters, keys = set(), set()
    for seed in range(40):
        problem = read("gpqa_diamond", GPQA, seed)
        assert problem == read("gpqa_diamond", GPQA, seed)
        assert problem.choices[LETTERS.index(problem.answer)] == "right"
        assert sorted(problem.choices) == ["right", "wrong 1", "wrong 2", "wrong 3"]
        assert problem.meta == {"subject": "Physics", "id": "rec1", "choice_seed": seed}
        letters.add(problem.answer)
        keys.add(problem.key)
    assert letters == set("ABCD") and 4 <= len(keys) <= 24


def test_commonsenseqa_nested_and_flat_are_the_same_problem() -> None:
    nested, flat = read("commonsenseqa", NESTED), read("commonsenseqa", FLAT)
    assert nested == flat and nested.key == flat.key
    assert (nested.question, nested.choices, nested.answer) == ("Where?", ("bank", "mall"), "B")
    with pytest.raises(DataError, match=r"not a label \(A, B\)"):
        read("commonsenseqa", FLAT | {"answerKey": "C"})


def test_livecodebench() -> None:
    problem = read("livecodebench", CODE)
    assert problem.tests is not None and problem.tests.function == "double" and problem.tests.time_limit == 6
    assert read_cases(problem.tests) == [Case("1", "2")] * 2
    assert problem.meta["level"] == "easy" and problem.meta["date"].startswith("2024")
    stdin = read("livecodebench", CODE | {"metadata": "{}", "starter_code": None, "private_test_cases": None})
    assert stdin.tests is not None and stdin.tests.function == "" and read_cases(stdin.tests) == [Case("1", "2")]
    listed = read("livecodebench", CODE | {"public_test_cases": ROWS, "metadata": {"func_name": "double"}})
    assert listed.key == problem.key
    with pytest.raises(DataError, match="'metadata' is not a JSON"):
        read("livecodebench", CODE | {"metadata": "{"})


@pytest.mark.parametrize("name", [name for name, task in known_tasks().items() if task.read is not None])
def test_a_wrong_row_is_one_line_that_lists_the_columns(name: str) -> None:
    with pytest.raises(DataError) as caught:
        read(name, {"foo": 1, "bar": 2})
    message = str(caught.value)
    assert "there is no column '" in message and "foo, bar" in message and "\n" not in message


@pytest.mark.parametrize("value", [None, "", "  ", True, ["x"], {"x": 1}])
def test_a_cell_of_another_kind(value: object) -> None:
    with pytest.raises(DataError, match="'answer'"):
        read("math500", {"problem": "P", "answer": value})


def test_columns_by_name() -> None:
    reader = by_columns("q", "a", level="l", subject="s")
    problem = reader({"q": "Q", "a": 5, "l": 3, "s": None}, 0)
    assert (problem.question, problem.answer, problem.meta) == ("Q", "5", {"level": 3})
    with pytest.raises(DataError, match="no column 'l'"):
        reader({"q": "Q", "a": 5, "s": 1}, 0)
    chosen = by_columns("q", "a", choices="c")({"q": "Q", "a": "mall", "c": ["bank", "mall"]}, 0)
    assert (chosen.kind, chosen.answer, chosen.choices) == (Kind.CHOICE, "B", ("bank", "mall"))


@pytest.mark.parametrize(
    "raw", [None, "AB", 5, [], ["one"], [1, [2]], {"label": ["A"], "text": ["x", "y"]}, ["x"] * 27]
)
def test_choices_in_no_known_form(raw: object) -> None:
    with pytest.raises(DataError, match="unsupported form"):
        read_choices(raw)


def test_pocket_families_are_the_held_out_problems() -> None:
    problems = load("pocket", limit=20)
    held_out = pocket.held_out(20)
    assert [(p.question, p.answer, p.key) for p in problems] == [(p.question, p.answer, p.key) for p in held_out]
    assert len(load("pocket")) == 500
    family = load("pocket_products", limit=7)
    assert len(family) == 7 and {problem.meta["subject"] for problem in family} == {"products"}
    assert {problem.meta["level"] for problem in family} == {1, 2, 3}


@given(st.text(), st.text())
def test_the_key_is_the_hash_of_what_is_asked(question: str, other: str) -> None:
    bare = Problem(question, "1")
    assert bare.key == hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()
    assert bare.key == Problem(question, "2", meta={"level": 1}).key
    keys = {
        bare.key,
        Problem(question, "A", Kind.CHOICE, choices=(other, "x")).key,
        Problem(question, "A", Kind.CHOICE, choices=("x", other, "y")).key,
        Problem(question, "", Kind.CODE, tests=CodeTests(other)).key,
        Problem(question, "", Kind.CODE, tests=CodeTests(other, function="f")).key,
    }
    assert len(keys) == 5
    assert (Problem(other, "1").key == bare.key) is (other == question)


def test_a_key_that_records_are_stored_under_does_not_change() -> None:
    assert read("gpqa_diamond", GPQA).key == "2a2c0dfee9ac4e88c4e3c7e7960f059e197e639683b25b3dd97b1ac6ceb06320"
    assert (
        read("livecodebench", CODE | {"private_test_cases": "[]"}).key
        == "644752b18734e4566031af1d36ef3d8fb8d23d1074ea75060cf9d096f989e469"
    )


@pytest.mark.parametrize(
    ("gold", "choices", "letter"),
    [
        (0, ["u", "v"], "A"),
        (1, ["1", "0", "2"], "B"),  # a number is an index
        ("1", ["1", "0", "2"], "A"),  # a text is a text
        ("2", ["x", "y", "z"], "C"),
        ("(B)", ["u", "v"], "B"),
        ("[b].", ["u", "v"], None),
        ("b.", ["u", "v"], "B"),
        ("A)", ["u", "v"], "A"),
        (" v ", ["u", " v"], "B"),
        (2, ["u", "v"], None),
        (5, ["3", "5", "7"], None),
        (-1, ["u", "v"], None),
        ("²", ["u", "v", "w"], None),
        (0.0, ["u", "v"], None),
        (1, {"label": ["1", "2"], "text": ["u", "v"]}, "A"),
        ("(2)", {"label": ["1", "2"], "text": ["u", "v"]}, "B"),
    ],
)
def test_how_a_set_names_the_right_choice(gold: object, choices: object, letter: str | None) -> None:
    row = {"q": "Q", "a": gold, "c": choices}
    if letter is None:
        with pytest.raises(DataError, match="correct choice"):
            by_columns("q", "a", choices="c")(row, 0)
    else:
        assert by_columns("q", "a", choices="c")(row, 0).answer == letter
