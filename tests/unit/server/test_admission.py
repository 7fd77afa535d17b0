"""Admission: limits, and clients in turn."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.server.admission import Admission, Ticket
from start_agent.server.errors import APIError


def admitted(tickets: list[Ticket]) -> list[bool]:
    return [ticket.admitted for ticket in tickets]


async def test_so_many_run_and_so_many_wait() -> None:
    admission = Admission(2, 1)
    tickets = admission.reserve("a", 3)
    assert admitted(tickets) == [True, True, False]
    with pytest.raises(APIError) as refused:
        admission.reserve("b")
    assert refused.value.status_code == 429 and int((refused.value.headers or {})["Retry-After"]) >= 1
    tickets[0].close()
    assert admitted(tickets) == [True, True, True] and (admission.running, admission.waiting) == (2, 0)


async def test_what_never_fits_is_another_error() -> None:
    with pytest.raises(APIError) as refused:
        Admission(2, 1).reserve("a", 4)
    assert (refused.value.status_code, refused.value.param) == (400, "n")


async def test_several_are_taken_together_or_not_at_all() -> None:
    admission = Admission(1, 2)
    admission.reserve("a", 2)
    with pytest.raises(APIError):
        admission.reserve("b", 2)
    assert (admission.running, admission.waiting) == (1, 1)


async def test_clients_take_turns_and_each_is_served_in_its_order() -> None:
    admission = Admission(1, 10)
    first = admission.reserve("busy", 4)
    other = admission.reserve("rare", 2)
    order, left = [first[0]], [*first, *other]
    while len(order) < len(left):
        order[-1].close()
        order += [ticket for ticket in left if ticket.admitted and ticket not in order]
    assert order == [first[0], first[1], other[0], first[2], other[1], first[3]]


async def test_one_who_leaves_the_queue_frees_a_place_in_it() -> None:
    admission = Admission(1, 1)
    running, waiting = admission.reserve("a", 2)

    async def wait() -> None:
        async with waiting:
            raise AssertionError("it was never admitted")

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (admission.running, admission.waiting) == (1, 0)
    waiting.close()
    running.close()
    assert (admission.running, admission.waiting) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=12), st.randoms(use_true_random=False))
def test_all_are_served_within_the_bounds(asked: list[tuple[str, int]], random: object) -> None:
    asyncio.run(_serve_all(asked, random))


async def _serve_all(asked: list[tuple[str, int]], random: object) -> None:
    admission, tickets = Admission(2, 4), list[Ticket]()
    for client, count in asked:
        try:
            tickets += admission.reserve(client, count)
        except APIError:
            assert admission.waiting + count > 4 - 1
        assert admission.running <= 2 and admission.waiting <= 4
        assert admission.running == 2 or not admission.waiting
    while open_ := [ticket for ticket in tickets if ticket.admitted]:
        chosen = random.choice(open_)  # type: ignore[attr-defined]
        chosen.close()
        tickets.remove(chosen)
        assert admission.running == 2 or not admission.waiting
    assert not tickets and (admission.running, admission.waiting) == (0, 0)


async def test_a_wait_is_guessed_from_what_others_took() -> None:
    now = 0.0
    admission = Admission(1, 100, clock=lambda: now)
    before = admission.retry_after
    for _ in range(50):
        (ticket,) = admission.reserve("a")
        now += 30
        ticket.close()
    assert before < admission.retry_after <= 60
