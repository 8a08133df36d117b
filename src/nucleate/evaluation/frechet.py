"""Fréchet distance between two samples of features, and how much of it is the size of the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float

Item = TypeVar("Item")

RESAMPLES = 60
"""Bootstrap samples behind the deviation of a distance: it is known to a tenth."""

_SIZES = 8
_LEAST = 0.25


@dataclass(frozen=True)
class FrechetDistance:
    """A Fréchet distance with what is known of its bias.

    Attributes:
        value: the distance of the two samples, in squared units of the features.
        unbiased: its extrapolation to samples without end, the intercept of a line through the distances of
            subsamples against 1/size (Chong and Forsyth 2020); may fall below 0 by noise.
        split_half: mean distance of two halves of the reference, extrapolated to the sizes compared here: what
            a perfect generator would be given at these sizes.
        deviation: standard deviation of ``value`` under other sets of this size, by bootstrap of the set.
        unbiased_deviation: that of ``unbiased``: the same, and the error of the line, in quadrature.
        n, m: rows of the set and of the reference.
        num_features: columns.
    """

    value: float
    unbiased: float
    split_half: float
    deviation: float
    unbiased_deviation: float
    n: int
    m: int
    num_features: int

    @property
    def bias(self) -> float:
        """Part of ``value`` that comes from the finite samples."""
        return self.value - self.unbiased


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Squared Fréchet (2-Wasserstein) distance of the normal distributions with the samples' moments.

        d² = |μ_x - μ_y|² + tr(C_x + C_y - 2 (C_x C_y)^(1/2))

    (Dowson and Landau, J. Multivariate Anal. 12, 450, 1982; for samples of features Heusel et al. 2017). With
    centred rows X/sqrt(n-1) and Y/sqrt(m-1), ``tr (C_x C_y)^(1/2)`` is the sum of the singular values of
    ``X Y^T``: no square root of a matrix is taken, and samples with fewer rows than columns are no special case.

    Raises:
        InvalidStructureError: a sample has fewer than two rows, or values that are not finite.
    """
    for name, sample in (("set", x), ("reference", y)):
        if len(sample) < 2 or not np.isfinite(sample).all():
            raise InvalidStructureError(
                f"a Fréchet distance needs at least two rows of finite features; the {name} has "
                f"{len(sample)} rows, {int((~np.isfinite(sample)).any(axis=1).sum())} of them not finite"
            )
    mean = x.mean(axis=0) - y.mean(axis=0)
    first, second = _factor(x), _factor(y)
    fidelity = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    squares = (first**2).sum() + (second**2).sum()
    return float(max(0.0, mean @ mean + squares - 2 * fidelity))


def _factor(sample: np.ndarray) -> np.ndarray:
    """R with ``R^T R`` the covariance, at most as many rows as columns."""
    centred = (sample - sample.mean(axis=0)) / np.sqrt(len(sample) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


def frechet_with_bias(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], *, rng: np.random.Generator, repeats: int = 4
) -> FrechetDistance:
    """The distance of two samples with its bias, which is of order ``1/n + 1/m`` and grows with the features.

    Subsamples of both at eight sizes from a quarter to the whole (``repeats`` of each but the whole) give a line
    ``d²(s) = d²_inf + b / s`` by least squares, s the share of both samples used (Chong and Forsyth, CVPR 2020).
    The same line for disjoint halves of the reference, whose true distance is 0, is evaluated at the sizes n and
    m: the distance that a perfect generator would get. The deviation is that over bootstrap samples of the set.

    Raises:
        InvalidStructureError: a sample has fewer than eight rows, or values that are not finite.
    """
    n, m = len(x), len(y)
    if min(n, m) < 8:
        raise InvalidStructureError(
            f"the bias of a Fréchet distance needs at least eight rows of each sample, got {n} and {m}"
        )
    value = frechet_distance(x, y)
    inverse, found = [1.0], [value]
    for share in np.linspace(_LEAST, 1.0, _SIZES, endpoint=False):
        for _ in range(repeats):
            rows = rng.permutation(n)[: max(2, round(share * n))]
            others = rng.permutation(m)[: max(2, round(share * m))]
            inverse.append(1.0 / share)
            found.append(frechet_distance(x[rows], y[others]))
    (_, intercept), covariance = np.polyfit(inverse, found, 1, cov=True)
    null = []
    for _ in range(repeats):
        order = rng.permutation(m)
        null.append(frechet_distance(y[order[: m // 2]], y[order[m // 2 :]]))
    drawn = [frechet_distance(x[rng.integers(0, n, n)], y) for _ in range(RESAMPLES)]
    deviation = float(np.std(drawn, ddof=1))
    # Two halves have 1/h + 1/(m-h); the bias is proportional to that sum to first order.
    scale = (1 / n + 1 / m) / (1 / (m // 2) + 1 / (m - m // 2))
    return FrechetDistance(
        value=value,
        unbiased=float(intercept),
        split_half=float(np.mean(null) * scale),
        deviation=deviation,
        unbiased_deviation=float(np.hypot(deviation, np.sqrt(covariance[1, 1]))),
        n=n,
        m=m,
        num_features=x.shape[1],
    )


def frechet_of(
    feature: Callable[[Sequence[Item]], Float[np.ndarray, "rows d"]],
    crystals: Sequence[Item],
    reference: Sequence[Item],
    *,
    rng: np.random.Generator,
) -> FrechetDistance:
    """The distance of two sets of crystals in any feature: an embedding of a learned model, a fingerprint.

    Args:
        feature: crystals to one row of features each; rows with NaN are left out.
        crystals: the set.
        reference: what it is compared with.
        rng: draws the subsamples.

    Raises:
        InvalidStructureError: fewer than eight rows of a set are left.
    """
    rows = [np.asarray(feature(items), dtype=np.float64) for items in (crystals, reference)]
    x, y = (sample[~np.isnan(sample).any(axis=1)] for sample in rows)
    return frechet_with_bias(x, y, rng=rng)
