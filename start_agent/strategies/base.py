"""The interface of a strategy, which requests traces and chooses the one with the answer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from start_agent.trace import SpanKind, Trace

T = TypeVar("T")


class Solve(Protocol):
    """Generates a trace, as ``Solver.solve`` does; may be called concurrently."""

    async def __call__(self, question: str, *, seed: int | None = 0) -> Trace:
        """Generate a complete trace.

        Args:
            question: the complete user message.
            seed: the seed of this trace; None for unseeded sampling.

        Raises:
            PromptError: no prompt can be made from the question for this model.
            EngineError, SandboxError: the infrastructure failed; there is no trace.
        """


@dataclass(frozen=True, slots=True)
class Question:
    """The question for a strategy.

    Attributes:
        text: the user message: the question, its choices, the instruction.
        value: maps an answer to a value; answers with equal values are the same. None if answers cannot be compared
            this way. It may use the question, but never the gold answer.
    """

    text: str
    value: Callable[[str], Hashable] | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """The result of a strategy.

    Attributes:
        traces: all generated traces, in the strategy's order.
        chosen: the index of the trace with the answer.
        votes: the value that each trace voted for, in the same order, None for a trace without a vote; empty for a
            strategy without voting.
    """

    traces: tuple[Trace, ...]
    chosen: int = 0
    votes: tuple[Hashable | None, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.chosen < len(self.traces):
            raise ValueError(f"the chosen index is {self.chosen}, but there are {len(self.traces)} traces")
        if self.votes and len(self.votes) != len(self.traces):
            raise ValueError(f"there are {len(self.votes)} votes, but {len(self.traces)} traces")

    @property
    def trace(self) -> Trace:
        """The trace with the answer."""
        return self.traces[self.chosen]

    @property
    def answer(self) -> str | None:
        """The answer; None if the chosen trace has none."""
        return self.trace.answer

    @property
    def tally(self) -> dict[str, int]:
        """The number of votes for each value, most votes first; ties are in the order of the first vote."""
        found: dict[str, int] = {}
        for vote in self.votes:
            if vote is not None:
                found[str(vote)] = found.get(str(vote), 0) + 1
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able summary: the votes, and the seed, answer, outcome and counts of each trace (not its tokens)."""
        votes = self.votes or (None,) * len(self.traces)
        return {
            "chosen": self.chosen,
            "votes": self.tally,
            "traces": [
                {
                    "seed": trace.meta.get("seed"),
                    "answer": trace.answer,
                    "vote": None if vote is None else str(vote),
                    "outcome": None if trace.outcome is None else trace.outcome.value,
                    "counts": counts_of(trace),
                }
                for trace, vote in zip(self.traces, votes, strict=True)
            ],
        }


class Strategy(ABC):
    """How traces become an answer. An instance answers many questions concurrently and keeps no state between them."""

    @abstractmethod
    async def run(self, solve: Solve, question: Question, seed: int | None) -> Solution:
        """Answer a question.

        The same question and seed must request the same traces in the same order, so that a run that is resumed after
        a stop or an engine failure finds its finished traces again.

        Args:
            solve: generates a trace.
            question: the question.
            seed: the seed from which the seeds of the traces are derived (``seeds.derive_seed``); None for unseeded
                sampling, then all traces get None.

        Raises what ``solve`` raises.
        """


def counts_of(*traces: Trace) -> dict[str, int]:
    """Counts summed over traces; ``tokens`` are those after the prompts, including inserted ones."""
    prompt = sum(trace.count(SpanKind.PROMPT) for trace in traces)
    return {
        "tokens": sum(trace.count() for trace in traces) - prompt,
        "prompt_tokens": prompt,
        "model_tokens": sum(trace.count(SpanKind.MODEL) for trace in traces),
        "tool_calls": sum(trace.tool_calls for trace in traces),
        "unhinted_tool_calls": sum(trace.unhinted_tool_calls for trace in traces),
        "hints": sum(1 for trace in traces for _ in trace.of_kind(SpanKind.HINT)),
    }


async def gather_all(work: Iterable[Awaitable[T]]) -> list[T]:
    """The results of concurrent awaitables, in order.

    If some fail, the first error is raised only after all others have finished, so that finished traces are kept.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
