"""The registry of graders, for ``--grader``. Each kind of task has a grader of the same name.

A package adds a grader by an entry point of the group ``start_agent.graders`` whose value is a ``GraderEntry``; see
``start_agent.plugins``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sandbox import Sandbox
from start_agent.errors import ConfigError
from start_agent.grading import GraderPool, grade
from start_agent.grading.code import LIMITS
from start_agent.grading.verdict import Verdict
from start_agent.grading.votes import choice_value, math_value
from start_agent.plugins import NoOptions, OptionsRegistry
from start_agent.problem import Kind, Problem
from start_agent.trace import Decode, Trace

Grade = Callable[[Problem, Trace], Awaitable[Verdict]]
"""Grades a finished trace. Raises GradingError or SandboxError if the infrastructure fails."""

AnswerValue = Callable[[Problem, str], Hashable]
"""Maps an answer to a value: answers with equal values are the same. The problem comes without its gold answer."""


@dataclass(frozen=True, slots=True)
class GradingContext:
    """The arguments with which a grader is opened.

    Attributes:
        decode: the tokenizer's ``decode``: tokens → text.
        kernels: the most sandbox sessions at the same time, for a grader that runs code.
        unsafe_no_isolation: whether the user allows running code without isolation.
    """

    decode: Decode
    kernels: int = 1
    unsafe_no_isolation: bool = False


@dataclass(frozen=True, slots=True)
class GraderEntry:
    """A grader as the registry knows it.

    Attributes:
        name: for ``--grader``.
        kinds: the kinds of problems that it grades; it is rejected for tasks of another kind.
        open: (context, options) → an asynchronous context manager that yields the ``Grade`` and manages its resources
            (processes, a sandbox, a client).
        options: the model of its options.
        value: maps answers to values for strategies that count votes; None if answers cannot be compared this way.
    """

    name: str
    kinds: frozenset[Kind]
    open: Callable[[GradingContext, Any], AbstractAsyncContextManager[Grade]]
    options: type[BaseModel] = NoOptions
    value: AnswerValue | None = None


@asynccontextmanager
async def _open_math(context: GradingContext, options: NoOptions) -> AsyncGenerator[Grade, None]:
    async with GraderPool() as pool:
        yield partial(grade, pool=pool, decode=context.decode)


@asynccontextmanager
async def _open_choice(context: GradingContext, options: NoOptions) -> AsyncGenerator[Grade, None]:
    yield partial(grade, decode=context.decode)


@asynccontextmanager
async def _open_code(context: GradingContext, options: NoOptions) -> AsyncGenerator[Grade, None]:
    size = min(context.kernels, os.cpu_count() or 1)
    async with Sandbox(LIMITS, size=size, unsafe_no_isolation=context.unsafe_no_isolation) as box:
        yield partial(grade, sandbox=box, decode=context.decode)


BUILT_IN = (
    GraderEntry("math", frozenset({Kind.MATH}), _open_math, value=math_value),
    GraderEntry("choice", frozenset({Kind.CHOICE}), _open_choice, value=choice_value),
    GraderEntry("code", frozenset({Kind.CODE}), _open_code),
)
"""One for each kind, with the kind's name."""

GRADERS = OptionsRegistry("grader", "start_agent.graders", GraderEntry, lambda: BUILT_IN)
"""The graders that ``--grader`` can choose."""


class GraderChoice(BaseModel):
    """The choice of a grader."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grader: str | None = Field(
        None, description="what judges the answers: math, choice, code, or a plug-in's (default: the task's)"
    )


def find_grader(name: str, kind: Kind) -> GraderEntry:
    """The grader with this name, or at ``module:object``, for problems of a kind.

    Raises:
        ConfigError: there is none, or it grades other kinds of problems.
    """
    entry = GRADERS.find(name)
    if kind not in entry.kinds:
        graded = " and ".join(sorted(entry.kinds))
        raise ConfigError(f"--grader {name}: it grades problems of the kind {graded}, and these are of the kind {kind}")
    return entry
