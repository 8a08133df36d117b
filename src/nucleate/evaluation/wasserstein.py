"""Wasserstein distance between two samples of a number, with an interval that knows its bias."""

from __future__ import annotations

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.evaluation.statistics import has_spread
from nucleate.shapes import Float

# Numbers in one block of resampled weights: 32 MB.
_BLOCK = 4_000_000


def wasserstein_distance(values: Float[np.ndarray, "n"], reference: Float[np.ndarray, "m"]) -> float:
    """The first Wasserstein distance ``W = integral |F(x) - F_ref(x)| dx`` of two samples, in their unit.

    F and F_ref are the empirical distribution functions. It is 0 for equal samples and positive for two samples
    of one distribution: :func:`expected_noise` says by how much.

    Raises:
        InvalidStructureError: a sample is empty or holds values that are not finite.
    """
    points, first, second = _merged(values, reference)
    return float(np.abs(first - second)[:-1] @ np.diff(points))


def wasserstein_interval(
    values: Float[np.ndarray, "n"],
    reference: Float[np.ndarray, "m"],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """Bootstrap interval of the distance, the set resampled and the reference held fixed; None where it is all equal.

    A resample lies further from the reference than the sample by the noise it adds, so the percentiles of the
    bootstrap distances W* are taken around their mean and moved to the distance that was found,
    ``W + quantile(W* - mean(W*))``, and cut at 0.

    Args:
        values: the set.
        reference: what it is compared with.
        rng: draws the resamples.
        resamples: how many.
        confidence: share of the distribution inside.

    Raises:
        InvalidStructureError: a sample is empty or holds values that are not finite.
    """
    n = len(values)
    points, _, cumulative = _merged(values, reference)
    if not has_spread(values):
        return None
    distinct, place = np.unique(values, return_inverse=True)
    share = np.bincount(place) / n
    slot = np.searchsorted(points, distinct)
    gaps = np.diff(points)
    block = max(1, _BLOCK // len(points))
    drawn = []
    for first in range(0, resamples, block):
        weights = np.zeros((min(block, resamples - first), len(points)))
        weights[:, slot] = rng.multinomial(n, share, size=len(weights)) / n
        drawn.append(np.abs(np.cumsum(weights, axis=1) - cumulative)[:, :-1] @ gaps)
    distances = np.concatenate(drawn)
    tails = np.quantile(distances - distances.mean(), [(1 - confidence) / 2, (1 + confidence) / 2])
    centre = wasserstein_distance(values, reference)
    return max(0.0, centre + float(tails[0])), centre + float(tails[1])


def expected_noise(reference: Float[np.ndarray, "m"], n: int) -> float:
    """Distance that n perfect draws of the reference's distribution have from these m ones, on average.

    The difference of two empirical distribution functions at x is normal with variance F (1 - F) (1/n + 1/m), so

        E W = sqrt(2/pi) sqrt(1/n + 1/m) integral sqrt(F(x) (1 - F(x))) dx

    (del Barrio, Giné and Matrán, Ann. Probab. 27, 1009, 1999). A distance of this size says nothing.

    Raises:
        InvalidStructureError: the reference is empty or holds values that are not finite.
    """
    points, share, _ = _merged(reference, reference)
    spread = float(np.sqrt(share * (1 - share))[:-1] @ np.diff(points))
    return float(np.sqrt(2 / np.pi * (1 / max(n, 1) + 1 / len(reference)))) * spread


def _merged(values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ascending distinct points, distribution function of the first at them, of the second)."""
    for name, sample in (("set", values), ("reference", reference)):
        if not len(sample) or not np.isfinite(sample).all():
            bad = int((~np.isfinite(sample)).sum())
            raise InvalidStructureError(
                f"a Wasserstein distance needs finite numbers; the {name} has {len(sample)} values, {bad} of them "
                "not finite"
            )
    points = np.unique(np.concatenate([values, reference]))
    first = np.searchsorted(np.sort(values), points, side="right") / len(values)
    second = np.searchsorted(np.sort(reference), points, side="right") / len(reference)
    return points, first, second
