"""The order of the rows: a function of seed and epoch."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")


def order(epoch: int, *, seed: int = 0, grouped: bool, count: int = 103) -> tuple[list[int], list[int]]:
    from start_agent.training.sampler import EpochSampler

    chance = random.Random(7)
    lengths = [chance.randint(1, 1000) for _ in range(count)]
    sampler = EpochSampler(lengths, seed, 4, grouped=grouped)
    sampler.set_epoch(epoch)
    assert len(sampler) == count
    return list(sampler), lengths


@pytest.mark.parametrize("grouped", [False, True])
def test_all_rows_once_in_an_order_that_seed_and_epoch_decide(grouped: bool) -> None:
    found, _ = order(1, grouped=grouped)
    assert sorted(found) == list(range(103))
    assert found == order(1, grouped=grouped)[0]
    assert found != order(0, grouped=grouped)[0]
    assert found != order(1, seed=1, grouped=grouped)[0]


def test_a_grouped_step_has_rows_of_like_length_and_steps_come_in_any_order() -> None:
    def padding(found: list[int], lengths: list[int]) -> int:
        steps = [[lengths[i] for i in found[at : at + 4]] for at in range(0, len(found), 4)]
        return sum(max(step) * len(step) - sum(step) for step in steps)

    grouped, lengths = order(0, grouped=True)
    plain, _ = order(0, grouped=False)
    assert padding(grouped, lengths) < 0.2 * padding(plain, lengths)
    longest = [max(lengths[i] for i in grouped[at : at + 4]) for at in range(0, 100, 4)]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))
