"""The real data sets: gold answers against themselves, and recorded answers against their columns."""

from __future__ import annotations

import asyncio
import json

import pytest

from start_agent.grading import GraderPool, grade, grade_choice
from start_agent.problem import Kind
from start_agent.tasks import load, prompt_text
from tests.support.shared import shared_file

pytestmark = pytest.mark.slow

SETS = [
    ("gsm8k", "gsm8k-test", 1319),
    ("gsm8k", "gsm8k-train", 7473),
    ("math500", "math500", 500),
    ("aime24", "aime24", 30),
    ("aime25", "aime25", 30),
    ("amc23", "amc23", 40),
    ("commonsenseqa", "commonsenseqa-dev", 1221),
]


@pytest.mark.parametrize(("task", "name", "count"), SETS)
async def test_gold_answers_are_right(task: str, name: str, count: int) -> None:
    problems = load(task, data=str(shared_file(f"sets/{name}.jsonl")))
    assert len(problems) == len({problem.key for problem in problems}) == count
    assert all(problem.question in prompt_text(problem) for problem in problems)
    async with GraderPool(2) as pool:
        texts = (f"So it is \\boxed{{{problem.answer}}}." for problem in problems)
        verdicts = await asyncio.gather(*(grade(p, text, pool=pool) for p, text in zip(problems, texts, strict=True)))
        wrong = [(p.answer, v) for p, v in zip(problems, verdicts, strict=True) if not v.correct]
        assert len(wrong) <= 0.005 * count, wrong
        # and no answer is taken for that of the next problem, except where they are the same
        pairs = [(p, problems[(at + 1) % count].answer) for at, p in enumerate(problems[:500])]
        verdicts = await asyncio.gather(*(grade(p, answer, pool=pool) for p, answer in pairs))
        if problems[0].kind is Kind.MATH:
            for (problem, answer), verdict in zip(pairs, verdicts, strict=True):
                same = answer.removeprefix("x=").lstrip("0") == problem.answer.removeprefix("x=").lstrip("0")
                assert verdict.correct is same, (problem.answer, answer, verdict)


async def test_math500_through_math_verify_alone() -> None:
    """Equal texts prove little about the parser: here every answer has to go through it."""
    problems = load("math500", data=str(shared_file("sets/math500.jsonl")))
    async with GraderPool(2, parse_all=True) as pool:
        verdicts = await asyncio.gather(*(pool.grade_math(f"\\boxed{{{p.answer}}}", p.answer) for p in problems))
    wrong = [(p.answer, v) for p, v in zip(problems, verdicts, strict=True) if not v.correct]
    assert len(wrong) <= 0.005 * len(problems), wrong


async def test_recorded_answers_give_the_accuracy_of_their_columns() -> None:
    lines = shared_file("traces/tora-70b-gsm8k.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]

    def implied(row: dict[str, list[str]]) -> bool:
        try:
            return float(row["pred"][0].replace(",", "")) == float(str(row["gt"]).replace(",", ""))
        except ValueError:
            return False

    async with GraderPool(2) as pool:
        verdicts = await asyncio.gather(*(pool.grade_math(row["pred"][0], row["gt"]) for row in rows))
    differing = [
        (row["idx"], row["pred"], row["gt"]) for row, v in zip(rows, verdicts, strict=True) if v.correct != implied(row)
    ]
    assert not differing
    assert sum(verdict.correct for verdict in verdicts) == 1112 and len(rows) == 1319  # 84.3%, as published


def test_commonsenseqa_choices_name_themselves() -> None:
    for problem in load("commonsenseqa", data=str(shared_file("sets/commonsenseqa-dev.jsonl")), limit=300):
        for at, text in enumerate(problem.choices):
            verdict = grade_choice(f"\\boxed{{{'ABCDE'[at]}. {text}}}", problem.answer, problem.choices)
            assert verdict.correct is ("ABCDE"[at] == problem.answer), (text, verdict)
