"""The loop: stored files, training rows and steps, stopping, and resuming after a kill."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from start_agent.batch.store import RunDirectory
from start_agent.errors import BatchError, DataError, RunDirectoryError
from start_agent.problem import Problem
from start_agent.recipes.star.loop import Row, StarOptions, Written, run_star
from start_agent.recipes.star.store import DEV, HELD_OUT, Iteration, best, model_folder, read_solved, stale
from start_agent.trace import IGNORE_INDEX

BASE = "the base"
HINT = 999
CONFIG = {"learner": "scripted"}


def problems(name: str, count: int = 9) -> list[Problem]:
    return [Problem(f"{name} {n}", str(n), meta={"level": n % 3 + 1}) for n in range(count)]


LEARNED, EVALUATED = problems("learn"), {DEV: problems("dev"), HELD_OUT: problems("held", 6)}


class Scripted:
    """A model solves problems up to its skill, with the answer shown those one level above; training counts rows."""

    base = BASE

    def __init__(self, skills: Callable[[int], int] = lambda rows: 1 + (rows > 3) + (rows > 6)) -> None:
        self.skills = skills
        self.trained: list[tuple[str, int, int, list[Row]]] = []
        self.written: list[tuple[str, bool, bool, int, int]] = []
        self.calls = 0
        self.dies_at = -1

    def prompt_ids(self, problem: Problem) -> Sequence[int]:
        return [100, int(problem.answer)]

    def write(
        self, model: str, asked: Sequence[Problem], *, hinted: bool, few_shot: bool, seed: int
    ) -> Sequence[Written]:
        self._call()
        self.written.append((model, hinted, few_shot, len(asked), seed))
        skill = 1 if model == BASE else int((Path(model) / "skill").read_text())
        prompts = [[HINT, *self.prompt_ids(problem)] if hinted else self.prompt_ids(problem) for problem in asked]
        return [
            Written((200 + len(prompt), 2), int(problem.meta["level"]) <= skill + hinted)
            for problem, prompt in zip(asked, prompts, strict=True)
        ]

    def fine_tune(self, model: str, rows: Sequence[Row], *, steps: int, seed: int, output: Path) -> None:
        self._call()
        self.trained.append((model, steps, seed, list(rows)))
        output.mkdir(parents=True, exist_ok=True)
        (output / "skill").write_text(str(self.skills(len(rows))))

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt


def star(path: Path, learner: Scripted, **options: object) -> list[Iteration]:
    with RunDirectory.open(path, CONFIG) as directory:
        return run_star(learner, LEARNED, EVALUATED, StarOptions.model_validate(options), directory)


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != "lock"
    }


def test_every_iteration_trains_the_base_and_a_fifth_longer(tmp_path: Path) -> None:
    learner = Scripted()
    star(tmp_path, learner, iterations=5, patience=5)
    assert [model for model, *_ in learner.trained] == [BASE] * 5
    assert [steps for _, steps, *_ in learner.trained] == [40, 48, 58, 69, 83]
    assert len({seed for _, _, seed, _ in learner.trained}) == 5


def test_each_iteration_writes_with_the_model_of_the_one_before(tmp_path: Path) -> None:
    learner = Scripted()
    star(tmp_path, learner, iterations=3, patience=3)
    generating = [model for model, hinted, _, count, _ in learner.written if not hinted and count == len(LEARNED)]
    expected = [BASE, BASE, *(str(model_folder(tmp_path, n)) for n in (1, 1, 2, 2, 3))]
    # The dev set is as large as the problems: each model is evaluated, then writes.
    assert generating == expected


def test_failures_are_rationalized_and_only_they(tmp_path: Path) -> None:
    learner = Scripted()
    first = star(tmp_path, learner, iterations=1)[1]
    assert (first.tried, first.generated, first.rationalized) == (9, 3, 3)
    assert first.by_level == {"1": (3, 3, 0), "2": (3, 0, 3), "3": (3, 0, 0)}
    assert [count for _, hinted, _, count, _ in learner.written if hinted] == [6]


def test_without_rationalization_no_prompt_has_an_answer(tmp_path: Path) -> None:
    learner = Scripted()
    first = star(tmp_path, learner, iterations=1, rationalize=False)[1]
    assert (first.generated, first.rationalized) == (3, 0)
    assert not any(hinted for _, hinted, *_ in learner.written)
    assert len(learner.trained[0][3]) == 3


def test_the_hint_is_never_trained_on(tmp_path: Path) -> None:
    learner = Scripted()
    star(tmp_path, learner, iterations=2)
    rows = [row for *_, trained in learner.trained for row in trained]
    assert rows
    asked = {int(problem.answer) for problem in LEARNED}
    for row in rows:
        assert HINT not in row["input_ids"]
        assert row["input_ids"][0] == 100 and row["input_ids"][1] in asked
        assert row["labels"] == [IGNORE_INDEX, IGNORE_INDEX, *row["input_ids"][2:]]
        assert set(row) == {"input_ids", "labels"}
    assert any(row["input_ids"][2] == 203 for row in rows), "no row was written under a prompt with the hint"


def test_only_what_is_right_is_trained_on(tmp_path: Path) -> None:
    learner = Scripted()
    star(tmp_path, learner, iterations=1, rationalize=False)
    easy = {int(problem.answer) for problem in LEARNED if problem.meta["level"] == 1}
    assert {row["input_ids"][1] for row in learner.trained[0][3]} == easy


def test_it_stops_when_the_score_stops_rising(tmp_path: Path) -> None:
    done = star(tmp_path, Scripted(), iterations=50, patience=2)
    scores = [iteration.scores[DEV] for iteration in done]
    assert scores == [pytest.approx(share) for share in (1 / 3, 2 / 3, 1, 1, 1)]
    assert best(done).number == 2 and stale(done) == 2


def test_a_score_that_never_rises_leaves_the_base(tmp_path: Path) -> None:
    done = star(tmp_path, Scripted(lambda rows: 1), iterations=50, patience=3)
    assert len(done) == 4 and best(done).number == 0


def test_the_rationales_are_shown_to_the_base_alone_unless_asked_for(tmp_path: Path) -> None:
    for asked, base, others in (("base", True, False), ("always", True, True), ("never", False, False)):
        learner = Scripted()
        star(tmp_path / asked, learner, iterations=3, patience=3, few_shot=asked)
        assert {few_shot for model, _, few_shot, *_ in learner.written if model == BASE} == {base}
        assert {few_shot for model, _, few_shot, *_ in learner.written if model != BASE} == {others}


def test_each_iteration_draws_new_problems(tmp_path: Path) -> None:
    learner = Scripted()
    star(tmp_path, learner, iterations=4, patience=4, problems=5)
    drawn = []
    for number in range(1, 5):
        lines = (tmp_path / f"iteration-{number:02d}" / "generated.jsonl").read_text().splitlines()
        drawn.append(frozenset(json.loads(line)["key"] for line in lines))
    assert {len(keys) for keys in drawn} == {5}
    assert len(set(drawn)) > 1


def test_killed_at_any_call_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = Scripted()
    star(tmp_path / "whole", whole, iterations=3, patience=3)
    for call in range(1, whole.calls + 1):
        path = tmp_path / f"killed at {call}"
        learner = Scripted()
        learner.dies_at = call
        with pytest.raises(KeyboardInterrupt):
            star(path, learner, iterations=3, patience=3)
        star(path, learner, iterations=3, patience=3)
        assert tree(path) == tree(tmp_path / "whole")
        # Done again: the call that was cut off; in an evaluation, the set before it, and a training that is there.
        assert learner.calls <= whole.calls + 3


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    star(tmp_path, Scripted(), iterations=3, patience=3)
    before, again = tree(tmp_path), Scripted()
    assert len(star(tmp_path, again, iterations=3, patience=3)) == 4
    assert again.calls == 0 and tree(tmp_path) == before


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    star(tmp_path, Scripted(), iterations=1)
    with pytest.raises(RunDirectoryError, match='--learner: "scripted" there, "other" now'):
        RunDirectory.open(tmp_path, {"learner": "other"})


@pytest.mark.parametrize("name", [DEV, HELD_OUT])
def test_a_planted_duplicate_is_found(tmp_path: Path, name: str) -> None:
    planted = {**EVALUATED, name: [*EVALUATED[name], LEARNED[4]]}
    learner = Scripted()
    with RunDirectory.open(tmp_path, CONFIG) as directory, pytest.raises(DataError, match=f"1 problems of the {name}"):
        run_star(learner, LEARNED, planted, StarOptions(), directory)
    assert learner.calls == 0


def test_nothing_right_is_said_and_not_trained_on(tmp_path: Path) -> None:
    hard = [Problem(f"hard {n}", str(n), meta={"level": 9}) for n in range(4)]
    learner = Scripted()
    with (
        RunDirectory.open(tmp_path, CONFIG) as directory,
        pytest.raises(DataError, match="none of 4 answers is correct"),
    ):
        run_star(learner, hard, EVALUATED, StarOptions(), directory)
    assert not learner.trained


def test_unneeded_models_are_dropped(tmp_path: Path) -> None:
    done = star(tmp_path, Scripted(), iterations=5, patience=5, keep_models=False)
    kept = [number for number in range(1, 6) if model_folder(tmp_path, number).exists()]
    assert kept == [best(done).number, 5] == [2, 5]


def test_what_was_solved_is_kept(tmp_path: Path) -> None:
    star(tmp_path, Scripted(), iterations=1)
    for number, levels in ((0, {1}), (1, {1, 2})):
        solved = read_solved(tmp_path, number)
        expected = {problem.key: problem.meta["level"] in levels for problem in EVALUATED[HELD_OUT]}
        assert solved == expected


def test_a_full_disk_is_said_and_nothing_is_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, rows: object) -> None:
        path.with_name(path.name + ".new").write_text('{"torn')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(BatchError, match="No space left on device; fix the problem"):
        patched.setattr("start_agent.recipes.star.loop.write_jsonl", full)
        star(tmp_path / "full", Scripted(), iterations=1)
    star(tmp_path / "full", Scripted(), iterations=1)
    star(tmp_path / "whole", Scripted(), iterations=1)
    assert tree(tmp_path / "full") == tree(tmp_path / "whole")
