"""STaR: a model learns to reason from what it reasoned rightly (Zelikman et al. 2022, arXiv 2203.14465).

An iteration, with the model of the one before (at first the base, which is shown a few rationales)::

    every problem ──► generate ──► right? ─── yes ──► keep
                                     │ no
                                     └► rationalize: generate again, the answer shown ──► right? ── yes ──► keep
    fine-tune the BASE on what was kept, without the few rationales and without the answer that was shown

and again, with 20% more steps each time, until the score on the development problems stops rising.

What generates, judges and fine-tunes is a ``Learner``; the loop knows neither models nor text. It keeps its state in
a run directory (``batch.store``), with a record for each iteration that has ended, and a folder for each iteration::

    iteration-03/generated.jsonl    what was written for each problem, and whether it was right
                 rationalized.jsonl the same for those that failed, the answer shown
                 rows.jsonl         what was trained on
                 model/             the base, fine-tuned on it
                 evaluation.jsonl   which development and held-out problems that model solves

Each file is there whole or not at all, so that a run that was killed goes on from the last of them.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from start_agent.batch.store import RunDirectory, record_key
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
"""A row for training: ``input_ids`` and ``labels``, nothing beside."""


class StarOptions(BaseModel):
    """The loop. The defaults are the paper's, where it states them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(16, ge=1, description="at most so many")
    patience: int = Field(3, ge=1, description="stop after so many iterations without a better score")
    first_steps: int = Field(40, ge=1, description="training steps of the first iteration")
    growth: float = Field(1.2, ge=1.0, description="training steps, each iteration to the one before")
    rationalize: bool = Field(True, description="show the answer for problems that fail, and try them again")
    few_shot: Literal["base", "always", "never"] = Field(
        "base", description="who is shown the few rationales: the base, every model, or, where it knows the form, none"
    )
    problems: int | None = Field(None, ge=1, description="problems drawn for each iteration; unset, all of them")
    keep_models: Runtime[bool] = Field(
        True, description="keep the models of all iterations; else the best and the last"
    )
    seed: int = Field(0, ge=0, description="decides the draws, the sampling and the order of training")

    def steps(self, iteration: int) -> int:
        """Training steps of an iteration, counted from 1."""
        return round(self.first_steps * self.growth ** (iteration - 1))


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote for a problem: the ids, end of sequence included, and whether the answer is right."""

    token_ids: tuple[int, ...]
    right: bool


class Learner(Protocol):
    """What the loop needs of a model and of its problems."""

    base: str
    """The model that every iteration fine-tunes: a folder, or a name of the hub."""

    def prompt_ids(self, problem: Problem) -> Sequence[int]:
        """The prompt as training sees it: no few rationales before it, no answer in it."""
        ...

    def write(
        self, model: str, problems: Sequence[Problem], *, hinted: bool, few_shot: bool, seed: int
    ) -> Sequence[Written]:
        """Let a model write a rationale and an answer for each problem, and judge them.

        Args:
            model: a folder that ``fine_tune`` wrote, or ``base``.
            problems: in the order of the answers.
            hinted: show the right answer in the prompt.
            few_shot: show the few rationales before it.
            seed: of the sampling.
        """
        ...

    def fine_tune(self, model: str, rows: Sequence[Row], *, steps: int, seed: int, output: Path) -> None:
        """Train a model on rows for this many steps and write it into a folder.

        The folder may hold what a run that was killed left there: go on from it, or begin anew. Where it holds the
        same training, finished, there is nothing to do.
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
    """Run the loop, or what is still missing of it; returns all iterations, the base's evaluation first.

    Args:
        learner: generates, judges, fine-tunes.
        problems: to learn from.
        evaluations: problems by set. ``dev`` decides when the loop stops; others are only reported.
        options: of the loop.
        directory: open; its configuration must hold all that decides what the learner does.
        listener: hears of each iteration when it has ended.

    Raises:
        ValueError: there is no ``dev`` set, or no problem.
        DataError: a problem is both learned from and evaluated on; or no answer is right, so that nothing can be
            learned.
        BatchError: the disk is full, or cannot be written. What the learner raises is passed on.
    """
    if not evaluations.get(DEV) or not problems:
        raise ValueError("the loop needs problems to learn from, and a dev set")
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
    """Raise DataError where a problem to learn from is one to be evaluated on, by the hash of what it asks."""
    learned = {problem.key for problem in problems}
    for name, held in evaluations.items():
        common = [problem for problem in held if problem.key in learned]
        if common:
            raise DataError(
                f"{len(common)} problems of the {name} set are also learned from, the first: {common[0].question!r}"
            )


class _Run:
    """One iteration in its folder."""

    def __init__(
        self, learner: Learner, evaluations: Mapping[str, Sequence[Problem]], options: StarOptions, folder: Path
    ) -> None:
        self.learner, self.evaluations, self.options, self.folder = learner, evaluations, options, folder

    def iterate(self, number: int, model: str, problems: Sequence[Problem]) -> Iteration:
        """Do what is not there yet. The base itself is iteration 0, with nothing but an evaluation."""
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
        """Each problem once, and those that fail once more with the answer shown."""

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
        """What is trained on: the bare prompt, whatever prompt the attempt was written under, then the attempt."""
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
                f"none of {len(attempts)} answers is right, so there is nothing to learn from: "
                "the model is too weak for these problems, or its answers are not in the form of the rationales; "
                f"{self.folder / GENERATED} has what it wrote"
            )
        return rows

    def _fine_tuned(self, number: int, rows: Sequence[Row]) -> str:
        """The folder of the base, fine-tuned on the rows."""
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
        """The rows of a JSONL file of this folder; made and written, whole, where it is not there."""
        path = self.folder / name
        if not path.exists():
            rows = make()
            try:
                write_jsonl(path, rows)
            except OSError as error:
                raise BatchError(
                    f"cannot write {path}: {error.strerror}; mend that and run the same command again"
                ) from error
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]


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
