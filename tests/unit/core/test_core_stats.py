from __future__ import annotations

from itertools import combinations

import pytest

from start_agent.stats import (
    mcnemar_p_value,
    mean_interval,
    paired_interval,
    pass_at_k,
    share,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I: method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_holds_the_rate() -> None:
    for successes in range(21):
        low, high = wilson_interval(successes, 20)
        assert 0 <= low <= successes / 20 <= high <= 1
        assert wilson_interval(20 - successes, 20) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no interval"):
        wilson_interval(successes, trials)


def pairs(only_first: int, only_second: int, alike: int = 7) -> list[tuple[bool, bool]]:
    return [(True, False)] * only_first + [(False, True)] * only_second + [(True, True), (False, False)] * alike


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 5, 2 / 32),
        (1, 9, 2 * 11 / 1024),
        (9, 1, 2 * 11 / 1024),
        (2, 6, 2 * (1 + 8 + 28) / 256),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, expected: float) -> None:
    assert mcnemar_p_value(pairs(only_first, only_second)) == pytest.approx(expected)


def test_mcnemar_stands_many_pairs() -> None:
    assert mcnemar_p_value(pairs(0, 5000)) == 0.0
    assert mcnemar_p_value(pairs(2500, 2500)) == 1.0


def test_share() -> None:
    assert share([True, False, False, True]) == 0.5
    assert share([]) == 0.0


@pytest.mark.parametrize("tries", [1, 2, 5, 6])
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_one(tries: int) -> None:
    for right in range(tries + 1):
        flags = [True] * right + [False] * (tries - right)
        for k in range(1, tries + 1):
            draws = [any(draw) for draw in combinations(flags, k)]
            assert pass_at_k(tries, right, k) == pytest.approx(sum(draws) / len(draws))


@pytest.mark.parametrize(("tries", "right", "k"), [(3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1)])
def test_pass_at_k_refuses_what_cannot_be(tries: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="no pass@"):
        pass_at_k(tries, right, k)


def test_the_paired_interval_by_hand() -> None:
    # 10 both, 20 only the first, 5 only the second, 15 neither: rates 0.6 and 0.3, phi (150 - 100 - 25) / sqrt(525000)
    both = [(True, True)] * 10 + [(True, False)] * 20 + [(False, True)] * 5 + [(False, False)] * 15
    low_1, high_1 = wilson_interval(30, 50)
    low_2, high_2 = wilson_interval(15, 50)
    phi = 25 / (30 * 20 * 15 * 35) ** 0.5  # 150 - 100, less half of 50
    below = ((0.3 - low_2) ** 2 - 2 * phi * (0.3 - low_2) * (high_1 - 0.6) + (high_1 - 0.6) ** 2) ** 0.5
    above = ((high_2 - 0.3) ** 2 - 2 * phi * (high_2 - 0.3) * (0.6 - low_1) + (0.6 - low_1) ** 2) ** 0.5
    assert paired_interval(both) == pytest.approx((-0.3 - below, -0.3 + above))


def test_the_paired_interval_turns_with_its_pairs() -> None:
    one_way = paired_interval(pairs(2, 9))
    other_way = paired_interval(pairs(9, 2))
    assert one_way == pytest.approx((-other_way[1], -other_way[0]))
    assert one_way[0] > 0
    low, high = paired_interval([(True, True)] * 10)
    assert -1 <= low < 0 < high <= 1


def test_the_interval_of_a_mean() -> None:
    assert mean_interval([0.0, 1.0, 1.0, 0.0], z=2.0) == pytest.approx((0.5 - 3**-0.5, 0.5 + 3**-0.5))
    assert mean_interval([0.25]) == (0.25, 0.25)
