"""The learner for word problems: prompts, the end of the text, grading and training rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from start_agent.batch.store import RunDirectory
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.errors import DataError
from start_agent.problem import Kind, Problem
from start_agent.recipes.star.loop import Row, StarOptions, run_star
from start_agent.recipes.star.rationales import Form, Shots
from start_agent.recipes.star.store import DEV
from start_agent.recipes.star.tasks import TaskLearner, WritingOptions

pytestmark = pytest.mark.slow

TOKENIZER = byte_tokenizer()
EOS = min(TOKENIZER.eos_ids)
SHOTS = Shots(Form(), ((Problem("One and one?", "2"), " It is two. The answer is 2."),))
LEARNED = [Problem("Easy: 3 and 4?", "7"), Problem("Hard: 30 and 4?", "34"), Problem("Hopeless: 5 and 5?", "10")]
EVALUATED = {DEV: [Problem("Easy: 1 and 4?", "5")]}


class Learner(TaskLearner):
    """Over a scripted engine; training is only noted."""

    tokenizer = TOKENIZER

    def __init__(self, script: Any, **options: Any) -> None:
        self.scripted = ScriptedEngine(script, tokenizer=TOKENIZER)
        self.models: list[str] = []
        self.trained: list[Row] = []
        super().__init__("base", self._engine, SHOTS, **options)

    def _engine(self, model: str) -> ScriptedEngine:
        self.models.append(model)
        return self.scripted

    def fine_tune(self, model: str, rows: Sequence[Row], *, steps: int, seed: int, output: Path) -> None:
        self.trained += rows


def says(request: TurnRequest) -> str:
    """Right on the easy; on the hard once the answer is shown; then the next example, as a base model goes on."""
    asked = TOKENIZER.decode(request.token_ids).rpartition("Q: ")[2]
    if "Easy: 3" in asked or ("Hard" in asked and "The right answer is 34." in asked):
        return f" Let me add. The answer is {'7' if 'Easy' in asked else '34'}.\n\nQ: What next?"
    return " I do not know. The answer is 99.\n\nQ: What next?"


def test_the_hint_is_shown_and_then_dropped(tmp_path: Path) -> None:
    learner = Learner(says)
    with RunDirectory.open(tmp_path, {}) as directory:
        done = run_star(learner, LEARNED, EVALUATED, StarOptions(iterations=1), directory)
    prompts = [TOKENIZER.decode(request.token_ids) for request in learner.scripted.requests]
    hinted = [prompt for prompt in prompts if "The right answer is 34." in prompt]
    assert len(hinted) == 1 and "The right answer is 2." in hinted[0]
    assert (done[1].generated, done[1].rationalized) == (1, 1)
    texts = sorted(TOKENIZER.decode(row["input_ids"][:-1]) for row in learner.trained)
    assert texts == [
        "Q: Easy: 3 and 4?\nA: Let me add. The answer is 7.",
        "Q: Hard: 30 and 4?\nA: Let me add. The answer is 34.",
    ]
    for row in learner.trained:
        begin = row["labels"].count(-100)
        assert TOKENIZER.decode(row["input_ids"][:begin]).endswith("A:")
        assert row["labels"][begin:] == row["input_ids"][begin:] and row["labels"][-1] == EOS


def test_the_few_rationales_are_shown_where_asked_for() -> None:
    for few_shot in (True, False):
        learner = Learner(says)
        learner.write("m", LEARNED[:1], hinted=False, few_shot=few_shot, seed=0)
        prompt = TOKENIZER.decode(learner.scripted.requests[0].token_ids)
        assert prompt == (SHOTS.prefix(hinted=False) if few_shot else "") + "Q: Easy: 3 and 4?\nA:"


def test_it_ends_at_the_separator_or_at_an_end_of_sequence() -> None:
    for ending in ("\n\nQ: more", ""):
        (found,) = Learner(lambda request, e=ending: f" So. The answer is 7.{e}").write(
            "m", LEARNED[:1], hinted=False, few_shot=True, seed=0
        )
        assert found.right
        assert TOKENIZER.decode(found.token_ids[:-1]) == " So. The answer is 7." and found.token_ids[-1] == EOS


@pytest.mark.parametrize(
    "text", [" The answer is 8.", " It is 7.", " The answer is 7. " + "and on " * 40, " 7 7 7 7 The answer is"]
)
def test_what_is_wrong_unsaid_or_unfinished_is_not_right(text: str) -> None:
    learner = Learner(lambda request: text, writing=WritingOptions(max_new_tokens=100))
    (found,) = learner.write("m", LEARNED[:1], hinted=False, few_shot=True, seed=0)
    assert not found.right


def test_choices_are_judged_by_their_letter() -> None:
    problem = Problem("Where?", "B", Kind.CHOICE, choices=("here", "there"))
    for said, right in (("(b)", True), ("B", True), ("there", True), ("A", False)):
        learner = Learner(lambda request, s=said: f" Well. The answer is {s}.\n\n")
        (found,) = learner.write("m", [problem], hinted=False, few_shot=False, seed=0)
        assert found.right is right


def test_every_trace_is_released_and_has_a_seed_of_its_own() -> None:
    learner = Learner(says)
    learner.write("m", LEARNED, hinted=False, few_shot=False, seed=5)
    assert sorted(learner.scripted.released) == sorted(problem.key for problem in LEARNED)
    seeds = {request.seed for request in learner.scripted.requests}
    learner.write("m", LEARNED, hinted=False, few_shot=False, seed=5)
    assert len(seeds) == 3 and {request.seed for request in learner.scripted.requests} == seeds
    assert learner.models == ["m", "m"]


def test_code_is_refused() -> None:
    with pytest.raises(DataError, match="code problems"):
        Learner(says).write("m", [Problem("Write it.", "", Kind.CODE)], hinted=False, few_shot=False, seed=0)
