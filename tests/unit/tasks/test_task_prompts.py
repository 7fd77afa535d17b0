"""The prompts of tasks."""

from __future__ import annotations

from hints import Template
from start_agent.models import BOXED_INSTRUCTION
from start_agent.problem import CodeTests, Kind, Problem
from start_agent.tasks import instruction_of, known_tasks, prompt_text, question_text
from start_agent.tasks.prompts import code_template

MATH = Problem("What is 6 * 7?", "42")
CHOICE = Problem("Where?", "B", Kind.CHOICE, choices=("bank", "mall"))
STDIN = Problem("Double it.", "", Kind.CODE, tests=CodeTests())
FUNCTION = Problem("Double it.", "", Kind.CODE, starter_code="def f(n):\n", tests=CodeTests(function="f"))


def test_the_template_of_a_code_problem() -> None:
    method = Problem("Double it.", "", Kind.CODE, starter_code="class Solution:\n", tests=CodeTests(function="f"))
    found = [code_template(problem) for problem in (STDIN, FUNCTION, method, MATH, CHOICE)]
    assert found == [Template.STDIN, Template.FUNCTION, Template.CLASS, None, None]


def test_math() -> None:
    assert prompt_text(MATH) == f"What is 6 * 7?\n\n{BOXED_INSTRUCTION}"
    assert prompt_text(MATH, "") == question_text(MATH) == "What is 6 * 7?"
    assert prompt_text(MATH, "Think.") == "What is 6 * 7?\n\nThink."


def test_choice() -> None:
    assert question_text(CHOICE) == "Where?\n\nA. bank\nB. mall"
    assert "letter" in instruction_of(CHOICE) and "\\boxed{}" in instruction_of(CHOICE)


def test_code() -> None:
    assert question_text(STDIN) == "Double it."
    assert "standard input" in prompt_text(STDIN) and "```python" in prompt_text(STDIN)
    asked = prompt_text(FUNCTION)
    assert (
        "```python\ndef f(n):\n```" in asked and "standard input" not in asked and "fills in the starter code" in asked
    )


def test_each_task_says_what_it_is() -> None:
    assert all(task.about and (task.make is None) != (task.read is None) for task in known_tasks().values())
    assert {"gsm8k", "math500", "aime24", "aime25", "amc23", "gpqa_diamond", "commonsenseqa", "livecodebench"} < set(
        known_tasks()
    )
