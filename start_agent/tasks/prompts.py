"""Builds the user message of a problem: the question with its choices or starter code, and the instruction."""

from __future__ import annotations

from hints import Template
from start_agent.models import BOXED_INSTRUCTION
from start_agent.problem import LETTERS, Kind, Problem

INSTRUCTIONS = {
    Kind.MATH: BOXED_INSTRUCTION,
    Kind.CHOICE: "Please reason step by step, and put the letter of the right choice within \\boxed{}.",
    Kind.CODE: (
        "Please reason step by step. After your reasoning, give a complete Python program that reads its input from "
        "standard input and prints the answer to standard output, in one block that begins with ```python and ends "
        "with ```."
    ),
}
"""The instruction after a question, by the kind of problem; for code, that for a program that reads standard input."""

FUNCTION_INSTRUCTION = (
    "Please reason step by step. After your reasoning, give the complete Python code that fills in the starter code, "
    "in one block that begins with ```python and ends with ```. Keep its names and signatures."
)
"""For a code problem whose tests call a function."""

_STARTER = "The program begins with this starter code:\n\n```python\n{code}\n```"


def question_text(problem: Problem) -> str:
    """The question with its choices or its starter code, without an instruction."""
    parts = [problem.question]
    if problem.choices:
        parts.append("\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, problem.choices, strict=False)))
    if problem.starter_code.strip():
        parts.append(_STARTER.format(code=problem.starter_code.rstrip()))
    return "\n\n".join(parts)


def instruction_of(problem: Problem) -> str:
    """The instruction that follows the problem's question."""
    if problem.tests is not None and problem.tests.function:
        return FUNCTION_INSTRUCTION
    return INSTRUCTIONS[problem.kind]


def prompt_text(problem: Problem, instruction: str | None = None) -> str:
    """The complete user message.

    Args:
        problem: the problem.
        instruction: a paragraph after the question; None for the default of the problem's kind, empty for none (the
            embedded pocket model was trained on bare questions).
    """
    if instruction is None:
        instruction = instruction_of(problem)
    return "\n\n".join(part for part in (question_text(problem), instruction) if part)


def code_template(problem: Problem) -> Template | None:
    """The debug hint template for the form of program that a code problem asks for; None for other kinds."""
    if problem.tests is None:
        return None
    if not problem.tests.function:
        return Template.STDIN
    return Template.CLASS if "class Solution" in problem.starter_code else Template.FUNCTION
