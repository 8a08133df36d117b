"""Diversity: how many different things a set effectively holds, and how many of the reference's it reaches."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float


@dataclass(frozen=True)
class Diversity:
    """How a set spreads over kinds (elements, space groups, prototypes).

    Attributes:
        n: draws that were counted.
        distinct: kinds that occur.
        effective: ``exp(H)``, H the Shannon entropy with the correction of Miller and Madow: the number of
            equally frequent kinds with the same entropy (Hill number of order 1).
        unseen: lower bound of the kinds that n draws have not shown (Chao 1984).
        coverage: share of the reference's kinds that occur; None without a reference.
    """

    n: int
    distinct: int
    effective: float
    unseen: float
    coverage: float | None


def diversity(kinds: Iterable[Hashable], *, reference: Collection[Hashable] | None = None) -> Diversity:
    """How a set spreads over kinds.

        H = - sum_k p_k ln p_k + (K - 1) / 2n,   p_k = n_k / n

    The correction removes the first order of the bias of the entropy of n draws (Miller 1955); with f1 kinds seen
    once and f2 seen twice the unseen ones are at least ``f1 (f1 - 1) / 2 (f2 + 1)`` (Chao, Scand. J. Stat. 11,
    265, 1984). The effective number is not more than n.

    Args:
        kinds: one per draw.
        reference: kinds of the reference.
    """
    counts: dict[Hashable, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    found = None
    if reference is not None:
        wanted = set(reference)
        found = len(wanted & counts.keys()) / len(wanted) if wanted else None
    n = sum(counts.values())
    if not n:
        return Diversity(0, 0, 0.0, 0.0, found)
    numbers = np.array(sorted(counts.values()), dtype=np.float64)
    p = numbers / n
    entropy = float(-(p @ np.log(p))) + (len(p) - 1) / (2 * n)
    once, twice = int((numbers == 1).sum()), int((numbers == 2).sum())
    return Diversity(
        n=n,
        distinct=len(p),
        effective=float(min(np.exp(entropy), n)),
        unseen=once * (once - 1) / (2 * (twice + 1)),
        coverage=found,
    )


def entropy_deviation(kinds: Sequence[Hashable], *, owners: Sequence[int] | None = None) -> float:
    """Standard deviation of the entropy ln(effective number) under other samples of the same size; 0 for none.

    The crystals are the draws, also where each has several kinds (elements). With N entries of n crystals and
    ``p_k = n_k / N`` the influence of crystal i on H and the variance are

        I_i = n/N sum over its entries (- ln p_k - H),      Var H = sum_i I_i² / n²

    which for one entry per crystal is ``(sum_k p_k ln² p_k - H²) / n`` (Basharin, Theory Probab. Appl. 4, 333, 1959).

    Args:
        kinds: one per entry.
        owners: the crystal each entry belongs to; every entry its own unless given.
    """
    if not len(kinds):
        return 0.0
    _, codes = np.unique(np.array([str(kind) for kind in kinds]), return_inverse=True)
    p = np.bincount(codes) / len(codes)
    surprise = -np.log(p[codes])
    excess = surprise - surprise.mean()
    if owners is not None:
        _, owner = np.unique(np.asarray(owners), return_inverse=True)
        excess = np.bincount(owner, weights=excess)
    n = len(excess)
    return float(np.sqrt(((excess * n / len(codes)) ** 2).sum()) / n)


def vendi_score(similarity: Float[np.ndarray, "n n"]) -> float:
    """The Vendi score (Friedman and Dieng, TMLR 2023): effective number of different items.

        VS = exp(- sum_i λ_i ln λ_i),   λ the eigenvalues of K / n,

    K the similarities, with ones on the diagonal. It is 1 if all items are the same, n if none resembles another,
    and k for k groups of equal size.

    Raises:
        InvalidStructureError: K is not square and symmetric with ones on the diagonal, or holds no item.
    """
    k = np.asarray(similarity)
    if not len(k) or k.shape != (len(k), len(k)) or not np.allclose(k, k.T) or not np.allclose(np.diag(k), 1):
        raise InvalidStructureError(
            f"a Vendi score needs a symmetric matrix of similarities with ones on its diagonal, got {k.shape}"
        )
    return _exp_entropy(np.linalg.eigvalsh(k / len(k)))


@dataclass(frozen=True)
class VendiScore:
    """A Vendi score with what it would vary by.

    Attributes:
        value: the score.
        deviation: standard deviation of its logarithm under other samples of the same size.
    """

    value: float
    deviation: float


def gaussian_vendi_score(
    features: Float[np.ndarray, "n d"], *, width: float, largest: int = 2000
) -> VendiScore:
    """Vendi score of rows of features with similarity ``exp(-|x - y|² / 2 width²)``.

    Equal rows are counted once with their weight, which leaves the score as it is: the eigenvalues of
    ``sqrt(w) K sqrt(w)`` over distinct rows are the non-zero ones of K / n. With its eigenvectors u_k the influence
    of row i on the entropy H, and so the variance, are

        I_i = - sum_k (λ_k u_ik² / w_i) ln λ_k - H,      Var H = sum_i w_i I_i² / n

    Args:
        features: one row per item.
        width: distance at which two items are alike to ``exp(-1/2)``.
        largest: most distinct rows; the matrix has that many squared.

    Raises:
        InvalidStructureError: no rows, or more distinct ones than ``largest``.
    """
    rows, counts = np.unique(features, axis=0, return_counts=True)
    if not len(rows) or len(rows) > largest:
        raise InvalidStructureError(
            f"a Vendi score is computed of 1 to {largest} distinct rows, got {len(rows)}: take a sample"
        )
    from scipy.spatial.distance import cdist  # noqa: PLC0415  loads late

    root = np.sqrt(counts / counts.sum())
    similarity = np.exp(-0.5 * (cdist(rows, rows) / width) ** 2)
    eigenvalues, vectors = np.linalg.eigh(root[:, None] * similarity * root)
    kept = eigenvalues > 1e-12
    positive = eigenvalues[kept]
    surprise = -(vectors[:, kept] ** 2) @ (positive * np.log(positive)) / root**2
    excess = surprise - root**2 @ surprise
    deviation = float(np.sqrt(root**2 @ excess**2 / counts.sum()))
    return VendiScore(_exp_entropy(eigenvalues), deviation)


def _exp_entropy(eigenvalues: np.ndarray) -> float:
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(positive @ np.log(positive))))


def mean_pairwise_distance(features: Float[np.ndarray, "n d"]) -> tuple[float, float]:
    """(mean Euclidean distance of the pairs of rows, its standard deviation); NaN for fewer than 2 and 3 rows.

    The mean is the diversity of CDVAE (Xie et al. 2022). Pairs share rows, so its deviation is the jackknife's: with
    θ_i the mean without row i, ``Var = (n - 1)/n sum_i (θ_i - mean θ)²`` (Arvesen, Ann. Math. Stat. 40, 2076, 1969).
    """
    n = len(features)
    if n < 2:
        return float("nan"), float("nan")
    from scipy.spatial.distance import pdist, squareform  # noqa: PLC0415  loads late

    pairs = pdist(features)
    if n < 3:
        return float(pairs.mean()), float("nan")
    without = (pairs.sum() - squareform(pairs).sum(axis=1)) * 2 / ((n - 1) * (n - 2))
    return float(pairs.mean()), float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def rarefaction(
    counts: Sequence[int], sizes: Sequence[int], *, total: int | None = None
) -> Float[np.ndarray, "sizes"]:
    """Expected number of kinds among k draws without repetition from counted ones (Hurlbert 1971).

        E_k = sum_i [1 - C(n - n_i, k) / C(n, k)]

    Sets of different size are compared at the same k.

    Args:
        counts: n_i, draws of each kind that counts.
        sizes: numbers k of draws.
        total: n, where there are draws beside the counted ones.

    Raises:
        InvalidStructureError: a k above the number of draws.
    """
    from scipy.special import gammaln  # noqa: PLC0415  loads late

    numbers = np.asarray(counts, dtype=np.float64)
    n = float(numbers.sum() if total is None else total)
    k = np.asarray(sizes, dtype=np.float64)[:, None]
    if k.size and (k.max() > n or k.min() < 0):
        raise InvalidStructureError(f"rarefaction to {k.max():g} draws needs as many, got {n:g}")
    rest = n - numbers[None, :]
    log_missed = (
        gammaln(rest + 1) - gammaln(np.maximum(rest - k, 0) + 1) - gammaln(n + 1) + gammaln(n - k + 1)
    )
    return (1 - np.where(rest >= k, np.exp(log_missed), 0.0)).sum(axis=1)
