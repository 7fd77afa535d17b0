"""The little statistics that the benchmarks need, with the standard library alone."""

from __future__ import annotations

from collections.abc import Iterable
from math import comb, sqrt

_Z_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""


def share(flags: Iterable[bool]) -> float:
    """The fraction that is true; 0 of none."""
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def wilson_interval(successes: int, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927), as fractions; by default the 95% interval.

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
