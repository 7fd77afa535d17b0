"""``start_agent.solve``, ``evaluate`` and ``open``, on the pocket reasoner."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import start_agent
from start_agent.decoding.events import TraceFinished
from start_agent.errors import ConfigError, RunDirectoryError
from start_agent.trace import SpanKind, Trace

QUESTION, ANSWER = "What is 48613 * 7957?", "386813641"

USERS = """
import start_agent
from start_agent import Run, Solver, Trace

trace: Trace = start_agent.solve("What is 1 + 1?", model="pocket")
answer: str | None = trace.answer
text: str = trace.text()
run: Run = start_agent.evaluate("pocket", model="pocket", limit=3)
accuracy: float | None = run.accuracy
difference: float = run.compare(run).pairs[0].difference
with start_agent.open(model="pocket") as solver:
    other: Trace = solver.solve("What is 1 + 1?")

async def main() -> None:
    async with start_agent.open(model="pocket") as solver:
        reveal_type(solver)
        found: Trace = await solver.solve("What is 1 + 1?")
        several: tuple[Trace, ...] = (await solver.answer("What is 1 + 1?")).traces
        engine: Solver = solver.solver
"""


def test_one_question() -> None:
    trace = start_agent.solve(QUESTION)
    assert trace.answer == ANSWER
    assert ANSWER in trace.text(SpanKind.TOOL_OUTPUT)
    assert str(trace) in trace.text() and QUESTION not in str(trace)
    assert pickle.loads(pickle.dumps(trace)) == trace
    assert Trace.from_json(trace.to_json(trace.decode)).text(SpanKind.HINT) == trace.text(SpanKind.HINT)


async def test_inside_of_a_running_loop_and_awaited() -> None:
    assert start_agent.solve(QUESTION, hints=False) == await start_agent.solve_async(QUESTION, hints=False)


def test_an_open_solver() -> None:
    with start_agent.open(seed=3, rounds=0) as solver:
        events = list(solver.stream(QUESTION))
        assert isinstance(events[-1], TraceFinished)
        assert events[-1].trace == solver.solve(QUESTION) == solver.solve(QUESTION, seed=3)
        for _ in solver.stream(QUESTION):
            break  # cancels it; the solver goes on
        assert solver.solve(QUESTION, seed=4).meta["seed"] == 4


async def test_an_open_solver_in_async_with() -> None:
    async with start_agent.open() as solver:
        assert (await solver.solve(QUESTION)).answer == ANSWER


def test_a_run(tmp_path: Path) -> None:
    hinted = start_agent.evaluate("pocket_sums", limit=3, output_dir=tmp_path / "hinted")
    alone = start_agent.evaluate("pocket_sums", limit=3, output_dir=tmp_path / "alone", hints=False)
    assert hinted.summary.problems == 3 and hinted.failed == 0
    pair = alone.compare(hinted).pairs[0]
    assert (hinted.accuracy or 0) - (alone.accuracy or 0) == pytest.approx(pair.difference)
    again = start_agent.evaluate("pocket_sums", limit=4, output_dir=tmp_path / "hinted")
    assert again.summary.problems == 4
    with pytest.raises(RunDirectoryError):
        start_agent.evaluate("pocket_sums", limit=4, output_dir=tmp_path / "hinted", seed=1)
    table = pytest.importorskip("pandas", reason="a table needs pandas") and again.to_pandas()
    assert list(table["correct"]) == [record["correct"] for record in again.records(traces=False)]
    assert {"tokens", "seconds", "meta.subject"} <= set(table.columns)
    assert all("boxed" in trace.text() or trace.answer is None for trace in again.traces())


def test_unknown_options_are_errors() -> None:
    for call in (
        lambda: start_agent.solve(QUESTION, temprature=1),
        lambda: start_agent.open(engine="none"),
        lambda: start_agent.open(block_size=16),  # vLLM's
        lambda: start_agent.evaluate("pocket", limits=3),
    ):
        with pytest.raises(ConfigError):
            call()
    with pytest.raises(ConfigError):
        asyncio.run(start_agent.evaluate_async("no_such_task"))


MYPY = """
[mypy]
strict = True

[mypy-torch.*,transformers.*,vllm.*,numpy.*,pandas.*,rich.*,IPython.*,sympy.*]
follow_imports = skip
"""


@pytest.mark.timeout(300)  # mypy reads the whole package, without a cache
def test_users_code_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="it is for development alone")
    (tmp_path / "users.py").write_text(USERS)
    (tmp_path / "mypy.ini").write_text(MYPY)
    words = [sys.executable, "-m", "mypy", "users.py"]
    # mypy does not see editable installs, which are found by a hook.
    environment = os.environ | {"PYTHONPATH": str(Path(start_agent.__file__).parents[1])}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "start_agent.api.AsyncSolver" in done.stdout
