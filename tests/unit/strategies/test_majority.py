"""Majority vote: which traces are sampled, which one has the answer, and what a run stores."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import FakeSandbox
from start_agent.analysis.compare import compare_runs, read_run
from start_agent.analysis.run import Run
from start_agent.analysis.summary import summarize
from start_agent.batch import BatchOptions, Progress, RunDirectory, read_records, run_batch
from start_agent.batch.record import Job
from start_agent.batch.store import RECORDS
from start_agent.cli.tables import comparison_tables, summary_tables
from start_agent.decoding.solver import Solver
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine
from start_agent.errors import BatchError, ConfigError, EngineError
from start_agent.grading import grade
from start_agent.grading.votes import math_value
from start_agent.problem import Problem
from start_agent.strategies import Question, Solution, Solve, Strategy, gather_all
from start_agent.strategies.majority import Majority, MajorityOptions, vote_seed
from start_agent.strategies.single import Single
from start_agent.trace import Trace, TraceOutcome
from tests.support.batches import CONFIG, SETTINGS, Failing, by_seed, problems, run_scripted, stable

Answers = Callable[[int], str | None]


def majority(votes: int) -> Majority:
    return Majority(MajorityOptions(votes=votes))


def asked(text: str = "What is it?") -> Question:
    return Question(text, lambda answer: math_value(Problem(text, ""), answer))


class Scripted:
    """A ``Solve`` that knows the answer of each vote by its seed."""

    def __init__(self, answers: list[str | None], seed: int = 0) -> None:
        self._answers = {vote_seed(seed, number): answer for number, answer in enumerate(answers)}
        self.seeds: list[int | None] = []
        self.inside = self.most = 0

    async def __call__(self, question: str, *, seed: int | None = 0) -> Trace:
        self.seeds.append(seed)
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        answer = self._answers[seed]
        outcome = TraceOutcome.NO_ANSWER if answer is None else TraceOutcome.ANSWERED
        return Trace(outcome=outcome, answer=answer, meta={"seed": seed})


@pytest.mark.parametrize(
    ("answers", "made", "chosen"),
    [
        (["7", "7", "7", "8", "8"], 3, 0),
        (["8", "7.0", "7", "14/2", "8"], 4, 1),
        (["8", "7", "7", "8", "9"], 5, 0),  # equally many: the value that was reached earliest
        (["8", "7", "9", "6", "5"], 5, 0),
        ([None, "7", None, None, None], 4, 1),
        ([None, None, None, None, None], 5, 0),
        ([None, "8", "7", "7", None], 5, 2),
        (["7"], 1, 0),
        (["7", "8"], 1, 0),  # the first of two wins every tie
    ],
)
async def test_the_first_trace_of_the_most_frequent_value(answers: list[str | None], made: int, chosen: int) -> None:
    solve = Scripted(answers)
    solution = await majority(len(answers)).run(solve, asked(), 0)
    assert (len(solution.traces), solution.chosen) == (made, chosen)
    assert solution.answer == answers[chosen]
    assert solve.seeds == [vote_seed(0, number) for number in range(made)]
    assert sum(solution.tally.values()) == sum(answer is not None for answer in answers[:made])


@given(st.lists(st.sampled_from(("7", "8", "9", None)), min_size=1, max_size=9))
def test_to_stop_early_changes_nothing(answers: list[str | None]) -> None:
    solution = asyncio.run(majority(len(answers)).run(Scripted(answers), asked(), 0))
    votes = Counter(answer for answer in answers if answer is not None)
    best = max(votes, key=lambda value: (votes[value], -answers.index(value)), default=None)
    assert solution.answer == best
    if best is not None:
        assert solution.chosen == answers.index(best)


async def test_as_many_at_once_as_the_majority_takes_at_least() -> None:
    solve = Scripted(["7", "8", "7", "8", "7", "8", "7"])
    await majority(7).run(solve, asked(), 0)
    assert solve.most == 4
    solve = Scripted(["7"] * 7)
    assert len((await majority(7).run(solve, asked(), 0)).traces) == 4


async def test_without_seeds_no_trace_has_one() -> None:
    seeds: list[int | None] = []

    async def solve(question: str, *, seed: int | None = 0) -> Trace:
        seeds.append(seed)
        return Trace(outcome=TraceOutcome.ANSWERED, answer=str(len(seeds)))

    await majority(3).run(solve, asked(), None)
    assert seeds == [None, None, None]


async def test_answers_that_cannot_be_compared_have_no_majority() -> None:
    with pytest.raises(ConfigError):
        await majority(3).run(Scripted(["7"] * 3), Question("Write a program."), 0)


async def test_what_fails_first_is_raised_when_all_have_ended() -> None:
    ended: list[int] = []

    async def work(number: int) -> int:
        await asyncio.sleep(0)
        ended.append(number)
        if number % 2:
            raise EngineError(str(number))
        return number

    with pytest.raises(EngineError, match=r"^1$"):
        await gather_all(work(number) for number in range(5))
    assert ended == [0, 1, 2, 3, 4]
    assert await gather_all(work(number) for number in (0, 2)) == [0, 2]


def test_a_solution_is_checked() -> None:
    trace = Trace(outcome=TraceOutcome.ANSWERED, answer="1")
    for wrong in ({"traces": ()}, {"traces": (trace,), "chosen": 1}, {"traces": (trace,), "votes": ("1", "2")}):
        with pytest.raises(ValueError):
            Solution(**wrong)


async def run_by(path: Path, strategy: Strategy | None, count: int = 24, **options: Any) -> Progress:
    engine = options.pop("engine", None) or ScriptedEngine(by_seed)
    listener = options.pop("listener", None)
    async with FakeSandbox(lambda code: "7") as box:
        solver = Solver(engine, box, settings=SETTINGS)
        with RunDirectory.open(path, CONFIG) as directory:
            return await run_batch(
                solver,
                problems(count),
                directory,
                BatchOptions(**options),
                grade=grade,
                instruction="",
                strategy=strategy,
                value=math_value,
                listener=listener,
            )


async def test_one_trace_is_recorded_as_without_a_strategy(tmp_path: Path) -> None:
    await run_scripted(tmp_path / "plain", problems(12))
    await run_scripted(tmp_path / "single", problems(12), strategy=Single())
    assert stable(tmp_path / "single") == stable(tmp_path / "plain")
    assert all("strategy" not in record for record in read_records(tmp_path / "single"))


async def test_a_record_says_what_its_answer_took(tmp_path: Path) -> None:
    await run_by(tmp_path, majority(5))
    for record in read_records(tmp_path):
        traces, chosen = record["strategy"]["traces"], record["strategy"]["chosen"]
        trace = Trace.from_json(record["trace"])
        assert 3 <= len(traces) <= 5
        assert [one["seed"] for one in traces] == [vote_seed(record["seed"], n) for n in range(len(traces))]
        assert trace.meta["seed"] == traces[chosen]["seed"]
        assert (record["answer"], record["outcome"]) == (traces[chosen]["answer"], traces[chosen]["outcome"])
        for name in record["counts"]:
            assert record["counts"][name] == sum(one["counts"][name] for one in traces)
        assert record["course"]["turns"] == len(traces)
        votes = Counter(one["vote"] for one in traces if one["vote"] is not None)
        assert record["strategy"]["votes"] == votes
        assert list(record["strategy"]["votes"].values()) == sorted(votes.values(), reverse=True)
        assert not votes or traces[chosen]["vote"] == next(iter(record["strategy"]["votes"]))
    assert {len(record["strategy"]["traces"]) for record in read_records(tmp_path)} == {3, 4, 5}


async def test_records_are_read_without_their_traces(tmp_path: Path) -> None:
    await run_by(tmp_path, majority(3), 4)
    for whole, short in zip(read_records(tmp_path), read_records(tmp_path, traces=False), strict=True):
        whole.pop("trace")
        assert whole == short and short["strategy"]["traces"]


async def test_the_records_do_not_depend_on_the_order_and_a_run_resumes(tmp_path: Path) -> None:
    await run_by(tmp_path / "one", majority(5), concurrency=1)
    await run_by(tmp_path / "many", majority(5), concurrency=40)
    await run_by(tmp_path / "resumed", majority(5), 10)
    progress = await run_by(tmp_path / "resumed", majority(5))
    assert (progress.stored, progress.done) == (10, 14)
    assert stable(tmp_path / "one") == stable(tmp_path / "many") == stable(tmp_path / "resumed")


async def test_so_many_traces_at_once_however_many_vote(tmp_path: Path) -> None:
    inside = most = 0

    class Counting(ScriptedEngine):
        async def generate(self, request: TurnRequest):  # type: ignore[no-untyped-def]
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            try:
                return await super().generate(request)
            finally:
                inside -= 1

    progress = await run_by(tmp_path, majority(9), engine=Counting(by_seed), concurrency=4)
    assert most == 4
    assert progress.in_flight == 0


async def test_a_trace_that_fails_does_not_cost_the_others(tmp_path: Path) -> None:
    engine = Failing([EngineError("a hiccup"), EngineError("another")], script=by_seed)
    progress = await run_by(tmp_path / "faulty", majority(5), 1, engine=engine)
    assert progress.faults == {"EngineError": 2}
    [record] = read_records(tmp_path / "faulty")
    assert record["course"]["tries"] == 2
    assert len(engine.requests) == len(record["strategy"]["traces"])
    await run_by(tmp_path / "smooth", majority(5), 1)
    assert stable(tmp_path / "faulty") == stable(tmp_path / "smooth")


async def test_a_vote_that_fails_at_every_try_stays_pending(tmp_path: Path) -> None:
    with pytest.raises(BatchError):
        await run_by(tmp_path, majority(3), 1, engine=Failing([EngineError("down")] * 9, by_seed), max_faults=1)
    assert not (tmp_path / RECORDS).exists()


async def test_a_question_that_makes_no_prompt_gets_no_votes(tmp_path: Path) -> None:
    await run_by(tmp_path, majority(3), 1, engine=ScriptedEngine(by_seed, context_length=3))
    [record] = read_records(tmp_path)
    assert (record["outcome"], record["correct"], record["strategy"]["votes"]) == ("unpromptable", False, {})
    assert len(record["strategy"]["traces"]) == 3


async def test_tokens_of_all_traces_count_in_summaries_and_comparisons(tmp_path: Path) -> None:
    await run_by(tmp_path / "single", None)
    await run_by(tmp_path / "voted", majority(3))
    records = list(read_records(tmp_path / "voted", traces=False))
    tokens = sum(record["counts"]["tokens"] for record in records)
    made = sum(len(record["strategy"]["traces"]) for record in records)
    found = summarize(tmp_path / "voted")
    assert (found.total_tokens, found.traces) == (tokens, made / 24)
    found_single = summarize(tmp_path / "single")
    assert found_single.traces == 1
    runs = {name: read_run(tmp_path / name) for name in ("single", "voted")}
    comparison = compare_runs(runs)
    assert [side.traces for side in comparison.sides] == [1, made / 24]
    assert comparison.sides[1].tokens == tokens / 24
    assert comparison.pairs[0].token_ratio == pytest.approx(found.total_tokens / found_single.total_tokens)
    heads = [str(column.header) for column in comparison_tables(comparison)[0].columns]
    assert heads[-3:] == ["calls/answer", "tokens/answer", "traces/answer"]
    rows = [str(cell) for cell in summary_tables(found, "voted")[0].columns[0].cells]
    assert "traces per answer" in rows and "tokens per answer" in rows
    rows = [str(cell) for cell in summary_tables(found_single, "single")[0].columns[0].cells]
    assert "traces per answer" not in rows and "tokens per trace" in rows
    table = pytest.importorskip("pandas", reason="a table needs pandas") and Run(tmp_path / "voted").to_pandas()
    assert list(table["traces"]) == [len(record["strategy"]["traces"]) for record in records]


class Again(Strategy):
    """Asks a second question about the first answer, and the first one without a seed twice."""

    async def run(self, solve: Solve, question: Question, seed: int | None) -> Solution:
        first = await solve(question.text, seed=seed)
        checked = await solve(f"{question.text}\nIs it {first.answer}?", seed=seed)
        return Solution((first, checked), 1)


async def test_a_strategy_may_ask_what_it_wants(tmp_path: Path) -> None:
    await run_by(tmp_path, Again(), 3)
    for record in read_records(tmp_path):
        assert record["strategy"]["votes"] == {}
        assert [one["vote"] for one in record["strategy"]["traces"]] == [None, None]
        first = record["strategy"]["traces"][0]["answer"]
        assert record["trace"]["meta"]["question"] == f"{record['question']}\nIs it {first}?"
        json.dumps(record)


async def test_nothing_that_a_strategy_gets_knows_the_gold_answer(tmp_path: Path) -> None:
    seen: list[Problem] = []

    def value(problem: Problem, answer: str) -> str:
        seen.append(problem)
        return answer

    async with FakeSandbox(lambda code: "7") as box:
        solver = Solver(ScriptedEngine(by_seed), box, settings=SETTINGS)
        with RunDirectory.open(tmp_path, CONFIG) as directory:
            options = BatchOptions()
            await run_batch(solver, problems(3)[1:], directory, options, grade=grade, strategy=majority(3), value=value)
    assert {problem.question for problem in seen} == {problem.question for problem in problems(3)[1:]}
    assert all(problem.answer == "" and problem.tests is None for problem in seen)


def test_the_seeds_of_votes_follow_from_the_samples() -> None:
    seeds = {vote_seed(Job(problem, sample).seed(0), n) for problem in problems(3) for sample in (0, 1) for n in (0, 1)}
    assert len(seeds) == 12
