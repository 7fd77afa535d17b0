from __future__ import annotations

import pytest

from benchmarks.stats import mcnemar_p_value, share, wilson_interval


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
