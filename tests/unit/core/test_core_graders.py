"""The grader and the strategy of a run, and when it may be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from start_agent.batch.resume import ResumeRules
from start_agent.errors import ConfigError
from start_agent.evaluation import RunConfig
from start_agent.grading.registry import GRADERS
from start_agent.plugins import Chosen
from start_agent.problem import Kind
from start_agent.strategies.majority import MajorityOptions
from start_agent.strategies.registry import SINGLE
from tests.support.distributions import install

MODULE = """
from contextlib import asynccontextmanager
from pydantic import BaseModel
from start_agent.grading.registry import GraderEntry
from start_agent.problem import Kind, Problem
from start_agent.tasks import Task

class Options(BaseModel):
    slack: float = 0.01

@asynccontextmanager
async def opened(context, options):
    yield None

NEARLY = GraderEntry("nearly", frozenset({Kind.MATH}), opened, Options, value=lambda problem, answer: answer)
PLAIN = GraderEntry("plain", frozenset({Kind.MATH, Kind.CODE}), opened)
TASK = Task("mine", Kind.MATH, make=lambda count, split: [Problem("1?", "1")][:count], grader="nearly")
ROWS = Task("rows", Kind.MATH, read=lambda row, seed: Problem(row["q"], row["a"]))
"""

ENTRIES = {
    "start_agent.graders": {"nearly": "my_graders:NEARLY", "plain": "my_graders:PLAIN"},
    "start_agent.tasks": {"mine": "my_graders:TASK", "rows": "my_graders:ROWS"},
}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with graders and tasks; the registries look for packages anew, and forget it afterwards."""
    from start_agent.tasks.definitions import TASKS

    install(tmp_path / "site", monkeypatch, name="my-graders", modules={"my_graders": MODULE}, entry_points=ENTRIES)
    for registry in (GRADERS, TASKS):
        monkeypatch.setattr(registry, "_known", None)


def config(**options: Any) -> RunConfig:
    return RunConfig.of(**{"task": "pocket", **options})


@pytest.mark.parametrize(
    ("options", "grader"),
    [
        ({}, "math"),
        ({"task": "commonsenseqa"}, "choice"),
        ({"task": "livecodebench"}, "code"),
        ({"grader": "math"}, "math"),
        ({"grader": "nearly"}, "nearly"),
        ({"grader": "my_graders:NEARLY"}, "my_graders:NEARLY"),
        ({"task": "mine"}, "nearly"),
        ({"task": "my_graders:TASK"}, "nearly"),
        ({"task": "mine", "grader": "math"}, "math"),
        ({"task": "livecodebench", "grader": "plain"}, "plain"),
    ],
)
def test_the_grader_is_that_of_the_options_then_of_the_task_then_of_its_kind(
    options: dict[str, Any], grader: str
) -> None:
    assert config(**options).grader.name == grader


def test_a_graders_options_are_its_own() -> None:
    assert config(grader="nearly", slack=0.5).grader.options.model_dump() == {"slack": 0.5}
    assert config(grader="my_graders:NEARLY", slack=0.5).grader.options.model_dump() == {"slack": 0.5}
    for wrong in ({"slack": 0.5}, {"grader": "plain", "slack": 0.5}, {"grader": "nearly", "slack": "x"}):
        with pytest.raises(ConfigError, match="--slack"):
            config(**wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grader": "code"}, "grades problems of the kind code"),
        ({"task": "commonsenseqa", "grader": "nearly"}, "of the kind choice"),
        ({"grader": "maht"}, "did you mean 'math'"),
        ({"grader": "my_graders:TASK"}, "expected GraderEntry"),
        ({"strategy": "majorty"}, "did you mean 'majority'"),
        ({"strategy": "my_graders:TASK"}, "expected StrategyEntry"),
        ({"votes": 3}, "--votes is an option of --strategy majority, not of single"),
        ({"strategy": "majority", "votes": 0}, "--votes"),
        ({"task": "livecodebench", "strategy": "majority"}, "--grader code cannot tell"),
        ({"grader": "plain", "strategy": "majority"}, "--grader plain cannot tell"),
        ({"task": "rows"}, "--data"),
    ],
)
def test_what_does_not_fit_is_one_line(options: dict[str, Any], words: str) -> None:
    from start_agent.tasks import stream

    with pytest.raises(ConfigError) as raised:
        next(stream(config(**options).data))
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_a_strategy_has_its_options() -> None:
    assert config().strategy == SINGLE
    assert config(strategy="majority").strategy == Chosen("majority", MajorityOptions())
    assert config(strategy="majority", votes=3).strategy.options == MajorityOptions(votes=3)
    assert config(grader="nearly", strategy="majority").grader.name == "nearly"


def stored(**options: Any) -> tuple[dict[str, Any], ResumeRules]:
    found = config(**options)
    return found.stored(), found.rules


@pytest.mark.parametrize(
    ("one", "other", "different"),
    [
        ({}, {"grader": "math"}, []),
        ({}, {"grader": "nearly"}, ["--grader"]),
        ({"grader": "nearly"}, {"grader": "nearly", "slack": 0.5}, ["--slack"]),
        ({}, {"strategy": "majority"}, ["--strategy"]),
        ({"strategy": "majority"}, {}, ["--votes", "--strategy"]),
        ({"strategy": "majority"}, {"strategy": "majority", "votes": 3}, ["--votes"]),
        ({"strategy": "majority"}, {"strategy": "majority", "samples": 2, "concurrency": 3}, []),
    ],
)
def test_a_run_resumes_with_the_same_grader_and_strategy(
    one: dict[str, Any], other: dict[str, Any], different: list[str]
) -> None:
    now, rules = stored(**other)
    found = rules.differences(stored(**one)[0], now)
    assert [line.partition(":")[0] for line in found] == different


@pytest.mark.parametrize(
    ("options", "allowed"),
    [({}, True), ({"grader": "math"}, True), ({"grader": "nearly"}, False), ({"strategy": "majority"}, False)],
)
def test_a_run_of_an_older_version_had_the_grader_of_its_kind_and_one_trace(
    options: dict[str, Any], allowed: bool
) -> None:
    now, rules = stored(**options)
    old = {title: group for title, group in stored()[0].items() if title not in ("grader", "strategy")}
    assert (rules.differences(old, now) == []) is allowed


def test_each_kind_has_a_grader_of_its_name() -> None:
    assert all(kind in GRADERS.find(kind.value).kinds for kind in Kind)
