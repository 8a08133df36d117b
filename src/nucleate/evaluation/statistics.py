"""Intervals and tests: how sure a number is, and whether two sets differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nucleate.errors import NucleateError
from nucleate.evaluation.metric import Metric

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""

CONFIDENCE = 0.95
FEW = 100
"""Below this many crystals a share is uncertain by more than about ±10 points."""

# Numbers drawn at a time: 32 MB, whatever the size of the sample.
_BLOCK = 4_000_000

Statistic = Callable[..., np.ndarray]


def wilson_interval(successes: int, n: int, *, z: float = Z95) -> tuple[float, float] | None:
    """Wilson's score interval of a proportion (Wilson 1927), None for n = 0.

        (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n),   p = successes / n

    It stays inside [0, 1] and is honest at 0 and n successes, where the bootstrap has no width.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} cannot be")
    if n == 0:
        return None
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def bootstrap_ci(
    values: ArrayLike,
    statistic: Statistic = np.mean,
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a statistic of one sample (Efron 1979), None for fewer than 2 values.

    Args:
        values: sample (n,); NaN is a value like any other, so leave missing ones out before.
        statistic: called as ``statistic(samples, axis=-1)`` on (resamples, n), like ``np.mean``.
        seed: of the resampling.
        resamples: bootstrap samples.
        confidence: share of the statistic's distribution that lies inside.
    """
    sample = np.asarray(values, dtype=np.float64)
    return bootstrap_indices(
        lambda indices: statistic(sample[indices], axis=-1),
        len(sample),
        seed=seed,
        resamples=resamples,
        confidence=confidence,
    )


def bootstrap_indices(
    statistic: Callable[[np.ndarray], ArrayLike],
    n: int,
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of anything that can be computed from rows drawn with repetition.

    Args:
        statistic: (block, n) row indices to (block,) values: RMSE, Wasserstein distance, ratio of two columns.
        n: number of rows.
        seed: of the resampling.
        resamples: bootstrap samples.
        confidence: share of the statistic's distribution that lies inside.

    Returns:
        The ends, or None for fewer than 2 rows; resamples whose value is NaN (an empty class) are left out.
    """
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, _BLOCK // n))
    found = []
    for first in range(0, resamples, block):
        indices = rng.integers(0, n, size=(min(block, resamples - first), n))
        found.append(np.asarray(statistic(indices), dtype=np.float64).reshape(-1))
    drawn = np.concatenate(found)
    if len(drawn) != resamples:
        raise ValueError(f"the statistic gave {len(drawn)} values for {resamples} resamples")
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return None
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def normal_interval(
    value: float, deviation: float, *, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float] | None:
    """``value ± 1.96 deviation`` inside ``low`` and ``high``; None where the deviation is not known."""
    if not math.isfinite(deviation):
        return None
    return max(low, value - Z95 * deviation), min(high, value + Z95 * deviation)


def small_sample_note(n: int, *, least: int = FEW) -> str:
    """What to say of a number over ``n`` crystals; empty where they are enough."""
    if n >= least:
        return ""
    return f"only {n:,} crystals: fewer than {least:,} say little" if n else "no crystals"


def proportion(
    name: str,
    flags: Sequence[bool | None] | ArrayLike,
    *,
    protocol: str,
    better: str = "higher",
    note: str = "",
    column: str = "",
    answers: Mapping[Hashable, float] | None = None,
) -> Metric:
    """The share of True with Wilson's interval; None (not measured) is left out of both counts.

    Args:
        name: key of the metric.
        flags: one per crystal.
        protocol: everything that must be equal for two values to be comparable.
        better: ``higher``, ``lower`` or empty.
        note: what the reader must know; a warning of few crystals is added.
        column: column of the table that holds the flags, for comparing two sets.
        answers: the flags by question, where each answers one, for comparing two sets pair by pair.
    """
    known = [bool(flag) for flag in np.asarray(flags, dtype=object).reshape(-1) if flag is not None]
    n, successes = len(known), sum(known)
    return Metric(
        name=name,
        value=successes / n if n else None,
        n=n,
        ci95=wilson_interval(successes, n),
        protocol=protocol,
        unit="share",
        better=better,
        note="; ".join(filter(None, [note, small_sample_note(n)])),
        column=column,
        answers=answers,
        successes=successes,
    )


def mean_metric(
    name: str,
    values: ArrayLike,
    *,
    protocol: str,
    unit: str = "",
    better: str = "",
    seed: int = 0,
    resamples: int = 1000,
    note: str = "",
    column: str = "",
    statistic: Statistic = np.mean,
    answers: Mapping[Hashable, float] | None = None,
) -> Metric:
    """The mean (or another statistic) of a column with its bootstrap interval; NaN and None are left out.

    Args:
        name: key of the metric.
        values: one per crystal.
        protocol: everything that must be equal for two values to be comparable.
        unit: unit of the values.
        better: ``higher``, ``lower`` or empty.
        seed: of the bootstrap.
        resamples: bootstrap samples.
        note: what the reader must know; a warning of few crystals is added.
        column: column of the table that holds the values, for comparing two sets.
        statistic: called as ``statistic(samples, axis=-1)``.
        answers: the values by question, where each answers one, for comparing two sets pair by pair.
    """
    sample = numbers(values)
    return Metric(
        name=name,
        value=float(statistic(sample, axis=-1)) if len(sample) else None,
        n=len(sample),
        ci95=_interval_of(sample, statistic, unit=unit, seed=seed, resamples=resamples),
        protocol=protocol,
        unit=unit,
        better=better,
        note="; ".join(filter(None, [note, small_sample_note(len(sample))])),
        column=column,
        answers=answers,
        statistic=None if statistic is np.mean else (lambda v: float(statistic(v, axis=-1))),
    )


def _interval_of(
    sample: np.ndarray, statistic: Statistic, *, unit: str, seed: int, resamples: int
) -> tuple[float, float] | None:
    """Bootstrap interval; Wilson's where every crystal has the share 0, or 1, and the bootstrap has no width."""
    mean_share = unit == "share" and statistic is np.mean and len(sample) > 0
    if mean_share and sample[0] in (0.0, 1.0) and (sample == sample[0]).all():
        return wilson_interval(int(sample.sum()), len(sample))
    return bootstrap_ci(sample, statistic, seed=seed, resamples=resamples)


def numbers(values: ArrayLike) -> np.ndarray:
    """The values (n,) as floats without those that are None or NaN; True is 1."""
    sample = np.array([np.nan if v is None else v for v in np.asarray(values, dtype=object)], dtype=float)
    return sample[~np.isnan(sample)]


@dataclass(frozen=True)
class Difference:
    """How much two sets differ in one metric.

    Attributes:
        value: first minus second.
        ci95: interval of the difference.
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

    The interval is the percentile bootstrap of statistic(a*) - statistic(b*), both resampled. The p-value is
    the permutation test that relabels the pooled values (Fisher 1935; Phipson and Smyth 2010):

        p = (1 + #{|d_perm| >= |d|}) / (1 + resamples)

    For the mean of flags all relabellings are counted at once: the True among the first n are hypergeometric; and
    the interval is Newcombe's (``interval_of_difference`` of Wilson's), which has a width at 0 and 100 % too.

    Args:
        a: first sample (n,), without missing values.
        b: second sample (m,).
        statistic: (n,) to a number, the mean unless given.
        seed: of both resamplings.
        resamples: bootstrap samples and relabellings.

    Raises:
        NucleateError: a sample is empty.
    """
    first, second = _two(a, b)
    value = _apply(statistic, first) - _apply(statistic, second)
    rng = np.random.default_rng(seed)
    n, m = len(first), len(second)
    pooled = np.concatenate([first, second])
    if statistic is None and np.isin(pooled, (0.0, 1.0)).all():
        hits, total = int(first.sum()), int(pooled.sum())
        inner = [ends for ends in (wilson_interval(hits, n), wilson_interval(total - hits, m)) if ends]
        ends: tuple[float, float] | None = interval_of_difference(hits / n, (total - hits) / m, *inner)
        p_value = _exact_p(hits, total, n, m)
        how = "Newcombe's interval; p-value of all relabellings (hypergeometric)"
    else:
        boot, permuted = np.empty(resamples), np.empty(resamples)
        for i in range(resamples):
            one, other = first[rng.integers(0, n, n)], second[rng.integers(0, m, m)]
            boot[i] = _apply(statistic, one) - _apply(statistic, other)
            shuffled = rng.permutation(pooled)
            permuted[i] = _apply(statistic, shuffled[:n]) - _apply(statistic, shuffled[n:])
        ends = _percentiles(boot)
        p_value = _two_sided(permuted, value)
        how = f"bootstrap interval and permutation p-value, {resamples:,} resamples each"
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

    With d_i = a_i - b_i the interval is the bootstrap of mean(d) over pairs; the p-value is the permutation
    test that exchanges a_i and b_i, that is flips the sign of each d_i.

    Raises:
        NucleateError: the samples are empty or of different lengths.
    """
    first, second = _two(a, b)
    if len(first) != len(second):
        raise NucleateError(
            f"Pairs need samples of equal length, got {len(first):,} and {len(second):,} values"
        )
    d = first - second
    value = float(d.mean())
    rng = np.random.default_rng([seed, 1])
    block = max(1, _BLOCK // len(d))
    flipped = [
        (rng.choice(np.array([-1.0, 1.0]), size=(min(block, resamples - i), len(d))) * d).mean(axis=1)
        for i in range(0, resamples, block)
    ]
    return Difference(
        value=value,
        ci95=bootstrap_ci(d, seed=seed, resamples=resamples),
        p_value=_two_sided(np.concatenate(flipped), value),
        n=(len(d), len(d)),
        paired=True,
        method=f"{len(d):,} pairs; bootstrap interval and sign-flip p-value, {resamples:,} resamples each",
    )


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


def _apply(statistic: Callable[[np.ndarray], float] | None, values: np.ndarray) -> float:
    return float(values.mean()) if statistic is None else float(statistic(values))


def _percentiles(drawn: np.ndarray) -> tuple[float, float] | None:
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
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


def _two_sided(drawn: np.ndarray, value: float) -> float:
    # A difference that rounding alone makes smaller than the observed one counts as large.
    extreme = np.abs(drawn) >= abs(value) - 1e-12 * max(1.0, abs(value))
    return float((1 + extreme.sum()) / (1 + len(drawn)))
