"""Selection: which traces of which problems, and a count by reason for the dropped ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from start_agent.batch.store import RECORDS
from start_agent.data.filters import FilterOptions
from start_agent.data.leakage import HeldOut
from start_agent.data.selection import Choice, Selection, SelectionOptions, hint_rft_pairs, minhash, rft
from start_agent.errors import DataError, RunDirectoryError
from start_agent.problem import Problem
from tests.support.traces import HINTED, QUESTION, M, Spelled, output, record, run, spelled
from tests.support.vocabularies import vocabulary

TOKENIZER = vocabulary("pocket").tokenizer
GOOD = spelled(TOKENIZER, *HINTED)
SHORT = spelled(TOKENIZER, *HINTED[3:])
PLAIN = spelled(TOKENIZER, (M, "It is 42.\n</think>\n\n\\boxed{42}", "eos"))
CODE: Spelled = (M, "```python\nprint(6 * 7)\n```\n", "code_close")
FAILED = spelled(
    TOKENIZER, (M, "```python\n1 / 0\n```\n", "code_close"), output("ZeroDivisionError", "error"), *HINTED[3:]
)


def kept(selection: Selection) -> list[int]:
    """The numbers of the records that were kept."""
    return [int(chosen.record["key"], 16) for chosen in selection]


def test_pairs_are_wrong_alone_and_right_hinted(tmp_path: Path) -> None:
    greedy = run(
        tmp_path / "greedy",
        [
            record(PLAIN, 0, problem="wrong alone", correct=False),
            record(PLAIN, 1, problem="right alone"),
            record(PLAIN, 2, problem="right at times", correct=False),
            record(PLAIN, 3, problem="right at times"),
            record(PLAIN, 4, problem="wrong always", correct=False),
        ],
    )
    names = ("wrong alone", "right alone", "right at times", "wrong always", "not asked alone")
    records = [record(GOOD, at, problem=name, correct=name != "wrong always") for at, name in enumerate(names)]
    selection = hint_rft_pairs([greedy], [run(tmp_path / "hinted", records)], TOKENIZER)
    assert kept(selection) == [0]
    report = selection.report
    assert (report.records, report.problems, report.wrong, report.kept) == (5, 5, 1, 1)
    assert (report.greedy_right, report.greedy_right_problems, report.no_greedy) == (2, 2, 1)


def test_every_record_is_counted_once(tmp_path: Path) -> None:
    records = [
        record(GOOD, 0, problem="a"),
        record(SHORT, 1, problem="a"),
        record(GOOD, 2, problem="b", correct=False),
        record(FAILED, 3, problem="b"),
        record(spelled(TOKENIZER, *HINTED, sandbox="none"), 4, problem="c"),
        record(GOOD, 5, problem="held out", question="Held out?"),
        record(GOOD, 6, problem="another key", question="  HELD OUT "),
        record(GOOD, 7, problem="d"),
    ]
    held_out = HeldOut()
    held_out.add("Held out?", "held out")
    selection = rft([run(tmp_path / "r", records)], TOKENIZER, held_out=held_out)
    report = selection.report
    assert kept(selection) == [1, 7]
    assert dict(report.refused) == {"failed_cells": 1, "unsafe_sandbox": 1, "leaked_same": 1, "leaked_respelled": 1}
    assert report.wrong + report.refused.total() + report.passed == report.records == 8
    assert (report.passed, report.passed_problems, report.kept, report.not_chosen) == (3, 2, 2, 1)
    assert json.loads(json.dumps(report.to_json()))["refused"]["leaked_same"] == 1


def test_the_choice_of_one_trace_for_each_problem(tmp_path: Path) -> None:
    one_failed = spelled(TOKENIZER, (M, "```python\n1/0\n```\n", "code_close"), output("bad", "error"), HINTED[-1])
    assert one_failed.count() < GOOD.count()
    path = run(tmp_path / "r", [record(GOOD, 0), record(one_failed, 1), record(GOOD, 2)])
    lenient = FilterOptions(max_failed_cells=1)

    def choice(how: Choice, seed: int = 0) -> int:
        [key] = kept(rft([path], TOKENIZER, SelectionOptions(choice=how, seed=seed), lenient))
        return key

    assert choice(Choice.SHORTEST) == 1
    assert choice(Choice.FEWEST_FAILED) in (0, 2)
    assert choice(Choice.DIVERSE) == 1  # the other two are alike
    for how in (Choice.RANDOM, Choice.FEWEST_FAILED):
        drawn = [choice(how, seed) for seed in range(24)]
        assert drawn == [choice(how, seed) for seed in range(24)]
        assert set(drawn) == ({0, 1, 2} if how is Choice.RANDOM else {0, 2})


def test_the_choice_of_the_trace_with_the_most_cells(tmp_path: Path) -> None:
    cell = (M, "Again.\n```python\nprint(7)\n```\n", "code_close")
    twice = spelled(TOKENIZER, *HINTED[:-1], cell, output("7\n"), HINTED[-1])
    path = run(tmp_path / "r", [record(GOOD, 0), record(twice, 1), record(GOOD, 2)])
    assert kept(rft([path], TOKENIZER, SelectionOptions(choice=Choice.MOST_CELLS))) == [1]


def test_minhash_estimates_the_likeness_of_what_the_model_wrote() -> None:
    def likeness(one: Any, other: Any) -> float:
        return sum(a == b for a, b in zip(minhash(one), minhash(other), strict=True)) / 64

    assert likeness(GOOD, GOOD) == 1
    assert likeness(GOOD, PLAIN) < 0.4 < likeness(GOOD, SHORT) < 1


def test_a_cap_draws_problems_by_the_seed(tmp_path: Path) -> None:
    path = run(tmp_path / "r", [record(GOOD, at, problem=f"p{at}") for at in range(12)])
    sets = [set(kept(rft([path], TOKENIZER, SelectionOptions(max_rows=4, seed=seed)))) for seed in (0, 0, 1)]
    assert len(sets[0]) == 4 and sets[0] == sets[1] != sets[2]


def test_runs_with_the_same_keys_are_not_confused(tmp_path: Path) -> None:
    runs = [run(tmp_path / "a", [record(GOOD, 0)]), run(tmp_path / "b", [record(SHORT, 0)])]
    selection = rft(runs, TOKENIZER)
    [chosen] = list(selection)
    assert (chosen.run, chosen.trace.count()) == (str(runs[1]), SHORT.count())
    assert selection.report.not_chosen == 1


def test_repairs_come_before_filters_and_are_counted(tmp_path: Path) -> None:
    repaired = spelled(
        TOKENIZER,
        (M, "```python\nprint(6 * y)\n```\n", "code_close"),
        output("NameError", "error"),
        *HINTED[4:],
    )
    path = run(tmp_path / "r", [record(repaired, 0)])
    selection = rft([path], TOKENIZER, SelectionOptions(repair=True))
    assert dict(selection.report.repaired) == {"drop_failed_cell": 1}
    [chosen] = list(selection)
    assert chosen.trace.meta["modifications"] == ["drop_failed_cell"]
    assert dict(rft([path], TOKENIZER).report.refused) == {"failed_cells": 1}  # unasked, nothing is repaired


def test_a_run_that_changes_in_between_is_noticed(tmp_path: Path) -> None:
    path = run(tmp_path / "r", [record(GOOD, 0), record(GOOD, 1, problem="q")])
    selection = rft([path], TOKENIZER)
    file = path / RECORDS
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="select again"):
        list(selection)
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        rft([tmp_path / "none"], TOKENIZER)


def test_the_key_of_a_planted_problem_is_enough(tmp_path: Path) -> None:
    """Whatever its text says: of multiple choice, the same question may be another problem."""
    path = run(tmp_path / "r", [record(GOOD, 0, problem=Problem(QUESTION, "42").key)])
    assert rft([path], TOKENIZER, held_out=HeldOut([Problem(QUESTION, "42")])).report.refused["leaked_same"] == 1
    assert len(rft([path], TOKENIZER, held_out=HeldOut([Problem("What is 6 * 8?", "48")]))) == 1
