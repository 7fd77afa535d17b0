"""The little statistics that runs and benchmarks need, with the standard library alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb, prod, sqrt
from statistics import fmean, stdev

_Z_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""


def share(flags: Iterable[bool]) -> float:
    """The fraction that is true; 0 of none."""
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def wilson_interval(successes: float, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927), as fractions; by default the 95% interval.

    Successes need not be whole: a trial may be a mean over several tries, for which the interval is a careful one.

    Raises:
        ValueError: no trials, or successes that are not among them.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials have no interval")
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z * sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2) / scale
    # At 0 and at all of them a bound is the rate itself; rounding must not carry it past.
    return max(0.0, min(centre - half, rate)), min(1.0, max(centre + half, rate))


def mcnemar_p_value(pairs: Iterable[tuple[bool, bool]]) -> float:
    """Exact two-sided p-value of McNemar's test: did the same problems come out alike under both conditions?

    Among the pairs that differ, either direction is equally likely under the null hypothesis: a binomial test.
    """
    differing = [first for first, second in pairs if first != second]
    count, fewer = len(differing), min(sum(differing), len(differing) - sum(differing))
    as_uneven = sum(comb(count, k) for k in range(fewer + 1))
    return min(1.0, 2 * as_uneven / (1 << count))


def pass_at_k(tries: int, right: int, k: int) -> float:
    """The chance that at least one of ``k`` tries, drawn from these without putting back, is right.

    The unbiased estimator of Chen et al. 2021 (Codex), 1 - C(tries - right, k) / C(tries, k), as a product.

    Raises:
        ValueError: ``k`` is not from 1 to ``tries``, or ``right`` is not among them.
    """
    if not 1 <= k <= tries or not 0 <= right <= tries:
        raise ValueError(f"{right} of {tries} tries right: no pass@{k}")
    if tries - right < k:
        return 1.0
    return 1.0 - prod(1.0 - k / count for count in range(tries - right + 1, tries + 1))


def paired_interval(pairs: Iterable[tuple[bool, bool]], z: float = _Z_95) -> tuple[float, float]:
    """The interval of the difference between two proportions over the same trials, second minus first.

    Newcombe 1998 (Improved confidence intervals for the difference between binomial proportions based on paired
    data), method 10: two Wilson intervals, joined by the correlation of the pairs. It stays within -1 and 1, and has
    a width even where all pairs agree.

    Raises:
        ValueError: no pairs.
    """
    counts = [0, 0, 0, 0]  # by 2 * first + second
    for first, second in pairs:
        counts[2 * first + second] += 1
    neither, only_second, only_first, both = counts
    trials = sum(counts)
    (low_1, high_1), (low_2, high_2) = (
        wilson_interval(both + only_first, trials, z),
        wilson_interval(both + only_second, trials, z),
    )
    rate_1, rate_2 = (both + only_first) / trials, (both + only_second) / trials
    product = (both + only_first) * (both + only_second) * (neither + only_first) * (neither + only_second)
    covariance: float = both * neither - only_first * only_second
    if covariance > 0:  # the method's correction for continuity
        covariance = max(covariance - trials / 2, 0.0)
    phi = covariance / sqrt(product) if product else 0.0

    def reach(one: float, other: float) -> float:
        return sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))

    difference = rate_2 - rate_1
    return (
        difference - reach(rate_2 - low_2, high_1 - rate_1),
        difference + reach(high_2 - rate_2, rate_1 - low_1),
    )


def mean_interval(values: Sequence[float], z: float = _Z_95) -> tuple[float, float]:
    """The normal interval of a mean; of a single value all that is known is the value.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values have no interval")
    mean = fmean(values)
    half = z * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return mean - half, mean + half
