"""Intervals: how sure a number is. Whether two sets differ by more than chance: ``differences``."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

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
    """Percentile bootstrap interval of a statistic of one sample (Efron 1979).

    None for fewer than 2 values, and where all are equal: every resample is then the sample itself, and the width of
    zero would say that the number is certain.

    Args:
        values: sample (n,); NaN is a value like any other, so leave missing ones out before.
        statistic: called as ``statistic(samples, axis=-1)`` on (resamples, n), like ``np.mean``.
        seed: of the resampling.
        resamples: bootstrap samples.
        confidence: share of the statistic's distribution that lies inside.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not has_spread(sample):
        return None
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
    """``value ± 1.96 deviation`` inside ``low`` and ``high``; None where the deviation is not known, or 0.

    A deviation of 0 is that of a sample without any variation, which says nothing of what another sample would give.
    """
    if not math.isfinite(deviation) or deviation == 0:
        return None
    return max(low, value - Z95 * deviation), min(high, value + Z95 * deviation)


def has_spread(values: np.ndarray) -> bool:
    """Whether two of the values (n,) differ by more than rounding."""
    if len(values) < 2:
        return False
    return bool(np.ptp(values) > 1e-12 * max(1.0, float(np.abs(values).max())))


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

    Values that are all equal have no interval, and a note says so; a mean share of 0 or 1 has Wilson's.

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
    ends = _interval_of(sample, statistic, unit=unit, seed=seed, resamples=resamples)
    certain = f"all {len(sample):,} values are equal: no interval" if ends is None and len(sample) > 1 else ""
    return Metric(
        name=name,
        value=float(statistic(sample, axis=-1)) if len(sample) else None,
        n=len(sample),
        ci95=ends,
        protocol=protocol,
        unit=unit,
        better=better,
        note="; ".join(filter(None, [note, certain, small_sample_note(len(sample))])),
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
