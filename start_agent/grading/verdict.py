"""The verdict of a grader and the reasons for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from start_agent.errors import TraceFormatError


class Reason(StrEnum):
    """Why an answer counts as correct or incorrect."""

    EQUAL = "equal"
    """Correct: equal to the gold answer."""
    PASSED = "passed"
    """Correct: the program passes every test."""
    DIFFERENT = "different"
    """Incorrect: different from the gold answer."""
    NO_ANSWER = "no_answer"
    """Incorrect: no closed box, no letter, no program."""
    UNREADABLE = "unreadable"
    """Incorrect: the grader cannot parse it, and it is not the gold answer's text."""
    TIMEOUT = "timeout"
    """Incorrect: the comparison, or one test of the program, took too long and was killed."""
    CRASHED = "crashed"
    """Incorrect: the comparison crashed the grading process, twice."""
    WRONG_OUTPUT = "wrong_output"
    """Incorrect: the program fails a test."""
    ERROR = "error"
    """Incorrect: the program raises an error, runs out of memory or crashes."""
    UNGRADABLE = "ungradable"
    """Counted as incorrect: the problem's gold answer or tests cannot be read, so no answer could be correct."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of grading one answer.

    Attributes:
        correct: whether the answer is correct.
        parsed: the answer as the grader read it; None if it found none.
        reason: why.
        gold: the gold answer as the grader read it; for code, the expected output of the first failing test.
        detail: an explanation of one or a few lines; empty if the reason is enough.
    """

    correct: bool
    parsed: str | None
    reason: Reason
    gold: str | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready object."""
        return asdict(self) | {"reason": self.reason.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Read what ``to_json`` wrote. Raises TraceFormatError for anything else."""
        try:
            verdict = cls(**{**data, "reason": Reason(data["reason"])})
        except (KeyError, TypeError, ValueError) as error:
            raise TraceFormatError(f"the verdict has a missing or invalid field: {error}") from error
        texts = (verdict.parsed, verdict.gold, verdict.detail)
        if not isinstance(verdict.correct, bool) or not all(text is None or isinstance(text, str) for text in texts):
            raise TraceFormatError("the verdict has a field of the wrong type")
        return verdict
