"""Scripted runs, shared by the tests of the batch runner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandbox import FakeSandbox
from start_agent.batch import BatchOptions, Progress, RunDirectory, read_records, run_batch
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import Script, ScriptedEngine
from start_agent.grading import Verdict, grade
from start_agent.grading.registry import AnswerValue
from start_agent.problem import Problem
from start_agent.strategies import Strategy
from start_agent.trace import Trace

SCRIPT = ("Let me see.\n```python\nprint(3 + 4)\n```", "So it is 7.\n</think>\n\\boxed{7}")
CONFIG = {"model": {"name": "scripted"}, "samples": 1}
SETTINGS = DecodingSettings(hints=False)


def by_seed(request: TurnRequest) -> str:
    """An answer that the trace's seed decides: most often 7, now and then none."""
    digit = (request.seed or 0) % 10
    return "</think>I cannot say." if digit == 9 else f"</think>\\boxed{{{7 if digit < 6 else digit}}}"


Grade = Callable[[Problem, Trace], Awaitable[Verdict]]


def problems(count: int) -> list[Problem]:
    """The answer of the script is right for every seventh."""
    return [Problem(f"What is {n} modulo 8?", str(n % 8), meta={"level": n % 2 + 1}) for n in range(count)]


async def run_scripted(
    path: Path,
    asked: Iterable[Problem],
    *,
    script: Script = SCRIPT,
    engine: ScriptedEngine | None = None,
    box: FakeSandbox | None = None,
    grader: Grade = grade,
    config: dict[str, Any] | None = None,
    listener: Callable[[Progress], None] | None = None,
    seed: int = 0,
    strategy: Strategy | None = None,
    value: AnswerValue | None = None,
    **options: int,
) -> Progress:
    """A run of the scripted engine in this directory."""
    async with box or FakeSandbox(lambda code: "7") as sandbox:
        solver = Solver(engine or ScriptedEngine(script), sandbox, settings=SETTINGS)
        try:
            with RunDirectory.open(path, CONFIG if config is None else config) as directory:
                return await run_batch(
                    solver,
                    asked,
                    directory,
                    BatchOptions(**options),
                    grade=grader,
                    seed=seed,
                    instruction="",
                    listener=listener,
                    strategy=strategy,
                    value=value,
                )
        finally:
            assert sandbox.open_sessions == 0


def stable(path: Path) -> dict[str, dict[str, Any]]:
    """The records by their keys, without what may differ from run to run; each key is there once."""
    found: dict[str, dict[str, Any]] = {}
    for record in read_records(path):
        assert record["key"] not in found
        found[record["key"]] = {name: value for name, value in record.items() if name != "course"}
    return found


class Failing(ScriptedEngine):
    """Raises the given errors, one per request, before it generates text."""

    def __init__(self, errors: Iterable[Exception], script: Script = SCRIPT) -> None:
        super().__init__(script)
        self.errors = list(errors)

    async def generate(self, request: TurnRequest) -> Any:
        if self.errors:
            raise self.errors.pop()
        return await super().generate(request)


def torn(path: Path, cut: int) -> None:
    """Cut so many bytes off the end of the records, as a killed process or a full disk may."""
    with suppress(FileNotFoundError):
        file = path / "records.jsonl"
        file.write_bytes(file.read_bytes()[: -cut or None])
