"""Jobs: running rollouts, and that nothing is left when they end, fail, or are abandoned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from sandbox import FakeSandbox, KernelStartError
from start_agent.decoding.events import CellStarted
from start_agent.decoding.segments import Segment
from start_agent.engines.base import Engine, Tokens, Turn, TurnRequest
from start_agent.engines.scripted import ScriptedEngine
from start_agent.errors import EngineError
from start_agent.server.errors import APIError
from start_agent.server.jobs import Batch, ClientGoneError, Job, until_gone
from start_agent.server.rollout import Finished, Item, Rollout, RolloutRequest
from start_agent.server.state import State
from tests.support.apps import app_of, state

MESSAGES = [{"role": "user", "content": "What is 6 * 7?"}]
ANSWER = "</think>\\boxed{42}<|im_end|>"
CODE = "```python\nx\n```\n"
BARE = {"hints": False}


class StuckEngine(ScriptedEngine):
    """Writes its script and then nothing more, until it is cancelled.

    Attributes:
        stuck: how many turns are.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__([text])
        self.stuck = 0
        self.reached = asyncio.Event()

    generate = Engine.generate  # by means of ``stream``

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        self.stuck += 1
        self.reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stuck -= 1
        yield Tokens((0,))


class PacedEngine(ScriptedEngine):
    """Lets others run after each token, as engines that compute do."""

    generate = Engine.generate  # by means of ``stream``

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        async with aclosing(super().stream(request)) as items:
            async for item in items:
                for token_id in () if isinstance(item, Turn) else item.token_ids:
                    yield Tokens((token_id,))
                    for _ in range(3):
                        await asyncio.sleep(0)
                if isinstance(item, Turn):
                    yield item


class BrokenEngine(ScriptedEngine):
    generate = Engine.generate  # by means of ``stream``

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        yield Tokens(tuple(self.tokenizer.encode("Hm")))
        raise EngineError("/secret broke")


@asynccontextmanager
async def server(script: Any, **options: Any) -> AsyncGenerator[State, None]:
    async with app_of(script, settings=BARE, **options) as app:
        yield state(app)


def job_of(server: State, count: int = 1, client: str = "", **more: Any) -> Job:
    rollouts = [Rollout(server.solver, RolloutRequest(messages=MESSAGES, seed=seed)) for seed in range(count)]
    return Job(server, client, rollouts, **more)


async def all_of(job: Job) -> Batch:
    return [pair async for batch in job.batches() for pair in batch]


def items_of(batch: Batch, index: int = 0) -> list[Item]:
    return [item for at, item in batch if at == index]


async def test_all_items_come_in_order_and_each_rollout_finishes() -> None:
    ended: list[bool] = []
    async with server([CODE, ANSWER]) as there:
        async with job_of(there, 3, on_end=lambda: ended.append(True)) as job:
            found = await all_of(job)
        assert job.ended.is_set() and ended == [True] and not there.jobs
        assert (there.admission.running, there.admission.waiting) == (0, 0)
    for index in range(3):
        items = items_of(found, index)
        assert isinstance(items[-1], Finished)
        assert "".join(item.text for item in items if isinstance(item, Segment)) == str(items[-1].trace)


async def test_what_came_together_is_one_batch() -> None:
    async with server([ANSWER]) as there:
        job = job_of(there)
        await job.ended.wait()
        batches = [batch async for batch in job.batches()]
    assert len(batches) == 1 and isinstance(batches[0][-1][1], Finished)


async def test_a_stream_may_be_coarser() -> None:
    async def batches(**options: Any) -> list[Batch]:
        async with server(PacedEngine(["word " * 20 + ANSWER]), **options) as there:
            return [batch async for batch in job_of(there).batches()]

    fine, coarse = await batches(), await batches(stream_interval=40)
    assert len(coarse) < 6 < len(fine)
    for batch in coarse[1:-1]:
        assert sum(len(item.token_ids) for _, item in batch if isinstance(item, Segment)) >= 40


async def test_more_than_may_run_waits() -> None:
    async with server([ANSWER], max_requests=1, queue=2) as there:
        first, second = job_of(there), job_of(there, 2)
        assert first.admitted and not second.admitted
        with pytest.raises(APIError):
            job_of(there)
        assert len(items_of(await all_of(second), 1)) > 1


async def test_a_failure_ends_all_of_it() -> None:
    async with server(BrokenEngine([])) as there:
        job = job_of(there, 2)
        with pytest.raises(EngineError):
            await all_of(job)
        await job.ended.wait()
        assert there.admission.running == 0


async def test_what_came_before_an_error_comes_before_it() -> None:
    async def fail(code: str) -> str:
        raise KernelStartError("no room")

    async with server([CODE], sandbox=FakeSandbox(fail)) as there:
        found: Batch = []
        with pytest.raises(KernelStartError):
            async for batch in job_of(there).batches():
                found += batch
                await asyncio.sleep(0)  # the reader writes, and meanwhile the rollout fails
        assert isinstance(items_of(found)[-1], CellStarted)


@pytest.mark.parametrize("leave", [Job.close, lambda job: job.fail(APIError(503, "bye"))])
async def test_what_is_closed_leaves_nothing(leave: Callable[[Job], None]) -> None:
    engine = StuckEngine()
    async with server(engine, max_requests=1) as there:
        job = job_of(there, 2)  # one runs, one waits
        await engine.reached.wait()
        leave(job)
        await job.ended.wait()
        assert engine.stuck == 0 and len(engine.released) == 1
        assert (there.admission.running, there.admission.waiting) == (0, 0)


async def test_one_that_is_closed_at_once_gives_its_place_back() -> None:
    async with server([ANSWER]) as there:
        job = job_of(there)
        job.close()
        await job.ended.wait()
        assert there.admission.running == 0


async def test_a_cell_that_hangs_is_given_up_with_its_kernel() -> None:
    started = asyncio.Event()

    async def hang(code: str) -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    box = FakeSandbox(hang)
    async with server([CODE], sandbox=box) as there:
        job = job_of(there)
        await started.wait()
        assert box.open_sessions == 1
        job.close()
        await job.ended.wait()
        assert box.open_sessions == 0
        found = [item for _, item in job._items]
        assert any(isinstance(item, CellStarted) for item in found)


async def test_what_takes_too_long_is_ended() -> None:
    engine = StuckEngine()
    async with server(engine, request_timeout=0.05) as there:
        with pytest.raises(TimeoutError):
            await all_of(job_of(there))
        assert engine.stuck == 0


async def test_a_stopping_server_takes_nothing_and_finishes_what_runs() -> None:
    release = asyncio.Event()

    async def wait(code: str) -> str:
        await release.wait()
        return "42"

    async with server([CODE, ANSWER], sandbox=FakeSandbox(wait), max_requests=1) as there:
        running, waiting = job_of(there), job_of(there)
        draining = asyncio.create_task(there.drain(60))
        with pytest.raises(APIError) as refused:
            await all_of(waiting)
        assert refused.value.status_code == 503
        with pytest.raises(APIError):
            job_of(there)
        release.set()
        assert isinstance(items_of(await all_of(running))[-1], Finished)
        await draining


async def test_after_the_grace_time_all_is_ended() -> None:
    engine = StuckEngine()
    async with server(engine) as there:
        job = job_of(there)
        await engine.reached.wait()
        await there.drain(0)
        assert engine.stuck == 0
        with pytest.raises(APIError):
            await all_of(job)


class Connection:
    """The part of a request by which a client's leaving is seen."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_work_is_given_up_when_the_client_goes_away() -> None:
    connection, cancelled = Connection(), asyncio.Event()

    async def work() -> None:
        try:
            connection.gone.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientGoneError):
        await until_gone(connection, work())  # type: ignore[arg-type]
    assert cancelled.is_set()


async def test_the_result_and_the_errors_of_work_come_through() -> None:
    async def result() -> int:
        return 42

    async def error() -> int:
        raise EngineError("x")

    assert await until_gone(Connection(), result()) == 42  # type: ignore[arg-type]
    with pytest.raises(EngineError):
        await until_gone(Connection(), error())  # type: ignore[arg-type]
