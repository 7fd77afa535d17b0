"""The learner of the addition experiment: a tiny model, greedy generation, TRL's trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from start_agent.papers.addition.model import EOS_ID, generate, load_model, new_tokenizer
from start_agent.papers.addition.text import direct_prompt, final_answer, prompt
from start_agent.problem import Problem
from start_agent.recipes.star.loop import Row, Written
from start_agent.trace import IGNORE_INDEX
from start_agent.training.options import SftOptions
from start_agent.training.sft import train

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

_MOST_TOKENS = 110  # a scratchpad with an answer of five digits has 93
_MOST_DIRECT = 8


class AdditionLearner:
    """A ``star.loop.Learner``. The base knows the format from its documents, so there are no few-shot examples.

    Args:
        base: the folder of the base.
        training: options of fine-tuning; steps and seed are set by the loop.
    """

    def __init__(self, base: str, training: SftOptions) -> None:
        self.base, self.training = base, training
        self.tokenizer = new_tokenizer()
        self._loaded = lru_cache(maxsize=1)(load_model)

    def prompt_ids(self, problem: Problem) -> Sequence[int]:
        """See ``Learner``."""
        return self._encode(prompt(problem.question))

    def write(
        self, model: str, problems: Sequence[Problem], *, hinted: bool, few_shot: bool, seed: int
    ) -> Sequence[Written]:
        """See ``Learner``. Decoding is greedy, so the seed has no effect."""
        texts = [prompt(problem.question, problem.answer if hinted else None) for problem in problems]
        return self._written(model, problems, texts, _MOST_TOKENS, final_answer)

    def fine_tune(self, model: str, rows: Sequence[Row], *, steps: int, seed: int, output: Path) -> None:
        """See ``Learner``; resumes from a checkpoint in the folder."""
        train(model, rows, self.training.model_copy(update={"max_steps": steps, "seed": seed % 2**31}), output)

    def direct_rows(self, problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """Training rows of the baseline: the problems with their answers, without scratchpads."""
        rows = []
        for problem in problems:
            asked = self._encode(direct_prompt(problem.question))
            answer = [*self._encode(problem.answer), EOS_ID]
            rows.append({"input_ids": asked + answer, "labels": [IGNORE_INDEX] * len(asked) + answer})
        return rows

    def answer_directly(self, model: str, problems: Sequence[Problem]) -> Sequence[Written]:
        """Answer without a scratchpad."""
        texts = [direct_prompt(problem.question) for problem in problems]
        return self._written(model, problems, texts, _MOST_DIRECT, str.strip)

    def read_row(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Decode a training row into the question and the text generated for it."""
        begin = next(place for place, label in enumerate(row["labels"]) if label != IGNORE_INDEX)
        asked = self.tokenizer.decode(row["input_ids"][:begin]).splitlines()[1]
        return asked, self.tokenizer.decode(row["input_ids"][begin:])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def _written(
        self,
        model: str,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        max_tokens: int,
        read: Callable[[str], str | None],
    ) -> list[Written]:
        loaded: LlamaForCausalLM = self._loaded(model)
        answers = generate(loaded, [self._encode(text) for text in prompts], max_tokens=max_tokens)
        texts = self.tokenizer.decode_batch(answers)
        return [
            Written(tuple(ids), ids[-1] == EOS_ID and read(text) == problem.answer)
            for problem, ids, text in zip(problems, answers, texts, strict=True)
        ]
