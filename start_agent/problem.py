"""A problem: a question and what is needed to grade its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The kind of a problem's answer; decides how it is asked for and graded."""

    MATH = "math"
    """A number or an expression, in a box."""
    CHOICE = "choice"
    """The letter of one of several choices, in a box."""
    CODE = "code"
    """A program, in the last block of code after thinking."""


@dataclass(frozen=True, slots=True)
class CodeTests:
    """The tests of a code problem in the data set's format; ``grading.cases`` parses them lazily.

    Attributes:
        public: JSON, a list of objects with ``input``, ``output`` and ``testtype``.
        private: the same, or base64 of zlib of a pickled JSON string; LiveCodeBench's can have many megabytes.
        function: the name of the function to call; empty if the program reads standard input.
        time_limit: seconds per test. LiveCodeBench allows 6.
        tolerance: allowed relative or absolute difference of numbers; 0 for none.
    """

    public: str = "[]"
    private: str = "[]"
    function: str = ""
    time_limit: float = 6.0
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and its gold answer.

    Attributes:
        question: the bare question, without choices, starter code or instruction.
        answer: the gold answer; for multiple choice a letter; empty for code, where the tests decide.
        kind: the kind of the answer.
        choices: the choices of a multiple-choice question in the order shown, "A" first.
        starter_code: the beginning of the program; empty if there is none.
        tests: the tests of a code problem.
        meta: other fields as JSON: ``level``, ``subject``, ``id``, the seed of shuffled choices.
        key: the content hash, computed: problems that ask the same have the same key.
    """

    question: str
    answer: str
    kind: Kind = Kind.MATH
    choices: tuple[str, ...] = ()
    starter_code: str = ""
    tests: CodeTests | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", content_key(self))


def content_key(problem: Problem) -> str:
    """The sha256, in hex, of everything that is asked: the question, and the choices or tests if there are any.

    For a bare question it is the sha256 of its UTF-8 text, as in ``start_agent.pocket``.
    """
    text = problem.question
    tests = problem.tests
    if problem.choices or problem.starter_code or tests:
        # The time limit is not part of what is asked.
        asked = [text, problem.choices, problem.starter_code, tests and [tests.public, tests.private, tests.function]]
        text = json.dumps(asked, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The letters of choices, in order."""
