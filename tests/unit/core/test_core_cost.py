"""The cost of turns, summed over a trace."""

from __future__ import annotations

from start_agent.decoding.events import Cost
from start_agent.engines.base import Turn, Usage
from start_agent.tokens.stopping import StopKind


def turn(kept: int, usage: Usage) -> Turn:
    return Turn(tuple(range(kept)), StopKind.CONNECTIVE, usage)


def test_what_is_fed_again_is_what_was_known_and_not_found() -> None:
    cost = Cost()
    cost.add(
        10, turn(5, Usage(cached_tokens=0, computed_tokens=14, generated_tokens=5, queue_seconds=0.5))
    )  # 14 of the 15 have their KV now
    cost.add(
        20, turn(3, Usage(cached_tokens=8, computed_tokens=15, generated_tokens=4))
    )  # five were inserted; 6 of the 14 are gone
    assert (cost.turns, cost.generated_tokens, cost.computed_tokens, cost.cached_tokens, cost.queue_seconds) == (
        2,
        9,
        29,
        8,
        0.5,
    )
    assert cost.recomputed_tokens == 6


def test_an_engine_that_keeps_all_feeds_nothing_again() -> None:
    cost = Cost()
    cost.add(10, turn(5, Usage(cached_tokens=0, computed_tokens=14, generated_tokens=5)))
    cost.add(20, turn(3, Usage(cached_tokens=14, computed_tokens=8, generated_tokens=3)))
    assert cost.recomputed_tokens == 0


def test_a_prompt_that_another_trace_had_is_not_fed_again() -> None:
    cost = Cost()
    cost.add(40, turn(5, Usage(cached_tokens=32, computed_tokens=12, generated_tokens=5)))
    cost.add(50, turn(5, Usage(cached_tokens=44, computed_tokens=10, generated_tokens=5)))
    assert (cost.recomputed_tokens, cost.cached_tokens, cost.prompt_cached_tokens) == (0, 76, 32)
