"""The rationales file: its format, parsing of answers, and refused files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from start_agent.errors import ConfigError, DataError, InputError
from start_agent.problem import Kind, Problem
from start_agent.recipes.star.rationales import Form, Shots

CARS = {"question": "3 cars, 2 more. How many?", "rationale": "3 + 2 = 5.", "answer": 5}
PROBLEM = Problem("How many is {answer} in {question}?", "7")


def read(path: Path, content: Any) -> Shots:
    file = path / "rationales.yaml"
    file.write_text(yaml.safe_dump(content))
    return Shots.read(file)


def test_examples_are_written_as_problems_will_be(tmp_path: Path) -> None:
    shots = read(tmp_path, {"rationales": [CARS]})
    assert shots.prefix(hinted=False) == "Q: 3 cars, 2 more. How many?\nA: 3 + 2 = 5. The answer is 5.\n\n"
    assert "The right answer is 5.\nA: 3 + 2" in shots.prefix(hinted=True)


def test_what_is_put_in_is_not_read_as_a_place() -> None:
    assert Form().prompt(PROBLEM) == "Q: How many is {answer} in {question}?\nA:"
    assert "The right answer is 7." in Form().prompt(PROBLEM, hinted=True)
    assert "7" not in Form().prompt(PROBLEM)


def test_choices_are_shown() -> None:
    problem = Problem("Where?", "B", Kind.CHOICE, choices=("here", "there"))
    assert Form().prompt(problem) == "Q: Where?\n\nA. here\nB. there\nA:"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (" So. The answer is 12.", "12"),
        (" The answer is 3. No: the answer was wrong. The answer is 4.5.", "4.5"),
        (" The answer is (b)", "(b)"),
        (" The answer is .", None),
        (" It is 12.", None),
        ("", None),
    ],
)
def test_the_last_conclusion_is_the_answer(written: str, found: str | None) -> None:
    assert Form().answer(written) == found


def test_json_lines_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "rationales.jsonl"
    file.write_text(json.dumps(CARS) + "\n\n" + json.dumps({**CARS, "answer": "six"}) + "\n")
    assert [problem.answer for problem, _ in Shots.read(file).examples] == ["5", "six"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"rationales": []}, "has no rationales"),
        ({"rationales": [CARS], "shots": 3}, "unknown key 'shots'"),
        ({"rationales": [{"question": "a", "answer": "b"}]}, "rationale 1: must have exactly the keys"),
        ({"rationales": [CARS, {**CARS, "rationale": " "}]}, "rationale 2: a field is empty"),
        ({"rationales": [{**CARS, "rationale": "one\n\ntwo"}]}, "rationale 1: contains the separator"),
        ({"rationales": [CARS], "form": {"question": "Q:"}}, r"form\.question: must contain \{question\}, each once"),
        (
            {"rationales": [CARS], "form": {"hint": "{question}"}},
            r"form\.hint: must contain \{question\} and \{answer\}",
        ),
        ({"rationales": [CARS], "form": {"conclusion": "{answer}"}}, "must have text before"),
        ({"rationales": [CARS], "form": {"end": "x"}}, r"form\.end"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said) as caught:
        read(tmp_path, content)
    assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shots.jsonl"
    for line in ("{torn", "[1]"):
        path.write_text(json.dumps(CARS) + "\n\n" + line + "\n")
        with pytest.raises(DataError, match=r"shots\.jsonl, line 3: "):
            Shots.read(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    for name in ("no.yaml", "no.jsonl"):
        with pytest.raises(InputError, match="cannot read"):
            Shots.read(tmp_path / name)
