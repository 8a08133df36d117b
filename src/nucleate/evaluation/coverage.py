"""Coverage: how much of a reference a set reaches (recall), and how much of the set lies near it (precision)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.shapes import Bool, Float

STRUCTURE_CUTOFFS = {"mp_20": 0.4, "carbon_24": 0.2, "perov_5": 0.2}
"""Published cut-offs on the structure fingerprint, by data set (CDVAE, Xie et al. 2022)."""
COMPOSITION_CUTOFFS = {"mp_20": 10.0, "carbon_24": 4.0, "perov_5": 4.0}
"""Published cut-offs on the standardised composition fingerprint, by data set."""

_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Coverage:
    """Nearest distances between a set and a reference in both fingerprints, and what they cover.

    Attributes:
        recall_structure, recall_composition: distance of each reference crystal to the nearest of the set.
        precision_structure, precision_composition: distance of each crystal of the set to the nearest of the
            reference, NaN for a crystal without fingerprints.
        covered: reference crystals with both distances inside the cut-offs.
        precise: crystals of the set with both distances inside the cut-offs; False without fingerprints.
    """

    recall_structure: Float[np.ndarray, "reference"]
    recall_composition: Float[np.ndarray, "reference"]
    precision_structure: Float[np.ndarray, "crystals"]
    precision_composition: Float[np.ndarray, "crystals"]
    covered: Bool[np.ndarray, "reference"]
    precise: Bool[np.ndarray, "crystals"]

    @property
    def recall(self) -> float:
        """COV-R: share of the reference that is covered."""
        return float(self.covered.mean())

    @property
    def precision(self) -> float:
        """COV-P: share of the set that lies near the reference; crystals without fingerprints count as not."""
        return float(self.precise.mean()) if len(self.precise) else 0.0


def coverage(
    structure: Float[np.ndarray, "crystals s"],
    composition: Float[np.ndarray, "crystals c"],
    *,
    reference_structure: Float[np.ndarray, "reference s"],
    reference_composition: Float[np.ndarray, "reference c"],
    structure_cutoff: float = STRUCTURE_CUTOFFS["mp_20"],
    composition_cutoff: float = COMPOSITION_CUTOFFS["mp_20"],
) -> Coverage:
    """Coverage of a reference R by a set G, as in CDVAE (Xie et al. 2022; after Xu et al. 2021, GeoMol).

        COV-R = |{r in R : min_g |s_r - s_g| <= d_s  and  min_g |c_r - c_g| <= d_c}| / |R|
        COV-P = |{g in G : min_r |s_g - s_r| <= d_s  and  min_r |c_g - c_r| <= d_c}| / |G|

    with Euclidean distances. The two minima are independent, as in the published code: the crystal near in
    structure and the one near in composition need not be the same. Both shares grow with the size of the
    other set.

    Args:
        structure, composition: fingerprints of the set, one row per crystal; a row with NaN is a crystal
            without fingerprint, which counts in the denominator of COV-P only.
        reference_structure, reference_composition: the same for the reference; rows with NaN are left out.
        structure_cutoff: d_s.
        composition_cutoff: d_c.

    Raises:
        InvalidStructureError: the reference has no row with both fingerprints.
    """
    good = ~(np.isnan(structure).any(axis=1) | np.isnan(composition).any(axis=1))
    kept = ~(np.isnan(reference_structure).any(axis=1) | np.isnan(reference_composition).any(axis=1))
    if not kept.any():
        raise InvalidStructureError(
            f"coverage needs a reference with fingerprints; none of its {len(kept)} crystals has both"
        )
    to_set_s, to_reference_s = nearest_distances(structure[good], reference_structure[kept])
    to_set_c, to_reference_c = nearest_distances(composition[good], reference_composition[kept])
    precision_s, precision_c = np.full(len(good), np.nan), np.full(len(good), np.nan)
    precision_s[good], precision_c[good] = to_reference_s, to_reference_c
    return Coverage(
        recall_structure=to_set_s,
        recall_composition=to_set_c,
        precision_structure=precision_s,
        precision_composition=precision_c,
        covered=(to_set_s <= structure_cutoff) & (to_set_c <= composition_cutoff),
        precise=(precision_s <= structure_cutoff) & (precision_c <= composition_cutoff),
    )


def nearest_distances(
    points: Float[np.ndarray, "n d"], reference: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "n"]]:
    """(distance of each reference row to the nearest point, of each point to the nearest reference row).

    Infinite where the other set is empty. Works block by block: never more than 512 rows of distances at once.
    """
    to_points = np.full(len(reference), np.inf)
    to_reference = np.full(len(points), np.inf)
    if not len(points) or not len(reference):
        return to_points, to_reference
    from scipy.spatial.distance import cdist  # noqa: PLC0415  loads late

    for start in range(0, len(points), _BLOCK):
        block = cdist(points[start : start + _BLOCK], reference)
        to_reference[start : start + _BLOCK] = block.min(axis=1)
        np.minimum(to_points, block.min(axis=0), out=to_points)
    return to_points, to_reference
