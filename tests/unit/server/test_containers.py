"""Containers: ownership, lifetime, and that a loss is always reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sandbox import FakeSandbox, KernelStartError, Outcome, Result, SandboxClosed
from start_agent.server.container_session import STATE_LOST
from start_agent.server.containers import ContainerBusy, ContainerNotFound, Containers, ContainersFull


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def box() -> AsyncIterator[FakeSandbox]:
    async with FakeSandbox(lambda code: "42", size=20) as box:
        yield box
        assert box.open_sessions == 0, "a kernel is left"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def containers(box: FakeSandbox, clock: Clock) -> AsyncIterator[Containers]:
    found = Containers(box, limit=3, ttl=60, clock=clock)
    yield found
    await found.close()


async def test_a_kernel_is_taken_when_it_is_needed(containers: Containers, box: FakeSandbox) -> None:
    made = containers.create("a", "mine")
    assert box.open_sessions == 0
    assert (await made.session.execute("x", timeout=1.0)).text == "42"
    await made.session.execute("y")
    assert (box.open_sessions, box.stats.sessions) == (1, 1)
    await containers.delete("a", made.id)
    assert box.open_sessions == 0
    with pytest.raises(SandboxClosed):
        await made.session.execute("z")


async def test_two_first_cells_at_once_share_one_kernel(containers: Containers, box: FakeSandbox) -> None:
    made = containers.create("a", "")
    await asyncio.gather(*(made.session.execute(code) for code in "xyz"))
    assert box.stats.sessions == 1


async def test_another_clients_container_is_not_there(containers: Containers) -> None:
    made = containers.create("a", "")
    assert containers.get("a", made.id) is made
    for owner in ("b", ""):
        with pytest.raises(ContainerNotFound) as error:
            containers.get(owner, made.id)
        assert not error.value.expired, "clients cannot find out what others have"
        with pytest.raises(ContainerNotFound):
            await containers.delete(owner, made.id)
    assert containers.list("b") == []
    assert containers.list("a") == [made]


async def test_it_expires_when_idle(containers: Containers, clock: Clock, box: FakeSandbox) -> None:
    made = containers.create("a", "", ttl=100)
    await made.session.execute("x")
    clock.now += 99
    containers.touch(containers.get("a", made.id))
    clock.now += 99
    containers.get("a", made.id)
    clock.now += 1
    with pytest.raises(ContainerNotFound) as error:
        containers.get("a", made.id)
    assert error.value.expired
    await containers.settled()
    assert box.open_sessions == 0
    with pytest.raises(ContainerNotFound) as error:
        containers.get("b", made.id)
    assert not error.value.expired


async def test_it_does_not_expire_in_use(containers: Containers, clock: Clock) -> None:
    made = containers.create("a", "")
    containers.claim(made)
    clock.now += 1000
    assert containers.get("a", made.id) is made
    containers.release(made)
    clock.now += 59
    assert containers.get("a", made.id) is made


async def test_one_response_at_a_time(containers: Containers) -> None:
    made = containers.create("a", "")
    containers.claim(made)
    with pytest.raises(ContainerBusy):
        containers.claim(made)
    with pytest.raises(ContainerBusy):
        await containers.delete("a", made.id)
    containers.release(made)
    containers.claim(made)
    containers.release(made)
    await containers.delete("a", made.id)


async def test_there_are_no_more_than_there_may_be(containers: Containers) -> None:
    made = [containers.create("a", "") for _ in range(3)]
    with pytest.raises(ContainersFull):
        containers.create("a", "")
    await containers.delete("a", made[0].id)
    containers.create("b", "")


async def test_those_of_responses_make_room(containers: Containers, box: FakeSandbox) -> None:
    kept = []
    for _ in range(3):
        made = containers.create_for_response("a")
        containers.claim(made)
        await made.session.execute("x")
        made.kept = True
        containers.release(made)
        kept.append(made)
    containers.touch(kept[0])
    containers.create("a", "")
    with pytest.raises(ContainerNotFound) as error:
        containers.get("a", kept[1].id)
    assert error.value.expired
    for one in (kept[0], kept[2]):
        containers.get("a", one.id)
    await containers.settled()
    assert box.open_sessions == 2


async def test_those_of_running_responses_do_not_count(containers: Containers, box: FakeSandbox) -> None:
    made = [containers.create_for_response("a") for _ in range(6)]
    for one in made:
        containers.claim(one)
        await one.session.execute("x")
    containers.create("a", "")
    for one in made:
        one.kept = True
        containers.release(one)
    assert len(containers.list("a")) == 3
    await containers.settled()
    assert box.open_sessions == 2  # the other container has run nothing


async def test_one_of_a_response_is_closed_with_it_unless_it_is_kept(containers: Containers, box: FakeSandbox) -> None:
    made = containers.create_for_response("a")
    containers.claim(made)
    await made.session.execute("x")
    with pytest.raises(ContainerBusy):
        await containers.delete("a", made.id)
    containers.release(made)
    await containers.settled()
    assert box.open_sessions == 0
    with pytest.raises(ContainerNotFound) as error:
        containers.get("a", made.id)
    assert error.value.expired


async def test_a_kernel_ends_although_who_closes_it_is_cancelled(containers: Containers, box: FakeSandbox) -> None:
    made = containers.create("a", "")
    await made.session.execute("x")
    task = asyncio.create_task(containers.delete("a", made.id))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await containers.settled()
    assert box.open_sessions == 0


async def test_a_seed_reaches_the_kernel(containers: Containers, box: FakeSandbox) -> None:
    await containers.create_for_response("a", seed=7).session.execute("x")
    assert box.seeds == [7]


async def test_variables_that_the_model_saw_are_gone(containers: Containers) -> None:
    session = containers.create_for_response("a", lost=True).session
    first = await session.execute("x")
    assert first.state_lost
    assert first.text == f"{STATE_LOST}\n42"
    assert (await session.execute("x")).text == "42"


@pytest.mark.parametrize("cells_before", [0, 1])
async def test_the_output_after_a_fault_or_a_cancelled_cell_says_so(cells_before: int) -> None:
    hang = asyncio.Event()

    async def answer(code: str) -> str:
        if code == "hang":
            hang.set()
            await asyncio.Event().wait()
        return "42"

    async with FakeSandbox(answer) as box:
        containers = Containers(box, limit=3, ttl=60)
        made = containers.create("a", "")
        for _ in range(cells_before):
            await made.session.execute("x")
        task = asyncio.create_task(made.session.execute("hang"))
        await hang.wait()
        task.cancel()
        await asyncio.wait([task])
        after = await made.session.execute("x")
        assert after.state_lost == bool(cells_before), "where no cell had run nothing is lost"
        assert (await made.session.execute("x")).text == "42"
        box.fail_next(KernelStartError("no kernel"))
        with pytest.raises(KernelStartError):
            await made.session.execute("x")
        assert (await made.session.execute("x")).text == f"{STATE_LOST}\n42"
        await containers.close()


async def test_a_loss_that_the_result_says_itself_is_said_once() -> None:
    results = [Result(Outcome.OK), Result(Outcome.DIED, error="died", state_lost=True), Result(Outcome.OK, stdout="y")]
    async with FakeSandbox(lambda code: results.pop(0)) as box:
        containers = Containers(box, limit=3, ttl=60)
        made = containers.create("a", "")
        texts = [(await made.session.execute("x")).text for _ in range(3)]
        assert texts == ["", "died", "y"]
        await containers.close()


async def test_ids_are_short_and_differ(containers: Containers) -> None:
    made = [containers.create("a", "") for _ in range(3)]
    assert len({one.id for one in made}) == 3
    assert all(one.id.startswith("cntr_") and len(one.id) <= 64 for one in made)
