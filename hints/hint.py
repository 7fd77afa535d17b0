"""The hint itself and the closed sets that describe it. Standard library only: cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FENCE = "```"
"""What opens (and closes) a code block."""

OPENING_FENCE = "```python\n"
"""The one opening fence that a hint may carry, its newline included."""


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
        """The only domain in which the function has a meaning."""
        return Domain.CODE if self is Function.DEBUG else Domain.MATH


class Placement(StrEnum):
    """Where a hint is put: after a connective word, or before the end-of-think marker."""

    CONNECTIVE = "connective"
    END_OF_THINK = "end_of_think"


class Template(StrEnum):
    """The shape of program that a debug hint speaks of."""

    FUNCTION = "function"
    CLASS = "class"
    STDIN = "stdin"


@dataclass(frozen=True, slots=True)
class Hint:
    """One hint: a text to put into a chain of thought, and what it is for.

    ``template`` is set for ``Function.DEBUG`` and None otherwise. ``source`` says who wrote the text:
    ``paper`` for the hints that the START authors quote, ``start-agent`` for the others built in, anything
    in a user's own file. ``version`` grows when the text of an id changes, so that traces stay comparable.
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
        """Whether the text ends inside a code block, so that the model goes on by writing code."""
        return OPENING_FENCE in self.text
