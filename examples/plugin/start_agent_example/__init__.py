"""A package that adds an engine, a task, a grader, a strategy, a dialect and a hint file to start-agent.

Each is an object behind an entry point in ``pyproject.toml``. Once the package is installed, options take the names::

    pip install ./examples/plugin
    start-agent batch --engine adder --task additions --strategy agree --hint-files example --output-dir runs/example

If it is importable but not installed, options take ``module:object``: ``--engine start_agent_example:ENGINE``.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field

from start_agent import ScriptedEngine, Trace
from start_agent.engines.base import TurnRequest
from start_agent.engines.registry import EngineEntry
from start_agent.grading import Reason, Verdict
from start_agent.grading.registry import Grade, GraderEntry, GradingContext
from start_agent.grading.votes import math_value
from start_agent.problem import Kind, Problem
from start_agent.seeds import derive_seed
from start_agent.strategies import Question, Solution, Solve, Strategy, StrategyEntry
from start_agent.tasks import Task
from start_agent.tokens.dialects import Dialect


class AdderOptions(BaseModel):
    """The options of the engine: ``--slips`` on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slips: float = Field(0.0, ge=0, le=1, description="probability of an off-by-one error without Python")


def make_engine(model: str, options: AdderOptions) -> ScriptedEngine:
    """A model that adds two numbers: by itself, or with Python if a hint has opened a code block.

    A real engine subclasses ``start_agent.engines.base.Engine``, and its test inherits ``EngineContract``.
    """

    def say(request: TurnRequest) -> str:
        text = engine.tokenizer.decode(request.token_ids)
        thoughts = text.rpartition("<think>")[2]
        numbers = [int(number) for number in re.findall(r"\d+", text.removesuffix(thoughts))]
        if thoughts.endswith("```python\n"):
            return f"print({' + '.join(map(str, numbers))})\n```"
        if thoughts.endswith(f"{DIALECT.code_open}\n"):
            return f"print({' + '.join(map(str, numbers))})\n{DIALECT.code_close}"
        printed = re.findall(r"\n(\d+)\n", thoughts)
        slip = random.Random(request.seed).random() < options.slips
        answer = printed[-1] if printed else sum(numbers) + slip
        return f"I add them. Wait, it is {answer}.\n</think>\n\\boxed{{{answer}}}"

    engine = ScriptedEngine(say)
    return engine


ENGINE = EngineEntry("adder", AdderOptions, make_engine, packages={})


def additions(count: int, split: str | None) -> list[Problem]:
    """Generate ``count`` problems, reproducibly. A task that loads rows has ``read`` instead."""
    numbers = random.Random(split or "test")
    pairs = [(numbers.randrange(100), numbers.randrange(100)) for _ in range(count)]
    return [Problem(f"What is {a} + {b}?", str(a + b), meta={"level": len(str(a + b))}) for a, b in pairs]


TASK = Task("additions", Kind.MATH, make=additions, about="sums of two numbers", grader="nearly")


class NearlyOptions(BaseModel):
    """The options of the grader: ``--within`` on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    within: float = Field(0.0, ge=0, description="allowed absolute error of an answer")


@asynccontextmanager
async def open_grader(context: GradingContext, options: NearlyOptions) -> AsyncGenerator[Grade, None]:
    """A grader that accepts numbers near the gold answer. It would open its resources (a process, a client) here."""

    async def grade(problem: Problem, trace: Trace) -> Verdict:
        if trace.answer is None:
            return Verdict(False, None, Reason.NO_ANSWER, problem.answer)
        try:
            right = abs(float(trace.answer) - float(problem.answer)) <= options.within
        except ValueError:
            return Verdict(False, trace.answer, Reason.UNREADABLE, problem.answer)
        return Verdict(right, trace.answer, Reason.EQUAL if right else Reason.DIFFERENT, problem.answer)

    yield grade


GRADER = GraderEntry("nearly", frozenset({Kind.MATH}), open_grader, NearlyOptions, value=math_value)


class AgreeOptions(BaseModel):
    """The options of the strategy: ``--tries`` on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tries: int = Field(4, ge=1, description="maximum number of traces")


class Agree(Strategy):
    """Samples traces until two of them have the same answer."""

    def __init__(self, options: AgreeOptions) -> None:
        self.options = options

    async def run(self, solve: Solve, question: Question, seed: int | None) -> Solution:
        """See ``Strategy.run``."""
        assert question.value is not None  # the entry has compares=True
        traces: list[Trace] = []
        seen: dict[object, int] = {}
        for number in range(self.options.tries):
            traces.append(await solve(question.text, seed=None if seed is None else derive_seed(seed, f"try {number}")))
            answer = traces[-1].answer
            if answer is not None and (value := question.value(answer)) in seen:
                return Solution(tuple(traces), seen[value])
            if answer is not None:
                seen[value] = number
        return Solution(tuple(traces), next(iter(seen.values()), 0))


STRATEGY = StrategyEntry("agree", Agree, AgreeOptions, compares=True)

DIALECT = Dialect("run-tags", "<run>", "</run>", output_open="<result>\n", output_close="</result>\n")

HINTS = files(__name__) / "hints.yaml"
