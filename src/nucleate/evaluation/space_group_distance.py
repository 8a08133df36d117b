"""How far the space groups of a set are from those of real crystals, in the measures of the literature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nucleate.shapes import Float, Int

NUM_GROUPS = 230

Shares = Float[np.ndarray, "230"]


def group_shares(numbers: Int[np.ndarray, "crystals"]) -> Shares:
    """Share of each of the 230 groups among the crystals; zeros where there are none."""
    counts = np.bincount(numbers, minlength=NUM_GROUPS + 1)[1:].astype(float)
    return counts / max(counts.sum(), 1.0)


def chi_square(found: Shares, reference: Shares) -> float:
    """Pearson's statistic of shares, as in WyFormer.

        chi^2 = sum over groups with q_g > 0 of (p'_g - q_g)^2 / q_g,    p' = p restricted to them, renormalised

    Crystals in groups that the reference does not have are left out (published that way), so a set that lies wholly
    outside has no value (NaN). It is dominated by groups that are rare in the reference, and an unbiased sample of n
    crystals of the reference itself scores about (groups - 1) / n: compare only equal n.

    Source: N. Kazeev et al., Wyckoff Transformer, ICML 2025, ``get_sg_chi2`` of its code.
    """
    known = reference > 0
    total = found[known].sum()
    if total <= 0:
        return float("nan")
    return float(((found[known] / total - reference[known]) ** 2 / reference[known]).sum())


def jensen_shannon(found: Shares, reference: Shares) -> float:
    """Jensen-Shannon distance, the square root of the divergence in base 2: 0 for equal, 1 for disjoint sets.

    sqrt( H((p + q) / 2) - H(p) / 2 - H(q) / 2 )
    """

    def entropy(shares: np.ndarray) -> float:
        inside = shares[shares > 0]
        return float(-(inside * np.log2(inside)).sum())

    divergence = entropy((found + reference) / 2) - (entropy(found) + entropy(reference)) / 2
    return max(divergence, 0.0) ** 0.5


def total_variation(found: Shares, reference: Shares) -> float:
    """Half the sum of absolute differences: the share of crystals that would have to change group."""
    return float(np.abs(found - reference).sum() / 2)


def number_wasserstein(found: Shares, reference: Shares) -> float:
    """First Wasserstein distance between the *numbers* of the groups, as in SymmCD.

    Group numbers are no scale (Fm-3m is not 224 times P1), but their order follows symmetry roughly.

    Source: D. Levy et al., SymmCD, ICLR 2025, ``wdist_spacegroup`` of its code.
    """
    return float(np.abs(np.cumsum(found - reference)).sum())


@dataclass(frozen=True)
class GroupMeasure:
    """A distance between shares of space groups.

    Attributes:
        name: key of the metric.
        distance: of (found, reference).
        words: what it is, for protocols.
    """

    name: str
    distance: Callable[[np.ndarray, np.ndarray], float]
    words: str


MEASURES = (
    GroupMeasure(
        "space_group_chi2", chi_square, "chi-square of shares over the reference's groups (WyFormer)"
    ),
    GroupMeasure("space_group_js", jensen_shannon, "Jensen-Shannon distance of shares, base 2"),
    GroupMeasure("space_group_tv", total_variation, "total variation, half the L1 distance of shares"),
    GroupMeasure("w_space_group", number_wasserstein, "Wasserstein distance of group numbers (SymmCD)"),
)
"""All distances of space groups that the summary holds."""


def resampled_spread(
    numbers: Int[np.ndarray, "crystals"],
    reference: Shares,
    distance: Callable[[np.ndarray, np.ndarray], float],
    *,
    rng: np.random.Generator,
    resamples: int,
) -> float:
    """Standard deviation of a distance over bootstrap samples of the crystals; NaN for fewer than 2."""
    n = len(numbers)
    if n < 2 or resamples < 2:
        return float("nan")
    drawn = rng.multinomial(n, group_shares(numbers), size=resamples) / n
    found = np.array([distance(shares, reference) for shares in drawn])
    found = found[np.isfinite(found)]  # the chi-square has no value where a group is not the reference's
    return float(found.std(ddof=1)) if len(found) > 1 else float("nan")
