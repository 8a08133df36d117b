"""How far the bonds of a set are from those of real crystals: Wasserstein distances of histograms, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from nucleate.evaluation.bond_statistics import MIN_VOTES
from nucleate.evaluation.statistics import normal_interval
from nucleate.shapes import Float, Int

RESAMPLES = 200


@dataclass(frozen=True)
class HistogramDistance:
    """A distance between histograms of a set of crystals and of a reference.

    Attributes:
        value: in the unit of the quantity; None where no class could be compared.
        ci95: value plus and minus 1.96 standard deviations of a bootstrap over crystals. The percentiles themselves
            lie above the value: resampling makes histograms rougher, and a distance only grows by that.
        num_crystals: crystals that have something to compare.
        covered: share of the set's votes in classes that the reference has in at least 20 crystals.
    """

    value: float | None
    ci95: tuple[float, float] | None
    num_crystals: int
    covered: float


def histogram_distance(
    crystals: Sequence[np.ndarray],
    classes: Int[np.ndarray, "classes"],
    histograms: Float[np.ndarray, "classes bins"],
    *,
    step: float,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> HistogramDistance:
    """Mean over classes of the first Wasserstein distance between two histograms, weighted by the set's votes.

        W = sum_c v_c W1(p_c, q_c) / sum_c v_c,    W1 = step * sum_b |P_c(b) - Q_c(b)|

    with v_c the crystals of the set that have class c (element pair, or element), p_c the set's histogram with one
    vote per crystal, q_c the reference's, P and Q their cumulative sums.

    Args:
        crystals: per crystal an array (entries, 3) of (class, bin, count), as in ``BondCounts``.
        classes: of the rows of ``histograms``, ascending.
        histograms: votes of the reference.
        step: width of a bin.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    usable = histograms.sum(axis=1) >= MIN_VOTES
    classes, histograms = classes[usable], histograms[usable]
    num_bins = histograms.shape[1]
    owners, columns, votes, outside = [], [], [], 0.0
    for owner, rows in enumerate(crystals):
        if not len(rows):
            continue
        _, inverse = np.unique(rows[:, 0], return_inverse=True)
        vote = rows[:, 2] / np.bincount(inverse, rows[:, 2])[inverse]
        place = np.searchsorted(classes, rows[:, 0]).clip(max=max(len(classes) - 1, 0))
        known = classes[place] == rows[:, 0] if len(classes) else np.zeros(len(rows), dtype=bool)
        outside += float(vote[~known].sum())
        owners.append(np.full(int(known.sum()), owner))
        columns.append(place[known] * num_bins + rows[known, 1])
        votes.append(vote[known])
    inside = float(sum(v.sum() for v in votes))
    if not inside:
        return HistogramDistance(None, None, 0, 0.0)
    row = np.concatenate(owners)
    members, row = np.unique(row, return_inverse=True)
    occupied, column = np.unique(np.concatenate(columns), return_inverse=True)
    matrix = csr_matrix((np.concatenate(votes), (row, column)), shape=(len(members), len(occupied)))
    present, place = np.unique(occupied // num_bins, return_inverse=True)
    flat = place * num_bins + occupied % num_bins
    reference = histograms[present]
    reference = np.cumsum(reference, axis=1) / reference.sum(axis=1, keepdims=True)

    def distance(weights: np.ndarray) -> float:
        dense = np.zeros(len(present) * num_bins)
        dense[flat] = weights @ matrix
        dense = dense.reshape(len(present), num_bins)
        totals = dense.sum(axis=1)
        shares = np.cumsum(dense, axis=1) / np.maximum(totals, 1e-300)[:, None]
        each = step * np.abs(shares - reference).sum(axis=1)
        return float((totals * each).sum() / totals.sum())

    value, count = distance(np.ones(len(members))), len(members)
    rng = np.random.default_rng(seed)
    drawn = [distance(np.bincount(rng.integers(0, count, count), minlength=count)) for _ in range(resamples)]
    deviation = float(np.std(drawn, ddof=1)) if count > 1 and resamples > 1 else math.nan
    ends = normal_interval(value, deviation, low=0.0)
    return HistogramDistance(value, ends, count, inside / (inside + outside))
