"""Paired comparison, against manually computed numbers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.analysis.compare import MCNEMAR, SIGN_FLIP, Comparison, Solved, compare, compare_runs, read_run
from start_agent.analysis.stats import mean_interval, paired_interval, wilson_interval
from start_agent.cli.tables import comparison_tables
from start_agent.errors import InputError, RunDirectoryError
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
    assert pair.test == MCNEMAR
    assert pair.p_value == pytest.approx(2 * (1 + 7 + 21) / 2**7)
    flags = [(one == "1", other == "1") for one, other in zip(first, second, strict=True)]
    assert pair.interval == paired_interval(flags)
    assert pair.token_ratio == pytest.approx(1.5)
    assert found.questions["p1"] == "question 1"
    assert "p0" not in found.questions


def test_several_samples_by_hand() -> None:
    found = compare_runs({"A": solved("42100", samples=4), "B": solved("44310", samples=4)})
    (pair,) = found.pairs
    assert pair.difference == pytest.approx((0 + 2 + 2 + 1 + 0) / 20)
    assert pair.interval == pytest.approx(mean_interval([0, 0.5, 0.5, 0.25, 0]))
    assert (pair.only_first, pair.only_second) == ([], ["p1", "p2"])  # two of four are not most
    # Differences of 2, 2 and 1 quarters: of the eight choices of signs only all + and all - sum up to five.
    assert pair.test == SIGN_FLIP
    assert pair.p_value == pytest.approx(2 / 8)


def test_a_difference_within_the_problems_that_most_samples_solve_is_seen() -> None:
    pair = compare_runs({"A": solved("5" * 20, samples=8), "B": solved("8" * 20, samples=8)}).pairs[0]
    assert (pair.only_first, pair.only_second) == ([], [])
    assert pair.p_value == pytest.approx(2 / 2**20)


def test_runs_of_different_numbers_of_samples() -> None:
    pair = compare_runs({"A": solved("101"), "B": solved("112", samples=3)}).pairs[0]
    assert pair.difference == pytest.approx((-2 / 3 + 1 / 3 - 1 / 3) / 3)
    # Differences of 2, 1 and 1 thirds: 2+1+1, 2+1-1, 2-1+1 and their opposites are as far from 0 as the observed -2.
    assert pair.test == SIGN_FLIP
    assert pair.p_value == pytest.approx(6 / 8)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_sample_more_of_the_same_changes_neither_difference_nor_p_value(flags: list[tuple[bool, bool]]) -> None:
    one, three = (
        compare_runs(
            {
                name: solved("".join(str(samples * flag[at]) for flag in flags), samples=samples)
                for at, name in enumerate("AB")
            }
        ).pairs[0]
        for samples in (1, 3)
    )
    assert (one.test, three.test) == (MCNEMAR, SIGN_FLIP)
    assert three.difference == pytest.approx(one.difference)
    assert three.p_value == pytest.approx(one.p_value)


def heads(comparison: Comparison) -> list[str]:
    return [str(column.header) for column in comparison_tables(comparison)[1].columns]


def test_the_table_names_the_test() -> None:
    single, several = {"A": solved("10"), "B": solved("11")}, {"C": solved("12", samples=2)}
    assert "McNemar p" in heads(compare_runs(single))
    assert "sign-flip p" in heads(compare_runs({"A": solved("10"), **several}))
    mixed = compare_runs({**single, **several})
    assert "p" in heads(mixed)
    cells = comparison_tables(mixed)[1].columns[heads(mixed).index("p")].cells
    assert [str(cell).split(maxsplit=1)[1] for cell in cells] == [MCNEMAR, SIGN_FLIP]


def test_a_first_run_without_tokens_has_no_ratio() -> None:
    found = compare_runs({"A": solved("10", tokens=0), "B": solved("11")})
    assert found.pairs[0].token_ratio is None
    json.dumps(asdict(found), allow_nan=False)
    assert comparison_tables(found)[1].row_count == 1


def test_a_vote_is_one_try_of_its_problem(tmp_path: Path) -> None:
    answers = [("0.5", True), ("7", False), ("1/2", True), ("7.0", False), ("8", False)]
    lines = [
        {
            "key": f"{0:032x}{sample:032x}",
            "problem": "a",
            "question": "?",
            "sample": sample,
            "correct": right,
            "verdict": {"parsed": parsed},
            "counts": {"tokens": 10, "tool_calls": sample % 2},
        }
        for sample, (parsed, right) in enumerate(answers)
    ]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(tmp_path) == {"a": Solved("?", 5, 2, 50, 2, 2, 5)}
    assert read_run(tmp_path, majority=True) == {"a": Solved("?", 1, 1, 50, 2, 1, 5)}


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
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
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
    assert pair.token_ratio is not None and pair.token_ratio < 1
