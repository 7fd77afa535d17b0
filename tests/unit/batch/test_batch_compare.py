"""Paired comparison, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from start_agent.batch.compare import Solved, compare, compare_runs
from start_agent.errors import InputError, RunDirectoryError
from start_agent.stats import mean_interval, paired_interval, wilson_interval
from tests.support.batches import problems, run_scripted


def solved(flags: str, *, tokens: int = 100, samples: int = 1) -> dict[str, Solved]:
    """A digit a problem: how many samples are right."""
    return {
        f"p{number}": Solved(f"question {number}", samples, int(flag), tokens * samples, samples, samples)
        for number, flag in enumerate(flags)
    }


def test_single_samples_by_hand() -> None:
    first, second = "1111000000", "1001111110"
    found = compare_runs({"A": solved(first), "B": solved(second, tokens=150)})
    assert found.problems == 10
    assert [side.accuracy for side in found.sides] == [0.4, 0.7]
    assert found.sides[0].interval == wilson_interval(4, 10)
    (pair,) = found.pairs
    assert pair.name == "B"
    assert pair.difference == pytest.approx(0.3)
    assert (pair.only_first, pair.only_second) == (["p1", "p2"], ["p4", "p5", "p6", "p7", "p8"])
    assert pair.p_value == pytest.approx(2 * (1 + 7 + 21) / 2**7)
    flags = [(one == "1", other == "1") for one, other in zip(first, second, strict=True)]
    assert pair.interval == paired_interval(flags)
    assert pair.token_ratio == pytest.approx(1.5)
    assert found.questions["p1"] == "question 1"
    assert "p0" not in found.questions


def test_several_samples_by_hand() -> None:
    found = compare_runs({"A": solved("4210", samples=4), "B": solved("4430", samples=4)})
    (pair,) = found.pairs
    assert pair.difference == pytest.approx((0 + 0.5 + 0.5 + 0) / 4)
    assert pair.interval == pytest.approx(mean_interval([0, 0.5, 0.5, 0]))
    assert (pair.only_first, pair.only_second) == ([], ["p1", "p2"])  # two of four are not most
    assert pair.p_value == pytest.approx(0.5)


def test_only_the_problems_in_common_count() -> None:
    runs = {"A": solved("110"), "B": solved("11"), "C": {**solved("0"), "other": Solved("?", 1, 1)}}
    found = compare_runs(runs)
    assert found.problems == 1
    assert [side.accuracy for side in found.sides] == [1.0, 1.0, 0.0]
    assert [pair.name for pair in found.pairs] == ["B", "C"]


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no problem in common \(A has 2, B has 1\)"):
        compare_runs({"A": solved("11"), "B": {"other": Solved("?", 1, 1)}})
    with pytest.raises(InputError, match="at least two"):
        compare_runs({"A": solved("11")})
    with pytest.raises(RunDirectoryError, match="no run directory"):
        compare([tmp_path, tmp_path / "b"])


async def test_of_run_directories(tmp_path: Path) -> None:
    await run_scripted(tmp_path / "a", problems(16))
    await run_scripted(tmp_path / "b", problems(24), script=("</think>\\boxed{3}",))
    found = compare([tmp_path / "a", tmp_path / "b"])
    assert found.problems == 16
    assert [side.tool_calls for side in found.sides] == [1.0, 0.0]
    (pair,) = found.pairs
    assert pair.difference == 0
    assert (len(pair.only_first), len(pair.only_second), pair.p_value) == (2, 2, 1.0)
    assert pair.token_ratio < 1
