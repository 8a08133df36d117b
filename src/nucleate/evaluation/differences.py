"""Whether two sets differ by more than chance: the difference of a number, its interval and its p-value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nucleate.errors import NucleateError
from nucleate.evaluation.statistics import (
    CONFIDENCE,
    Z95,
    bootstrap_ci,
    has_spread,
    wilson_interval,
)

# Relabellings are drawn until this many are as large as what was observed, or this many times ``resamples``.
_ENOUGH, _MOST_TIMES = 10, 5
# Numbers drawn at a time: 32 MB, whatever the size of the sample.
_BLOCK = 4_000_000

NO_SPREAD = "no interval: nothing varies in the samples"


@dataclass(frozen=True)
class Difference:
    """How much two sets differ in one metric.

    Attributes:
        value: first minus second.
        ci95: interval of the difference; None where the samples say nothing of it.
        p_value: chance of a difference at least this large, in either direction, if the sets were alike.
        n: sizes of the two samples; for pairs the number of pairs twice.
        paired: whether the values were compared pair by pair.
        method: how interval and p-value were computed, in words.
    """

    value: float
    ci95: tuple[float, float] | None
    p_value: float | None
    n: tuple[int, int]
    paired: bool
    method: str


def difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    statistic: Callable[[np.ndarray], float] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Difference:
    """Difference of a statistic between two independent samples.

    The interval is the percentile bootstrap of statistic(a*) - statistic(b*), both resampled; there is none where no
    resample differs from another. The p-value is the permutation test that relabels the pooled values (Fisher 1935;
    Phipson and Smyth 2010):

        p = (1 + #{|d_perm| >= |d|}) / (1 + relabellings)

    of ``resamples`` relabellings, up to five times as many while fewer than ten are as large (Besag and Clifford
    1991), so that a clear difference stays clear after the adjustment for the number of metrics.

    For the mean of flags all relabellings are counted at once: the True among the first n are hypergeometric; and
    the interval is Newcombe's (``interval_of_difference`` of Wilson's), which has a width at 0 and 100 % too.

    Args:
        a: first sample (n,), without missing values.
        b: second sample (m,).
        statistic: (n,) to a number, the mean unless given.
        seed: of both resamplings.
        resamples: bootstrap samples, and fewest relabellings.

    Raises:
        NucleateError: a sample is empty.
    """
    first, second = _two(a, b)
    value = _apply(statistic, first) - _apply(statistic, second)
    n, m = len(first), len(second)
    pooled = np.concatenate([first, second])
    if statistic is None and _are_flags(pooled):
        hits, total = int(first.sum()), int(pooled.sum())
        inner = [ends for ends in (wilson_interval(hits, n), wilson_interval(total - hits, m)) if ends]
        ends: tuple[float, float] | None = interval_of_difference(hits / n, (total - hits) / m, *inner)
        p_value = _exact_p(hits, total, n, m)
        how = "Newcombe's interval; p-value of all relabellings (hypergeometric)"
    else:
        rng = np.random.default_rng(seed)
        boot = np.empty(resamples)
        for i in range(resamples):
            one, other = first[rng.integers(0, n, n)], second[rng.integers(0, m, m)]
            boot[i] = _apply(statistic, one) - _apply(statistic, other)

        def relabelled(count: int) -> np.ndarray:
            drawn = np.empty(count)
            for i in range(count):
                shuffled = rng.permutation(pooled)
                drawn[i] = _apply(statistic, shuffled[:n]) - _apply(statistic, shuffled[n:])
            return drawn

        ends = _percentiles(boot)
        p_value, drawn = _permutation_p(relabelled, value, resamples)
        interval = f"bootstrap interval, {resamples:,} resamples" if ends else NO_SPREAD
        how = f"{interval}; permutation p-value, {drawn:,} relabellings"
    return Difference(
        value=value,
        ci95=ends,
        p_value=p_value,
        n=(n, m),
        paired=False,
        method=f"independent samples; {how}",
    )


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Difference:
    """Mean difference of values that answer the same question (the same target, the same id), pair by pair.

    Flags (every value 0 or 1) have Tango's interval and McNemar's exact p-value: of the pairs that differ, each is as
    likely to favour the one as the other. They are honest where no pair differs, or all do in the same way.

    Otherwise, with d_i = a_i - b_i, the interval is the bootstrap of mean(d) over pairs, and there is none where all
    d_i are equal; the p-value is the permutation test that exchanges a_i and b_i, that is flips the sign of each d_i,
    with as many flips as ``difference`` has relabellings.

    Args:
        a: first sample (n,), without missing values.
        b: second sample (n,), in the same order.
        seed: of both resamplings.
        resamples: bootstrap samples, and fewest flips.

    Raises:
        NucleateError: the samples are empty or of different lengths.
    """
    first, second = _two(a, b)
    if len(first) != len(second):
        raise NucleateError(
            f"Pairs need samples of equal length, got {len(first):,} and {len(second):,} values"
        )
    d = first - second
    n, value = len(d), float(d.mean())
    if _are_flags(first) and _are_flags(second):
        only_a, only_b = int((d > 0).sum()), int((d < 0).sum())
        ends: tuple[float, float] | None = tango_interval(only_a, only_b, n)
        p_value = _mcnemar_p(only_a, only_b)
        how = f"{only_a + only_b:,} of them differ; Tango's interval; McNemar's exact p-value"
    else:
        rng = np.random.default_rng([seed, 1])

        def flipped(count: int) -> np.ndarray:
            block = max(1, min(count, _BLOCK // n))
            signs = np.array([-1.0, 1.0])
            return np.concatenate(
                [
                    (rng.choice(signs, size=(min(block, count - i), n)) * d).mean(axis=1)
                    for i in range(0, count, block)
                ]
            )

        ends = bootstrap_ci(d, seed=seed, resamples=resamples)
        p_value, drawn = _permutation_p(flipped, value, resamples)
        interval = (
            f"bootstrap interval, {resamples:,} resamples"
            if ends
            else "no interval: all pairs differ by the same amount"
        )
        how = f"{interval}; sign-flip p-value, {drawn:,} flips"
    return Difference(
        value=value, ci95=ends, p_value=p_value, n=(n, n), paired=True, method=f"{n:,} pairs; {how}"
    )


def tango_interval(only_a: int, only_b: int, n: int, *, z: float = Z95) -> tuple[float, float]:
    """Score interval of the difference of two proportions of the same n pairs (Tango, Stat. Med. 17, 891, 1998).

    The differences Δ that a score test at this level does not refuse, |T(Δ)| <= z:

        T(Δ) = (b - c - n Δ) / sqrt(n (2q + Δ - Δ²)),     q = (sqrt(B² - 4 A C) - B) / 2A,
        A = 2n,   B = (2n - b + c) Δ - b - c,   C = -c Δ (1 - Δ),

    with b and c pairs that are True only in the first and only in the second set, and q the most likely share of the
    latter given Δ. Where no pair differs it is ± z²/(n + z²); the bootstrap has no width there.

    Args:
        only_a: pairs that are True in the first set only.
        only_b: pairs that are True in the second set only.
        n: all pairs.
        z: normal quantile of the level.

    Raises:
        ValueError: there are no pairs, or fewer than differ.
    """
    if min(only_a, only_b) < 0 or n < max(1, only_a + only_b):
        raise ValueError(f"{only_a} and {only_b} of {n} pairs cannot be")
    from scipy.optimize import brentq  # noqa: PLC0415  loads late

    def excess(delta: float) -> float:
        b2 = (2 * n - only_a + only_b) * delta - only_a - only_b
        root = math.sqrt(max(0.0, b2 * b2 + 8 * n * only_b * delta * (1 - delta)))
        q = (root - b2) / (4 * n)
        return (only_a - only_b - n * delta) ** 2 - z * z * n * (2 * q + delta * (1 - delta))

    middle, aside = (only_a - only_b) / n, 1e-9  # at the middle itself the excess may be 0
    low = -1.0 if only_b == n else float(brentq(excess, -1.0, middle - aside, xtol=1e-13))
    high = 1.0 if only_a == n else float(brentq(excess, middle + aside, 1.0, xtol=1e-13))
    return low, high


def interval_of_difference(
    a: float, b: float, ends_a: tuple[float, float], ends_b: tuple[float, float]
) -> tuple[float, float]:
    """Interval of a - b from the intervals of two independent estimates (Newcombe 1998; Zou and Donner 2008).

        L = (a - b) - sqrt((a - l_a)² + (u_b - b)²),   U = (a - b) + sqrt((u_a - a)² + (b - l_b)²)

    With Wilson's intervals of two proportions this is Newcombe's hybrid score interval.
    """
    low = math.hypot(max(a - ends_a[0], 0.0), max(ends_b[1] - b, 0.0))
    high = math.hypot(max(ends_a[1] - a, 0.0), max(b - ends_b[0], 0.0))
    return a - b - low, a - b + high


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for how many there are (Holm 1979), in the order given.

    Of many metrics one differs by chance; an adjusted value below 0.05 keeps the chance of even one false
    difference among all of them below 5 %.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _two(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if not len(first) or not len(second):
        raise NucleateError(f"Two samples are compared, got {len(first):,} and {len(second):,} values")
    return first, second


def _are_flags(values: np.ndarray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _apply(statistic: Callable[[np.ndarray], float] | None, values: np.ndarray) -> float:
    return float(values.mean()) if statistic is None else float(statistic(values))


def _percentiles(drawn: np.ndarray) -> tuple[float, float] | None:
    drawn = drawn[~np.isnan(drawn)]
    if not has_spread(drawn):
        return None
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _exact_p(hits: int, total: int, n: int, m: int) -> float:
    """Chance that of ``total`` True among n + m so many fall on the first n that the shares differ at least as much."""
    from scipy.stats import hypergeom  # noqa: PLC0415  loads late

    k = np.arange(max(0, total - m), min(n, total) + 1)
    differences = np.abs(k / n - (total - k) / m)
    extreme = differences >= abs(hits / n - (total - hits) / m) - 1e-12
    return float(min(1.0, hypergeom.pmf(k[extreme], n + m, total, n).sum()))


def _mcnemar_p(only_a: int, only_b: int) -> float:
    """Chance that fair coins divide the pairs that differ at least as unevenly (McNemar 1947, exact)."""
    from scipy.stats import binom  # noqa: PLC0415  loads late

    return float(min(1.0, 2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def _permutation_p(draw: Callable[[int], np.ndarray], value: float, resamples: int) -> tuple[float, int]:
    """(two-sided p-value, number of relabellings it rests on); ``draw`` gives so many differences under chance."""
    # A difference that rounding alone makes smaller than the observed one counts as large.
    least = abs(value) - 1e-12 * max(1.0, abs(value))
    drawn, extreme = 0, 0
    while not drawn or (extreme < _ENOUGH and drawn < _MOST_TIMES * resamples):
        extreme += int((np.abs(draw(resamples)) >= least).sum())
        drawn += resamples
    return (1 + extreme) / (1 + drawn), drawn
