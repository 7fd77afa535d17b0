"""STaR: a model learns to reason from its own correct rationales (Zelikman et al. 2022, arXiv 2203.14465).

An iteration, with the model of the previous one (at first the base, with few-shot examples)::

    every problem ──► generate ──► correct? ── yes ──► keep
                                     │ no
                                     └► rationalize: generate again with the answer shown ──► correct? ── yes ──► keep
    fine-tune the BASE on the kept rationales, without few-shot examples and without the shown answer

Iterations are repeated, with 20% more steps each time, until the score on the development problems stops rising.

A ``Learner`` generates, grades and fine-tunes; the loop knows neither models nor text. It keeps its state in a run
directory (``batch.store``), with a record for each finished iteration, and a folder for each iteration::

    iteration-03/generated.jsonl    the rationale for each problem, and whether it was correct
                 rationalized.jsonl the same for those that failed, with the answer shown
                 rows.jsonl         the training rows
                 model/             the base, fine-tuned on them
                 evaluation.jsonl   which development and held-out problems that model solves

Each file is written atomically, so that a killed run resumes after the last complete one.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from start_agent.batch.store import RunDirectory, record_key
from start_agent.data.dataset import read_jsonl
from start_agent.errors import BatchError, DataError
from start_agent.fields import Runtime
from start_agent.files import write_jsonl
from start_agent.problem import Problem
from start_agent.recipes.star.store import (
    DEV,
    EVALUATION,
    GENERATED,
    MODEL,
    RATIONALIZED,
    ROWS,
    Iteration,
    best,
    iteration_folder,
    model_folder,
    read_iterations,
    stale,
    summarized,
)
from start_agent.seeds import derive_seed
from start_agent.trace import IGNORE_INDEX

Row = Mapping[str, Any]
"""A training row with only ``input_ids`` and ``labels``."""


class StarOptions(BaseModel):
    """Options of the loop. The defaults are those of the paper where it states them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(16, ge=1, description="maximum number of iterations")
    patience: int = Field(3, ge=1, description="stop after this many iterations without a better score")
    first_steps: int = Field(40, ge=1, description="training steps of the first iteration")
    growth: float = Field(1.2, ge=1.0, description="factor between the training steps of successive iterations")
    rationalize: bool = Field(True, description="try failed problems again with the answer shown")
    few_shot: Literal["base", "always", "never"] = Field(
        "base", description="which models get few-shot examples: the base, all, or none (if it knows the format)"
    )
    problems: int | None = Field(None, ge=1, description="problems drawn for each iteration (default: all)")
    keep_models: Runtime[bool] = Field(
        True, description="keep the models of all iterations; otherwise only the best and the last"
    )
    seed: int = Field(0, ge=0, description="seed of draws, sampling and the order of training")

    def steps(self, iteration: int) -> int:
        """Training steps of an iteration, counted from 1."""
        return round(self.first_steps * self.growth ** (iteration - 1))


@dataclass(frozen=True, slots=True)
class Written:
    """The output of a model for a problem: the ids, including the end of sequence, and whether it is correct."""

    token_ids: tuple[int, ...]
    right: bool


class Learner(Protocol):
    """The interface between the loop and a model with its problems."""

    base: str
    """The model that all iterations fine-tune: a folder, or a model id of the Hub."""

    def prompt_ids(self, problem: Problem) -> Sequence[int]:
        """The prompt for training: without few-shot examples and without the answer."""
        ...

    def write(
        self, model: str, problems: Sequence[Problem], *, hinted: bool, few_shot: bool, seed: int
    ) -> Sequence[Written]:
        """Generate a rationale and an answer for each problem, and grade them.

        Args:
            model: a folder written by ``fine_tune``, or ``base``.
            problems: the problems, in the order of the results.
            hinted: whether to show the correct answer in the prompt.
            few_shot: whether to put few-shot examples before the prompt.
            seed: seed of the sampling.
        """
        ...

    def fine_tune(self, model: str, rows: Sequence[Row], *, steps: int, seed: int, output: Path) -> None:
        """Train a model on rows for this many steps and write it into a folder.

        If the folder has an interrupted training, resume it or start again. If the same training is finished there, do
        nothing.
        """
        ...


def run_star(
    learner: Learner,
    problems: Sequence[Problem],
    evaluations: Mapping[str, Sequence[Problem]],
    options: StarOptions,
    directory: RunDirectory,
    listener: Callable[[Iteration], None] = lambda iteration: None,
) -> list[Iteration]:
    """Run the loop, or its missing part. Returns all iterations, beginning with the evaluation of the base.

    Args:
        learner: generates, grades and fine-tunes.
        problems: the training problems.
        evaluations: problems by set. ``dev`` determines when the loop stops; others are only reported.
        options: options of the loop.
        directory: an open run directory; its configuration must include everything that affects the learner.
        listener: called after each iteration.

    Raises:
        ValueError: there is no ``dev`` set, or no problem.
        DataError: a problem is used for both training and evaluation; or no answer is correct, so that there is
            nothing to train on.
        BatchError: the disk is full, or cannot be written. Errors of the learner are passed on.
    """
    if not evaluations.get(DEV) or not problems:
        raise ValueError("the loop needs training problems and a dev set")
    refuse_overlap(problems, evaluations)
    done = read_iterations(directory.path)
    while not (done and (done[-1].number >= options.iterations or stale(done) >= options.patience)):
        number = len(done)
        model = learner.base if number <= 1 else str(model_folder(directory.path, number - 1))
        ended = _Run(learner, evaluations, options, iteration_folder(directory.path, number)).iterate(
            number, model, problems
        )
        directory.append({"key": record_key("iteration", number), **asdict(ended)})
        done.append(ended)
        if not options.keep_models:
            _drop_models(directory.path, number, keep={number, best(done).number})
        listener(ended)
    return done


def refuse_overlap(problems: Iterable[Problem], evaluations: Mapping[str, Iterable[Problem]]) -> None:
    """Raise DataError if a training problem is also an evaluation problem, compared by key."""
    learned = {problem.key for problem in problems}
    for name, held in evaluations.items():
        common = [problem for problem in held if problem.key in learned]
        if common:
            raise DataError(
                f"{len(common)} problems of the {name} set are also trained on, the first: {common[0].question!r}"
            )


class _Run:
    """One iteration in its folder."""

    def __init__(
        self, learner: Learner, evaluations: Mapping[str, Sequence[Problem]], options: StarOptions, folder: Path
    ) -> None:
        self.learner, self.evaluations, self.options, self.folder = learner, evaluations, options, folder

    def iterate(self, number: int, model: str, problems: Sequence[Problem]) -> Iteration:
        """Run the missing parts of the iteration. Iteration 0 only evaluates the base."""
        self.folder.mkdir(exist_ok=True)
        few_shot = self._few_shot(of_base=number <= 1)
        attempts: list[dict[str, Any]] = []
        if number:
            attempts = self._attempts(number, model, few_shot, problems)
            model = self._fine_tuned(number, self._once(ROWS, lambda: self._rows(attempts, problems)))
        few_shot = self._few_shot(of_base=number == 0)
        solved = self._once(EVALUATION, lambda: self._evaluate(number, model, few_shot))
        return summarized(number, self.options.steps(number) if number else 0, attempts, solved)

    def _attempts(self, number: int, model: str, few_shot: bool, problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """Attempt each problem once, and failed ones again with the answer shown."""

        def written(purpose: str, asked: Sequence[Problem], hinted: bool) -> list[dict[str, Any]]:
            pairs = self._write(purpose, number, model, asked, hinted=hinted, few_shot=few_shot)
            return [_attempt(problem, answer, hinted=hinted) for problem, answer in pairs]

        drawn = self._drawn(number, problems)
        attempts = self._once(GENERATED, lambda: written("generate", drawn, False))
        failed = [problem for problem, attempt in zip(drawn, attempts, strict=True) if not attempt["right"]]
        if not (self.options.rationalize and failed):
            return attempts
        again = self._once(RATIONALIZED, lambda: written("rationalize", failed, True))
        return [attempt for attempt in attempts if attempt["right"]] + again

    def _write(
        self, purpose: str, number: int, model: str, problems: Sequence[Problem], *, hinted: bool, few_shot: bool
    ) -> Iterable[tuple[Problem, Written]]:
        seed = self._seed(purpose, number)
        written = self.learner.write(model, problems, hinted=hinted, few_shot=few_shot, seed=seed)
        return zip(problems, written, strict=True)

    def _few_shot(self, *, of_base: bool) -> bool:
        return self.options.few_shot == "always" or (of_base and self.options.few_shot == "base")

    def _drawn(self, number: int, problems: Sequence[Problem]) -> Sequence[Problem]:
        if self.options.problems is None or self.options.problems >= len(problems):
            return problems
        return random.Random(self._seed("draw", number)).sample(list(problems), self.options.problems)

    def _rows(self, attempts: Sequence[Mapping[str, Any]], problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """The training rows: the plain prompt, even if the attempt had another prompt, followed by the attempt."""
        by_key = {problem.key: problem for problem in problems}
        rows = []
        for attempt in attempts:
            if attempt["right"]:
                prompt = list(self.learner.prompt_ids(by_key[attempt["key"]]))
                written = attempt["token_ids"]
                rows.append(
                    {
                        "key": attempt["key"],
                        "rationalized": attempt["hinted"],
                        "input_ids": prompt + written,
                        "labels": [IGNORE_INDEX] * len(prompt) + written,
                    }
                )
        if not rows:
            raise DataError(
                f"none of {len(attempts)} answers is correct, so there is nothing to train on: "
                "the model is too weak for these problems, or its answers do not have the format of the rationales; "
                f"see {self.folder / GENERATED}"
            )
        return rows

    def _fine_tuned(self, number: int, rows: Sequence[Row]) -> str:
        """Fine-tune the base on the rows. Returns the folder of the model."""
        steps, seed = self.options.steps(number), self._seed("train", number)
        bare = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
        self.learner.fine_tune(self.learner.base, bare, steps=steps, seed=seed, output=self.folder / MODEL)
        return str(self.folder / MODEL)

    def _evaluate(self, number: int, model: str, few_shot: bool) -> list[dict[str, Any]]:
        found = []
        for name, problems in self.evaluations.items():
            for problem, written in self._write(
                f"evaluate {name}", number, model, problems, hinted=False, few_shot=few_shot
            ):
                found.append({"set": name, **_attempt(problem, written, hinted=False)})
        return found

    def _seed(self, purpose: str, number: int) -> int:
        return derive_seed(self.options.seed, f"star {purpose} {number}")

    def _once(self, name: str, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """The rows of a JSONL file of this folder; if it does not exist, make the rows and write it atomically."""
        path = self.folder / name
        if not path.exists():
            rows = make()
            try:
                write_jsonl(path, rows)
            except OSError as error:
                raise BatchError(
                    f"cannot write {path}: {error.strerror}; fix the problem and run the same command again"
                ) from error
        return list(read_jsonl(path))


def _drop_models(directory: Path, last: int, keep: set[int]) -> None:
    for number in range(1, last + 1):
        if number not in keep:
            shutil.rmtree(model_folder(directory, number), ignore_errors=True)


def _attempt(problem: Problem, written: Written, *, hinted: bool) -> dict[str, Any]:
    return {
        "key": problem.key,
        "level": problem.meta.get("level"),
        "hinted": hinted,
        "right": written.right,
        "token_ids": list(written.token_ids),
    }
