"""Many concurrent scripted traces: each is recorded once, faults are retried, memory does not grow."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import FakeSandbox, KernelStartError
from start_agent.analysis.summary import summarize
from start_agent.batch import BatchOptions, Progress, RunDirectory, has_pending, read_records, run_batch
from start_agent.batch.record import Job
from start_agent.batch.store import RECORDS
from start_agent.decoding.solver import Solver
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine
from start_agent.errors import BatchError, DataError, EngineError, GradingError, RunDirectoryError
from start_agent.grading import Verdict, grade
from start_agent.models import BOXED_INSTRUCTION
from start_agent.problem import CodeTests, Kind, Problem
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import Trace
from tests.support.batches import CONFIG, SCRIPT, Failing, problems, run_scripted, stable, torn


async def test_a_record_for_each_problem_and_sample(tmp_path: Path) -> None:
    asked = problems(20)
    progress = await run_scripted(tmp_path, asked, samples=3, concurrency=7)
    records = list(read_records(tmp_path))
    expected = {(problem.key, sample) for problem in asked for sample in range(3)}
    assert {(record["problem"], record["sample"]) for record in records} == expected
    assert (len(records), progress.done, progress.stored, progress.failed) == (60, 60, 0, 0)
    assert progress.right == sum(record["correct"] for record in records) == 3 * sum(n % 8 == 7 for n in range(20))
    assert len({record["seed"] for record in records}) == 60
    assert progress.tool_calls == 60
    assert progress.in_flight == 0


async def test_what_a_record_holds(tmp_path: Path) -> None:
    await run_scripted(tmp_path, problems(8)[7:], seed=5)
    (record,) = read_records(tmp_path)
    problem = problems(8)[7]
    job = Job(problem, 0)
    assert (record["key"], record["problem"], record["seed"]) == (job.key, problem.key, job.seed(5))
    assert (record["question"], record["gold"], record["answer"]) == (problem.question, "7", "7")
    assert (record["correct"], record["verdict"]["reason"], record["outcome"]) == (True, "equal", "answered")
    assert record["meta"] == {"level": 2}
    assert [*record][:: len(record) - 1] == ["key", "trace"]
    trace = Trace.from_json(record["trace"])
    assert record["counts"]["tokens"] + record["counts"]["prompt_tokens"] == len(trace.token_ids)
    assert (record["counts"]["tool_calls"], record["counts"]["unhinted_tool_calls"], record["counts"]["hints"]) == (
        1,
        1,
        0,
    )
    assert trace.meta["seed"] == job.seed(5)
    assert record["course"]["tries"] == 1


async def test_seeds_and_records_do_not_hang_on_the_order(tmp_path: Path) -> None:
    await run_scripted(tmp_path / "one", problems(30), concurrency=1)
    await run_scripted(tmp_path / "many", problems(30)[::-1], concurrency=30)
    assert stable(tmp_path / "one") == stable(tmp_path / "many")


@pytest.mark.parametrize("cut", [0, 1, 50, 3000])
async def test_a_second_run_does_what_is_pending(tmp_path: Path, cut: int) -> None:
    await run_scripted(tmp_path / "whole", problems(30))
    await run_scripted(tmp_path / "cut", problems(12))
    torn(tmp_path / "cut", cut)
    left = len(list(read_records(tmp_path / "cut")))
    progress = await run_scripted(tmp_path / "cut", problems(30))
    assert (progress.stored, progress.done) == (left, 30 - left)
    assert stable(tmp_path / "cut") == stable(tmp_path / "whole")


async def test_without_pending_work_nothing_is_done(tmp_path: Path) -> None:
    await run_scripted(tmp_path, problems(5))
    with RunDirectory.open(tmp_path, CONFIG) as directory:
        assert not has_pending(problems(5), directory, 1)
        assert has_pending(problems(6), directory, 1)
        assert has_pending(problems(5), directory, 2)
    engine = ScriptedEngine(())
    progress = await run_scripted(tmp_path, problems(5), engine=engine)
    assert (progress.stored, progress.done, engine.requests) == (5, 0, [])


async def test_repeated_problems_are_solved_once(tmp_path: Path) -> None:
    progress = await run_scripted(tmp_path, problems(5) + problems(5))
    assert (progress.done, len(stable(tmp_path))) == (5, 5)


async def test_a_changed_configuration_is_refused(tmp_path: Path) -> None:
    await run_scripted(tmp_path, problems(2))
    with pytest.raises(RunDirectoryError, match="samples: 1 there, 2 now"):
        await run_scripted(tmp_path, problems(2), config=CONFIG | {"samples": 2})


@pytest.mark.parametrize("concurrency", [1, 3, 16])
async def test_so_many_traces_at_once_and_no_more(tmp_path: Path, concurrency: int) -> None:
    inside, most = 0, 0
    full = asyncio.Event()

    class Counting(ScriptedEngine):
        async def generate(self, request: TurnRequest):  # type: ignore[no-untyped-def]
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            if inside == concurrency:
                full.set()
            await full.wait()  # none is answered before all places are taken
            try:
                return await super().generate(request)
            finally:
                inside -= 1

    engine = Counting(("</think>\\boxed{7}",))
    await run_scripted(tmp_path, problems(40), engine=engine, concurrency=concurrency)
    assert most == concurrency


async def test_a_trace_in_its_kernel_blocks_no_other(tmp_path: Path) -> None:
    others_done = asyncio.Event()

    async def answer(code: str) -> str:
        if len(box.codes) == 1:
            await others_done.wait()
        return "7"

    def on_progress(progress: Progress) -> None:
        if progress.done == 19:
            assert (progress.in_kernel, progress.in_engine) == (1, 0)
            others_done.set()

    box = FakeSandbox(answer)
    await run_scripted(tmp_path, problems(20), box=box, concurrency=4, listener=on_progress)
    assert len(stable(tmp_path)) == 20


async def test_faults_are_tried_again_and_never_graded(tmp_path: Path) -> None:
    box = FakeSandbox(lambda code: "7")
    box.fail_next(KernelStartError("no kernel"), times=2)
    engine = Failing([EngineError("the engine hiccups")])
    failing_grades = [GradingError("no process")]

    async def grader(problem: Problem, trace: Trace) -> Verdict:
        if failing_grades:
            raise failing_grades.pop()
        return await grade(problem, trace)

    progress = await run_scripted(tmp_path / "faulty", problems(10), box=box, engine=engine, grader=grader, retries=4)
    assert progress.faults == {"KernelStartError": 2, "EngineError": 1, "GradingError": 1}
    assert (progress.done, progress.failed) == (10, 0)
    assert sum(record["course"]["tries"] - 1 for record in read_records(tmp_path / "faulty")) == 4
    await run_scripted(tmp_path / "smooth", problems(10))
    assert stable(tmp_path / "faulty") == stable(tmp_path / "smooth")


async def test_a_failing_grader_does_not_cost_the_trace(tmp_path: Path) -> None:
    failing = [GradingError("no process")]

    async def grader(problem: Problem, trace: Trace) -> Verdict:
        if failing:
            raise failing.pop()
        return await grade(problem, trace)

    engine = ScriptedEngine(("</think>\\boxed{7}",))
    await run_scripted(tmp_path, problems(1), engine=engine, grader=grader)
    assert len(engine.requests) == 1


async def test_what_fails_at_every_try_stays_pending(tmp_path: Path) -> None:
    engine = Failing([EngineError("down")] * 6)
    progress = await run_scripted(tmp_path, problems(10), engine=engine, retries=2, concurrency=1)
    assert (progress.done, progress.failed) == (8, 2)
    assert "EngineError: down" in progress.last_fault
    assert len(stable(tmp_path)) == 8
    progress = await run_scripted(tmp_path, problems(10))
    assert (progress.stored, progress.done, progress.failed) == (8, 2, 0)


async def test_a_problem_that_makes_no_prompt_is_recorded_as_wrong_and_not_pending(tmp_path: Path) -> None:
    asked = [Problem("What is 7? " * 200, "7"), Problem("", "7"), *problems(3)]
    progress = await run_scripted(tmp_path, asked, engine=ScriptedEngine(SCRIPT, context_length=2000))
    assert (progress.done, progress.right, progress.failed, progress.faults) == (5, 0, 0, {})
    records = {record["question"]: record for record in read_records(tmp_path)}
    for problem, words in ((asked[0], "the model's context is 2000"), (asked[1], "the question is empty")):
        record = records[problem.question]
        assert (record["outcome"], record["correct"], record["counts"]["tokens"]) == ("unpromptable", False, 0)
        assert words in record["trace"]["meta"]["error"]
        assert Trace.from_json(record["trace"]).token_ids == []
    assert summarize(tmp_path).outcomes == {"answered": 3, "unpromptable": 2}
    again = await run_scripted(tmp_path, asked, engine=ScriptedEngine(()))
    assert (again.stored, again.done) == (5, 0)


async def test_a_model_that_takes_no_prompts_is_no_problems_fault(tmp_path: Path) -> None:
    engine = ScriptedEngine(SCRIPT)
    engine.tokenizer = Tokenizer(engine.tokenizer.backend, eos_ids=engine.tokenizer.eos_ids)
    with pytest.raises(BatchError, match=r"3 traces failed all attempts.*no chat template"):
        await run_scripted(tmp_path, problems(9), engine=engine, max_faults=3)
    assert not (tmp_path / RECORDS).exists()


async def test_tests_that_cannot_be_read_are_counted_by_name(tmp_path: Path) -> None:
    asked = [Problem("Add.", "", Kind.CODE, tests=CodeTests("[{]")), *problems(2)]

    async def grader(problem: Problem, trace: Trace) -> Verdict:
        return await grade(problem, "```python\n1\n```", sandbox=box) if problem.tests else await grade(problem, trace)

    async with FakeSandbox(lambda code: "") as box:
        progress = await run_scripted(tmp_path, asked, grader=grader)
    assert (progress.done, progress.failed) == (3, 0)
    assert summarize(tmp_path).reasons["ungradable"] == 1


async def test_too_many_faults_stop_the_run(tmp_path: Path) -> None:
    def script(request: TurnRequest) -> str:
        if len(engine.requests) > 10:
            raise EngineError("it died")
        return "</think>\\boxed{7}"

    engine = ScriptedEngine(script)
    with pytest.raises(BatchError, match=r"stopped: 3 traces failed all attempts.*it died.*run the same command"):
        await run_scripted(tmp_path, problems(100), engine=engine, max_faults=3, concurrency=1)
    assert len(stable(tmp_path)) == 10
    await run_scripted(tmp_path, problems(100), script=("</think>\\boxed{7}",))
    assert len(stable(tmp_path)) == 100


async def test_a_cancelled_run_keeps_what_is_finished(tmp_path: Path) -> None:
    def on_progress(progress: Progress) -> None:
        if progress.done == 7:
            task.cancel()

    task = asyncio.create_task(run_scripted(tmp_path, problems(50), concurrency=3, listener=on_progress))
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = len(stable(tmp_path))
    assert 7 <= kept < 50
    progress = await run_scripted(tmp_path, problems(50))
    assert (progress.stored, progress.done) == (kept, 50 - kept)


async def test_a_set_that_breaks_off_says_so_and_keeps_what_is_finished(tmp_path: Path) -> None:
    def broken() -> Iterator[Problem]:
        yield from problems(100)
        raise DataError("row 101 is broken")

    with pytest.raises(DataError, match="row 101"):
        await run_scripted(tmp_path, broken(), concurrency=4)
    assert len(stable(tmp_path)) >= 60


async def test_nothing_is_kept_of_what_is_finished(tmp_path: Path) -> None:
    most_traces, most_ahead, made = 0, 0, 0

    def lazily() -> Iterator[Problem]:
        nonlocal made
        for problem in problems(600):
            made += 1
            yield problem

    class Forgetful(ScriptedEngine):
        async def release(self, trace_id: str) -> None:
            await super().release(trace_id)
            self.requests.clear()
            self.turns.clear()

    def on_progress(progress: Progress) -> None:
        nonlocal most_traces, most_ahead
        most_ahead = max(most_ahead, made - progress.done)
        if progress.done % 150 == 0:
            gc.collect()
            most_traces = max(most_traces, sum(type(thing) is Trace for thing in gc.get_objects()))

    engine = Forgetful(("</think>\\boxed{7}",))
    await run_scripted(tmp_path, lazily(), engine=engine, concurrency=8, listener=on_progress)
    assert 0 < most_traces <= 2 * 8
    assert most_ahead <= 64 + 2 * 8  # a chunk is read ahead


def test_options_have_bounds() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        BatchOptions(concurrency=0)


@pytest.mark.parametrize(
    ("default", "of_solver", "of_run", "told"),
    [
        ("Box it.", None, None, BOXED_INSTRUCTION),  # the model's default gives way to that of the problem's kind
        ("Box it.", "Be brief.", None, "Be brief."),
        ("Box it.", "", None, ""),
        ("Box it.", None, "Say it.", "Say it."),
        ("", None, None, ""),  # a model that wants the bare question
        ("", None, "Say it.", "Say it."),
    ],
)
async def test_one_instruction_follows_a_question(
    tmp_path: Path, default: str, of_solver: str | None, of_run: str | None, told: str
) -> None:
    class Model(ScriptedEngine):
        instruction = default

    engine = Model(lambda request: "It is 1.</think>\\boxed{1}")
    solver = Solver(engine, settings={"tools": False}, instruction=of_solver)
    with RunDirectory.open(tmp_path, CONFIG) as directory:
        await run_batch(solver, problems(1), directory, BatchOptions(), grade=grade, instruction=of_run)
    [record] = read_records(tmp_path)
    asked = record["trace"]["meta"]["question"]
    assert asked == "\n\n".join(part for part in (problems(1)[0].question, told) if part)
    assert record["trace"]["meta"]["instruction"] == ""
