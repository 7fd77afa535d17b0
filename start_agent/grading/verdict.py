"""What a grader says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from start_agent.errors import TraceFormatError


class Reason(StrEnum):
    """Why an answer counts as right or wrong."""

    EQUAL = "equal"
    """Right: it says what the gold answer says."""
    PASSED = "passed"
    """Right: the program passes every test."""
    DIFFERENT = "different"
    """Wrong: it says something else."""
    NO_ANSWER = "no_answer"
    """Wrong: no closed box, no letter, no program."""
    UNREADABLE = "unreadable"
    """Wrong: the grader cannot read it as mathematics, and it is not the gold answer's text."""
    TIMEOUT = "timeout"
    """Wrong: comparing it, or one test of the program, took too long and was killed."""
    CRASHED = "crashed"
    """Wrong: comparing it broke the grader's process, twice."""
    WRONG_OUTPUT = "wrong_output"
    """Wrong: the program fails a test."""
    ERROR = "error"
    """Wrong: the program ends in an error, runs out of memory or dies."""
    UNGRADABLE = "ungradable"
    """Counted as wrong: the problem's own answer or tests cannot be read, so that nothing could be right."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer, judged.

    Attributes:
        correct: whether it is right.
        parsed: the answer as the grader understood it; None where it found none.
        reason: one word of a closed set.
        gold: the gold answer as the grader understood it; of code, what the first failing test expects.
        detail: one line or a few for people; empty where the reason says it all.
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
            raise TraceFormatError(f"a verdict with a missing or wrong field: {error}") from error
        texts = (verdict.parsed, verdict.gold, verdict.detail)
        if not isinstance(verdict.correct, bool) or not all(text is None or isinstance(text, str) for text in texts):
            raise TraceFormatError("a verdict with a field of the wrong type")
        return verdict
