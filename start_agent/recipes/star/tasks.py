"""STaR's learner for problems in natural language: any causal model, through the engines, with few-shot rationales."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from start_agent.engines.base import Engine, Sampling, TurnRequest
from start_agent.errors import DataError, ModelError
from start_agent.fields import Runtime
from start_agent.grading import GraderPool, grade
from start_agent.problem import Kind, Problem
from start_agent.recipes.star.loop import Row, Written
from start_agent.recipes.star.rationales import Shots
from start_agent.seeds import derive_seed
from start_agent.tokens.markers import Markers, Matcher, State
from start_agent.tokens.stopping import Repetition, StopChecker, StopConditions, StopKind
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.training.options import SftOptions
from start_agent.training.sft import train


class WritingOptions(BaseModel):
    """Options for generating rationales."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(512, ge=1, description="maximum tokens of a rationale with its answer")
    concurrency: Runtime[int] = Field(256, ge=1, description="maximum concurrent requests")


class TaskLearner:
    """A ``loop.Learner`` for problems in natural language.

    The texts are plain documents for a base model to continue, not chats. A rationale ends at the form's separator, as
    in the examples, or at an end of sequence, as in fine-tuned models; the separator is replaced by an end of sequence,
    so that training teaches the model to stop.

    Args:
        base: a model id of the Hub, or a folder.
        engine: makes an engine for a model, not yet open.
        shots: few-shot examples.
        sampling: sampling settings.
        writing: length and concurrency.
        training: options of fine-tuning; steps and seed are set by the loop.
    """

    def __init__(
        self,
        base: str,
        engine: Callable[[str], Engine],
        shots: Shots,
        *,
        sampling: Sampling | None = None,
        writing: WritingOptions | None = None,
        training: SftOptions | None = None,
    ) -> None:
        self.base, self.engine, self.shots = base, engine, shots
        self.sampling, self.writing = sampling or Sampling(), writing or WritingOptions()
        self.training = training or SftOptions()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the base, which fine-tuned models share."""
        tokenizer = Tokenizer.from_pretrained(self.base)
        if not tokenizer.eos_ids:
            raise ModelError(
                f"the tokenizer of {self.base!r} has no end-of-sequence token, so training could not teach to stop"
            )
        return tokenizer

    def prompt_ids(self, problem: Problem) -> Sequence[int]:
        """See ``loop.Learner``."""
        return self._encoded(self.shots.form.prompt(problem))

    def write(
        self, model: str, problems: Sequence[Problem], *, hinted: bool, few_shot: bool, seed: int
    ) -> Sequence[Written]:
        """See ``loop.Learner``. Raises errors of the engine and the grader, and DataError for code problems."""
        if any(problem.kind is Kind.CODE for problem in problems):
            raise DataError("STaR grades answers in words and numbers: it does not support code problems")
        shown = self.shots.prefix(hinted=hinted) if few_shot else ""
        prompts = [self._encoded(shown + self.shots.form.prompt(problem, hinted=hinted)) for problem in problems]
        return asyncio.run(self._write(model, problems, prompts, seed))

    def fine_tune(self, model: str, rows: Sequence[Row], *, steps: int, seed: int, output: Path) -> None:
        """See ``loop.Learner``; resumes from a checkpoint in the folder."""
        train(model, rows, self.training.model_copy(update={"max_steps": steps, "seed": seed % 2**31}), output)

    async def _write(
        self, model: str, problems: Sequence[Problem], prompts: Sequence[Sequence[int]], seed: int
    ) -> list[Written]:
        markers = Markers(connectives=(), think_ends=(self.shots.form.separator,), languages=())
        matcher = Matcher(self.tokenizer, markers)
        conditions = StopConditions(self.tokenizer.eos_ids, code=False, replace=True, repetition=Repetition())
        slots = asyncio.Semaphore(self.writing.concurrency)
        async with GraderPool() as pool, self.engine(model) as engine:

            async def one(problem: Problem, prompt: Sequence[int]) -> Written:
                request = TurnRequest(
                    trace_id=problem.key,
                    token_ids=prompt,
                    sampling=self.sampling,
                    seed=derive_seed(seed, problem.key),
                    max_tokens=self.writing.max_new_tokens,
                    new_checker=lambda: StopChecker(matcher, State(), conditions),
                )
                async with slots:
                    turn = await engine.generate(request)
                    await engine.release(problem.key)
                if turn.stop not in (StopKind.EOS, StopKind.THINK_END):
                    return Written(turn.token_ids, right=False)
                answer = self.shots.form.answer(self.tokenizer.decode(turn.token_ids))
                verdict = await grade(problem, answer, pool=pool)
                return Written((*turn.token_ids, min(self.tokenizer.eos_ids)), verdict.correct)

            return list(await asyncio.gather(*map(one, problems, prompts)))

    def _encoded(self, text: str) -> list[int]:
        return [*self._begin, *self.tokenizer.encode(text)]

    @cached_property
    def _begin(self) -> list[int]:
        """The ids that the tokenizer puts before every text: the beginning of sequence, if there is one."""
        return [
            token_id for token_id in self.tokenizer.backend.encode("").ids if token_id not in self.tokenizer.eos_ids
        ]
