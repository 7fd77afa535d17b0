"""What a strategy is: it asks for traces and says which of them has the answer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from start_agent.trace import SpanKind, Trace

T = TypeVar("T")


class Solve(Protocol):
    """Makes a trace, as ``Solver.solve`` does; may be called many times at once."""

    async def __call__(self, question: str, *, seed: int | None = 0) -> Trace:
        """Grow a trace to its end.

        Args:
            question: what the user says to the model, in full.
            seed: of this trace; None where nothing is seeded.

        Raises:
            PromptError: the question makes no prompt for this model.
            EngineError, SandboxError: the infrastructure failed; there is no trace.
        """


@dataclass(frozen=True, slots=True)
class Question:
    """What a strategy is asked.

    Attributes:
        text: what the user says to the model: the question, its choices, the instruction.
        value: what an answer is worth: equal values are the same answer. None where answers cannot be told apart so.
            It knows the question, and not the gold answer.
    """

    text: str
    value: Callable[[str], Hashable] | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """What a strategy found.

    Attributes:
        traces: all that were made, in the strategy's order.
        chosen: the place of the one that has the answer.
        votes: what each trace voted for, in the same order, None for one that did not vote; empty where there is no
            vote.
    """

    traces: tuple[Trace, ...]
    chosen: int = 0
    votes: tuple[Hashable | None, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.chosen < len(self.traces):
            raise ValueError(f"trace {self.chosen} is chosen, of {len(self.traces)}")
        if self.votes and len(self.votes) != len(self.traces):
            raise ValueError(f"{len(self.votes)} votes of {len(self.traces)} traces")

    @property
    def trace(self) -> Trace:
        """The one that has the answer."""
        return self.traces[self.chosen]

    @property
    def answer(self) -> str | None:
        """The answer; None where the chosen trace has none."""
        return self.trace.answer

    @property
    def tally(self) -> dict[str, int]:
        """The votes for each value, the most first, of equals the earliest."""
        found: dict[str, int] = {}
        for vote in self.votes:
            if vote is not None:
                found[str(vote)] = found.get(str(vote), 0) + 1
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, Any]:
        """JSON-able: the votes, and of each trace its seed, answer, outcome and counts; the traces themselves not."""
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
    """How traces become an answer. One serves many questions at once: it keeps nothing of any of them."""

    @abstractmethod
    async def run(self, solve: Solve, question: Question, seed: int | None) -> Solution:
        """Answer a question.

        The same question and seed ask for the same traces, in the same order: a run that was stopped, or whose engine
        failed, asks again, and gets back what it had.

        Args:
            solve: makes a trace.
            question: what is asked.
            seed: of the whole; seeds of several traces follow from it (``seeds.derive_seed``). None: nothing is seeded,
                and all traces get None.

        Raises what ``solve`` raises.
        """


def counts_of(*traces: Trace) -> dict[str, int]:
    """What is counted of traces, in sum; ``tokens`` are those after the prompts, inserted ones included."""
    prompt = sum(trace.count(SpanKind.PROMPT) for trace in traces)
    return {
        "tokens": sum(trace.count() for trace in traces) - prompt,
        "prompt_tokens": prompt,
        "model_tokens": sum(trace.count(SpanKind.MODEL) for trace in traces),
        "tool_calls": sum(trace.tool_calls for trace in traces),
        "unhinted_tool_calls": sum(trace.unhinted_tool_calls for trace in traces),
        "hints": sum(1 for trace in traces for _ in trace.of_kind(SpanKind.HINT)),
    }


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    """The results of several at once, in order. Where some fail, the others are finished before the first error is
    raised: a trace that is done need not be made again."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
