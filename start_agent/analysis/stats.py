"""Statistics for runs and benchmarks, with only the standard library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import comb, cos, gcd, lcm, pi, prod, sin, sqrt, tan
from random import Random
from statistics import fmean, stdev
from typing import NamedTuple

_Z_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""

EXACT_STEPS = 30_000_000
"""Maximum additions of an exact sign-flip test: about two seconds."""

DRAWS = 99_999
"""Random sign flips if the exact test would take longer; with the observed one, 100,000."""


def share(flags: Iterable[bool]) -> float:
    """The fraction of true values; 0 if there are none."""
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def wilson_interval(successes: float, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927), as fractions; by default the 95% interval.

    Successes may be fractional: if a trial is a mean over several tries, the interval is conservative.

    Raises:
        ValueError: there are no trials, or the successes are negative or more than the trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials have no interval")
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z * sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2) / scale
    # With no or only successes, a bound equals the rate; rounding must not move it beyond.
    return max(0.0, min(centre - half, rate)), min(1.0, max(centre + half, rate))


def mcnemar_p_value(pairs: Iterable[tuple[bool, bool]]) -> float:
    """Exact two-sided p-value of McNemar's test for paired outcomes under two conditions.

    Under the null hypothesis, both directions are equally likely among the pairs that differ: a binomial test.
    """
    differing = [first for first, second in pairs if first != second]
    count, fewer = len(differing), min(sum(differing), len(differing) - sum(differing))
    as_uneven = sum(comb(count, k) for k in range(fewer + 1))
    return min(1.0, 2 * as_uneven / (1 << count))


class SignFlip(NamedTuple):
    """The result of a sign-flip test: its two-sided p-value, and whether it is exact or from random flips."""

    p_value: float
    exact: bool


def sign_flip_p_value(differences: Iterable[Fraction], *, most_steps: int = EXACT_STEPS) -> SignFlip:
    """Fisher's paired permutation test of a mean difference of 0 (The Design of Experiments, 1935, section 21).

    Under the null hypothesis that both conditions are equal, each difference could equally have the opposite sign. The
    p-value is the share of all choices of signs whose sum is at least as far from 0 as the observed one. Differences of
    0 have no effect. If all others have the same size, as with one sample each, it is McNemar's test.

    With t the sum of the sizes and s the observed sum, flipping signs of total size f gives the sum t - 2f. So subsets
    of the sizes with a sum of at most (t - |s|) / 2 are counted, and doubled for the other side. They are counted by
    convolution over multiples of a common unit (Pagano and Tritchler 1983), as shares.

    Args:
        differences: one per problem.
        most_steps: if the convolution needs more additions, ``DRAWS`` seeded random flips are used instead, including
            the observed one: (1 + as far) / (1 + draws) (Phipson and Smyth 2010).
    """
    signed = [difference for difference in differences if difference]
    unit = lcm(*(difference.denominator for difference in signed))
    integers = [int(difference * unit) for difference in signed]
    divisor = gcd(*integers) or 1
    sizes = sorted(abs(difference) // divisor for difference in integers)
    observed = abs(sum(integers)) // divisor
    if not observed:
        return SignFlip(1.0, True)
    most = (sum(sizes) - observed) // 2
    if len(sizes) * (most + 1) > most_steps:
        return SignFlip(_drawn_p_value(sizes, observed), False)
    shares = [1.0]  # shares of the subsets so far, indexed by their sum
    for size in sizes:
        without = shares + [0.0] * (min(len(shares) + size, most + 1) - len(shares))
        having = [0.0] * size + shares
        shares = [(one + other) / 2 for one, other in zip(without, having, strict=False)]
    return SignFlip(min(1.0, 2 * sum(shares)), True)


def _drawn_p_value(sizes: Sequence[int], observed: int) -> float:
    counts, total, random = Counter(sizes), sum(sizes), Random(0)
    as_far = 0
    for _ in range(DRAWS):  # of each size, the number of flips is the number of set random bits
        flipped = sum(size * random.getrandbits(count).bit_count() for size, count in counts.items())
        as_far += abs(total - 2 * flipped) >= observed
    return (1 + as_far) / (1 + DRAWS)


def pass_at_k(tries: int, right: int, k: int) -> float:
    """pass@k: the probability that at least one of ``k`` tries, drawn without replacement, is correct.

    The unbiased estimator of Chen et al. 2021 (Codex), 1 - C(tries - right, k) / C(tries, k), as a product.

    Raises:
        ValueError: ``k`` is not between 1 and ``tries``, or ``right`` not between 0 and ``tries``.
    """
    if not 1 <= k <= tries or not 0 <= right <= tries:
        raise ValueError(f"pass@{k} is undefined for {right} correct of {tries} tries")
    if tries - right < k:
        return 1.0
    return 1.0 - prod(1.0 - k / count for count in range(tries - right + 1, tries + 1))


def paired_interval(pairs: Iterable[tuple[bool, bool]], z: float = _Z_95) -> tuple[float, float]:
    """The interval of the difference between two proportions on the same trials, second minus first.

    Newcombe 1998 (Improved confidence intervals for the difference between binomial proportions based on paired
    data), method 10: two Wilson intervals, combined with the correlation of the pairs. It stays within -1 and 1, and
    has a positive width even if all pairs agree.

    Raises:
        ValueError: there are no pairs.
    """
    counts = [0, 0, 0, 0]  # indexed by 2 * first + second
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
    if covariance > 0:  # the method's continuity correction
        covariance = max(covariance - trials / 2, 0.0)
    phi = covariance / sqrt(product) if product else 0.0

    def reach(one: float, other: float) -> float:
        return sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))

    difference = rate_2 - rate_1
    return (
        difference - reach(rate_2 - low_2, high_1 - rate_1),
        difference + reach(high_2 - rate_2, rate_1 - low_1),
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of a mean by Student's t; of zero width for a single value.

    For differences of paired means it is the interval of the paired t-test. If values are means over the samples of a
    problem, the problems are clusters, and correlations between samples of a problem do not matter.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the interval of no values is undefined")
    mean = fmean(values)
    half = t_quantile(len(values) - 1) * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return mean - half, mean + half


def t_quantile(freedom: int, coverage: float = 0.95) -> float:
    """The t for which the interval from -t to t has this share of Student's distribution.

    The share is a finite series in the angle atan(t / sqrt(freedom)) (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4),
    which is inverted by bisection.

    Raises:
        ValueError: less than one degree of freedom, or a coverage that is not between 0 and 1.
    """
    if freedom < 1 or not 0 < coverage < 1:
        raise ValueError(f"the {coverage} quantile is undefined for {freedom} degrees of freedom")
    low, high = 0.0, pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_share(middle, freedom) < coverage else (low, middle)
    return tan(low) * sqrt(freedom)


def _t_share(angle: float, freedom: int) -> float:
    """The share of Student's distribution within sqrt(freedom) * tan(angle) of 0."""
    odd = freedom % 2
    term, total = cos(angle) if odd else 1.0, 0.0
    for power in range(1 + odd, freedom, 2):  # each term is the previous one times power / (power + 1) * cos^2
        if term < 1e-17:
            break
        total += term
        term *= power / (power + 1) * cos(angle) ** 2
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
