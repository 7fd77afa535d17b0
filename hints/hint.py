"""``Hint`` and the enumerations that describe it. Imports only the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FENCE = "```"
"""Opens and closes a code block."""

OPENING_FENCE = "```python\n"
"""The only opening fence that a hint may contain, including its newline."""


class Domain(StrEnum):
    """The kind of problem that a hint is for."""

    MATH = "math"
    CODE = "code"


class Function(StrEnum):
    """What a hint invites the model to do. The first six are for math, ``DEBUG`` is for code."""

    COMPLEX_CALCULATION = "complex_calculation"
    SELF_REFLECTION = "self_reflection"
    LOGIC_CHECK = "logic_check"
    ALTERNATIVE_METHOD = "alternative_method"
    GENERAL_TOOL_USE = "general_tool_use"
    DEEP_THINKING = "deep_thinking"
    DEBUG = "debug"

    @property
    def domain(self) -> Domain:
        """The only domain in which the function is valid."""
        return Domain.CODE if self is Function.DEBUG else Domain.MATH


class Placement(StrEnum):
    """Where a hint is inserted: after a connective word, or in place of the end-of-think marker."""

    CONNECTIVE = "connective"
    END_OF_THINK = "end_of_think"


class Template(StrEnum):
    """The form of program that a debug hint refers to."""

    FUNCTION = "function"
    CLASS = "class"
    STDIN = "stdin"


@dataclass(frozen=True, slots=True)
class Hint:
    """One hint: a text to insert into a chain of thought, and its purpose.

    ``template`` is set for ``Function.DEBUG`` and None otherwise. ``source`` says who wrote the text: ``paper`` for
    hints quoted from the START paper, ``start-agent`` for the other built-in ones, any text in a custom file.
    ``version`` increases when the text of an id changes, so that traces stay comparable.
    """

    id: str
    version: int
    domain: Domain
    function: Function
    placement: Placement
    text: str
    source: str
    template: Template | None = None

    @property
    def opens_code(self) -> bool:
        """Whether the text ends inside a code block, so that the model continues with code."""
        return OPENING_FENCE in self.text
