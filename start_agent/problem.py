"""A problem: a question with what is needed to grade an answer to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What an answer to a problem is, and so how it is asked for and graded."""

    MATH = "math"
    """A number or an expression, in a box."""
    CHOICE = "choice"
    """The letter of one of several choices, in a box."""
    CODE = "code"
    """A program, in the last block of code after thinking."""


@dataclass(frozen=True, slots=True)
class CodeTests:
    """The tests of a code problem, as the data set spells them; ``grading.cases`` reads them when they are needed.

    Attributes:
        public: JSON, a list of objects with ``input``, ``output`` and ``testtype``.
        private: the same, or base64 of zlib of a pickled JSON string; that of LiveCodeBench can be of many megabytes.
        function: the name of the function that is called; empty where the program reads standard input.
        time_limit: seconds for each test. LiveCodeBench allows 6.
        tolerance: how far a number may lie from the expected one, relative or absolute; 0 where none is stated.
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
        kind: how it is asked for and graded.
        choices: those of a multiple-choice question in the order in which they are shown, "A" first.
        starter_code: what the program begins with; empty where there is none.
        tests: those of a code problem.
        meta: what else is known: ``level``, ``subject``, ``id``, the seed of shuffled choices. JSON-able.
        key: the content hash; problems that ask the same have the same key. Computed.
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
    """The sha256, in hex, of all that decides what is asked: the question, and the choices or tests if there are any.

    For a bare question it is the sha256 of its UTF-8 text, as in ``start_agent.pocket``.
    """
    text = problem.question
    tests = problem.tests
    if problem.choices or problem.starter_code or tests:
        # What a test costs in time is no part of what is asked.
        asked = [text, problem.choices, problem.starter_code, tests and [tests.public, tests.private, tests.function]]
        text = json.dumps(asked, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The names of choices, in order."""
