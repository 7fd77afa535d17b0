from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import sqrt
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.analysis.stats import (
    SignFlip,
    mcnemar_p_value,
    mean_interval,
    paired_interval,
    pass_at_k,
    share,
    sign_flip_p_value,
    t_quantile,
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


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_is_that_of_scipy(trials: int, rate: float, confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    successes = round(rate * trials)
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    found = wilson_interval(successes, trials, z=NormalDist().inv_cdf((1 + confidence) / 2))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


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


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test_of_scipy(only_first: int, only_second: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    differing = only_first + only_second
    expected = stats.binomtest(only_first, differing).pvalue if differing else 1.0
    assert mcnemar_p_value(pairs(only_first, only_second)) == pytest.approx(expected, rel=1e-9)


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


@given(st.integers(1, 2000), st.data())
def test_pass_at_k_is_the_hypergeometric_chance_of_scipy(tries: int, data: st.DataObject) -> None:
    stats = pytest.importorskip("scipy.stats")
    right, k = data.draw(st.integers(0, tries)), data.draw(st.integers(1, tries))
    assert pass_at_k(tries, right, k) == pytest.approx(stats.hypergeom.sf(0, tries, right, k), abs=1e-9)


@pytest.mark.parametrize(("tries", "right", "k"), [(3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1)])
def test_pass_at_k_refuses_what_cannot_be(tries: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"pass@. is undefined"):
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


@given(st.tuples(*(st.integers(0, 40),) * 4).filter(any))
def test_the_paired_interval_is_two_intervals_of_scipy_joined(counts: tuple[int, int, int, int]) -> None:
    """Newcombe 1998, method 10, from the square of two-by-two counts, with scipy's Wilson intervals."""
    stats = pytest.importorskip("scipy.stats")
    neither, only_second, only_first, both = counts
    outcomes = [(False, False)] * neither + [(False, True)] * only_second
    outcomes += [(True, False)] * only_first + [(True, True)] * both
    size, first, second = len(outcomes), both + only_first, both + only_second
    (low_1, high_1), (low_2, high_2) = (
        stats.binomtest(right, size).proportion_ci(method="wilson") for right in (first, second)
    )
    margins = first * second * (size - first) * (size - second)
    product = both * neither - only_first * only_second
    phi = (max(product - size / 2, 0) if product > 0 else product) / sqrt(margins) if margins else 0.0
    rate_1, rate_2 = first / size, second / size
    below, above = rate_2 - low_2, high_1 - rate_1
    low = rate_2 - rate_1 - sqrt(max(below**2 - 2 * phi * below * above + above**2, 0))
    below, above = rate_1 - low_1, high_2 - rate_2
    high = rate_2 - rate_1 + sqrt(max(below**2 - 2 * phi * below * above + above**2, 0))
    assert paired_interval(outcomes) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_of_a_mean() -> None:
    half = 3.182446 * 3**-0.5 / 2  # t of three degrees of freedom, standard deviation 3**-0.5, four values
    assert mean_interval([0.0, 1.0, 1.0, 0.0]) == pytest.approx((0.5 - half, 0.5 + half))
    assert mean_interval([0.25]) == (0.25, 0.25)
    with pytest.raises(ValueError, match="interval of no values"):
        mean_interval([])


@pytest.mark.parametrize(
    ("freedom", "expected"),  # of printed tables
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (9, 2.2622), (29, 2.0452), (30, 2.0423), (120, 1.9799), (10**4, 1.9602)],
)
def test_the_quantiles_of_student(freedom: int, expected: float) -> None:
    assert t_quantile(freedom) == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 3000), st.floats(0.01, 0.999))
def test_the_quantiles_of_student_are_those_of_scipy(freedom: int, coverage: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(freedom, coverage) == pytest.approx(stats.t.ppf((1 + coverage) / 2, freedom), rel=1e-8)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40))
def test_the_interval_of_a_mean_is_that_of_scipy(values: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats")
    mean = sum(values) / len(values)
    error = sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    reach = stats.t.ppf(0.975, len(values) - 1) * error
    assert mean_interval(values) == pytest.approx((mean - reach, mean + reach), abs=1e-9)


@pytest.mark.parametrize(("freedom", "coverage"), [(0, 0.95), (3, 0.0), (3, 1.0)])
def test_what_has_no_quantile(freedom: int, coverage: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        t_quantile(freedom, coverage)


def flipped_by_hand(differences: list[Fraction]) -> Fraction:
    """All signs, one after another."""
    observed = abs(sum(differences, Fraction(0)))
    sums = [
        sum((sign * value for sign, value in zip(signs, differences, strict=True)), Fraction(0))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return Fraction(sum(abs(value) >= observed for value in sums), len(sums))


DIFFERENCES = st.lists(
    st.builds(
        lambda first, second: second - first,
        *(st.builds(lambda of, right: Fraction(min(of, right), of), st.integers(1, 8), st.integers(0, 8)),) * 2,
    ),
    max_size=9,
)


@given(DIFFERENCES)
def test_the_sign_flip_test_counts_all_signs(differences: list[Fraction]) -> None:
    found = sign_flip_p_value(differences)
    assert found.exact
    assert found.p_value == pytest.approx(float(flipped_by_hand(differences)))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200))
def test_the_sign_flip_test_of_single_samples_is_mcnemars(flags: list[tuple[bool, bool]]) -> None:
    differences = [Fraction(second - first) for first, second in flags]
    assert sign_flip_p_value(differences).p_value == pytest.approx(mcnemar_p_value(flags))


@given(st.lists(st.integers(-6, 6), min_size=2, max_size=8))
def test_the_sign_flip_test_is_that_of_scipy(values: list[int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.permutation_test(
        (values, [0] * len(values)), lambda one, two: sum(one) - sum(two), permutation_type="samples", n_resamples=1e6
    )
    assert sign_flip_p_value([Fraction(value, 6) for value in values]).p_value == pytest.approx(expected.pvalue)


@given(DIFFERENCES)
def test_neither_unit_nor_side_nor_order_nor_zeros_matter(differences: list[Fraction]) -> None:
    found = sign_flip_p_value(differences)
    turned = [-difference / 3 for difference in reversed(differences)]
    assert sign_flip_p_value([*turned, Fraction(0)]) == found


def test_drawn_flips_come_near_the_exact_share_and_are_the_same_each_time() -> None:
    differences = [Fraction(value, 8) for value in (3, -1, 4, 1, -5, 2, 6, -2, 3, 1) * 6]
    exact, drawn = sign_flip_p_value(differences), sign_flip_p_value(differences, most_steps=100)
    assert (exact.exact, drawn.exact) == (True, False)
    error = sqrt(exact.p_value * (1 - exact.p_value) / 100_000)
    assert abs(drawn.p_value - exact.p_value) < 5 * error
    assert sign_flip_p_value(differences, most_steps=100) == drawn


def test_drawn_flips_are_never_a_p_value_of_zero() -> None:
    assert sign_flip_p_value([Fraction(1)] * 1000 + [Fraction(-1)] * 400, most_steps=0) == SignFlip(1e-5, False)
