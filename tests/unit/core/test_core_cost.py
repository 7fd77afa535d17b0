"""What turns cost, summed over a trace."""

from __future__ import annotations

from start_agent.decoding.events import Cost
from start_agent.engines.base import Turn, Usage
from start_agent.tokens.stopping import StopKind


def turn(kept: int, usage: Usage) -> Turn:
    return Turn(tuple(range(kept)), StopKind.CONNECTIVE, usage)


def test_what_is_fed_again_is_what_was_known_and_not_found() -> None:
    cost = Cost()
    cost.add(10, turn(5, Usage(reused=0, fed=14, decoded=5, queued=0.5)))  # 14 of the 15 have their KV now
    cost.add(20, turn(3, Usage(reused=8, fed=15, decoded=4)))  # five were inserted; 6 of the 14 are gone
    assert (cost.turns, cost.decoded, cost.fed, cost.reused, cost.queued) == (2, 9, 29, 8, 0.5)
    assert cost.again == 6


def test_an_engine_that_keeps_all_feeds_nothing_again() -> None:
    cost = Cost()
    cost.add(10, turn(5, Usage(reused=0, fed=14, decoded=5)))
    cost.add(20, turn(3, Usage(reused=14, fed=8, decoded=3)))
    assert cost.again == 0


def test_a_prompt_that_another_trace_had_is_not_fed_again() -> None:
    cost = Cost()
    cost.add(40, turn(5, Usage(reused=32, fed=12, decoded=5)))
    cost.add(50, turn(5, Usage(reused=44, fed=10, decoded=5)))
    assert (cost.again, cost.reused) == (0, 76)
