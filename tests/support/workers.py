"""Executors for Ray workers: scripted, some of which kill their process."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sandbox import FakeSandbox
from start_agent.batch import LocalExecutor
from start_agent.decoding.solver import Solver
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine
from start_agent.errors import EngineError, ModelError
from start_agent.grading import grade
from start_agent.grading.votes import math_value
from start_agent.strategies.majority import Majority, MajorityOptions
from tests.support.batches import SCRIPT, SETTINGS, by_seed


@asynccontextmanager
async def scripted(engine: ScriptedEngine) -> AsyncGenerator[LocalExecutor, None]:
    """The executor of ``tests.support.batches.run_scripted``."""
    async with FakeSandbox(lambda code: "7") as box:
        yield LocalExecutor(Solver(engine, box, settings=SETTINGS), grade, instruction="")


@asynccontextmanager
async def voting(votes: int) -> AsyncGenerator[LocalExecutor, None]:
    """Its traces vote; so many at once as the job's place in the run allows."""
    async with FakeSandbox(lambda code: "7") as box:
        solver = Solver(ScriptedEngine(by_seed), box, settings=SETTINGS)
        strategy = Majority(MajorityOptions(votes=votes))
        yield LocalExecutor(solver, grade, instruction="", strategy=strategy, value=math_value, concurrency=4)


class _Failing(ScriptedEngine):
    """Does something else from one of its turns on, as long as there is a file to take."""

    def __init__(self, files: Path, turn: int, kill: bool) -> None:
        super().__init__(SCRIPT)
        self._files, self._left, self._kill, self._broken = files, turn, kill, False

    def check(self, request: TurnRequest) -> None:
        super().check(request)
        self._left -= 1
        if self._left < 0 and not self._broken and (found := next(self._files.iterdir(), None)) is not None:
            found.unlink(missing_ok=True)
            if self._kill:
                os.kill(os.getpid(), signal.SIGKILL)
            self._broken = True
        if self._broken:
            raise EngineError("the engine is out of memory")


@asynccontextmanager
async def dying(files: Path, turn: int) -> AsyncGenerator[LocalExecutor, None]:
    """Kills its process at this turn, as often as there are files in the folder."""
    async with scripted(_Failing(files, turn, kill=True)) as executor:
        yield executor


@asynccontextmanager
async def breaking(files: Path, turn: int) -> AsyncGenerator[LocalExecutor, None]:
    """Its engine fails at this turn and at all later ones, as often as there are files in the folder."""
    async with scripted(_Failing(files, turn, kill=False)) as executor:
        yield executor


@asynccontextmanager
async def impossible() -> AsyncGenerator[LocalExecutor, None]:
    """Cannot be opened, through the user's fault."""
    raise ModelError("there is no such model")
    yield
