"""How far the operations of a space group move a cell off itself, by spglib's table of operations."""

from __future__ import annotations

from functools import cache

import numpy as np
import spglib
from scipy.spatial import cKDTree

from nucleate.crystal import UnitCell

SAME_PLACE = 0.01
"""Distance in Å within which two atoms are in one place."""


@cache
def operations(hall_number: int) -> tuple[np.ndarray, np.ndarray]:
    """(rotations (n, 3, 3), translations (n, 3)) of a Hall number in spglib's database, centrings included."""
    table = spglib.get_symmetry_from_database(hall_number)
    return np.asarray(table["rotations"], dtype=float), np.asarray(table["translations"], dtype=float)


def largest_deviation(cell: UnitCell, hall_number: int) -> float:
    """The largest distance in Å between an atom's image and the nearest atom of its element, or of a cell vector.

        max over operations (W, w) and atoms a of  min_b |(W x_a + w - x_b mod 1) L|,   b of the element of a,
        and of the changes sqrt(|W^T G W - G|) of the metric G that W should leave alone, as |dG_ij| / sqrt(G_ii G_jj)
        times the longest vector.

    Infinite where two atoms share their nearest image, since the operation is then no permutation of the atoms. Only
    where two atoms of an element lie within ``SAME_PLACE`` of each other that says nothing, and the distance counts.

    Args:
        cell: conventional cell in the setting of the Hall number.
        hall_number: 1 to 530.
    """
    rotations, translations = operations(hall_number)
    metric = cell.lattice @ cell.lattice.T
    # rows of the lattice are vectors: those of the image cell are (W^T L), as x' = W x on columns
    turned = np.einsum("nji,jk,nkl->nil", rotations, metric, rotations)
    lengths = np.sqrt(np.diag(metric))
    worst = float((np.abs(turned - metric) / np.outer(lengths, lengths)).max() * lengths.max())
    for z in np.unique(cell.atomic_numbers):
        own = cell.frac_coords[cell.atomic_numbers == z]
        own = own - np.floor(own)
        own[own >= 1.0] = 0.0  # -1e-17 - floor(-1e-17) is 1
        images = np.einsum("nij,aj->nai", rotations, own) + translations[:, None]
        images = images - np.floor(images)
        images[images >= 1.0] = 0.0
        tree = cKDTree(own, boxsize=1.0)
        _, nearest = tree.query(images.reshape(-1, 3))
        apart = images.reshape(-1, 3) - own[nearest]
        apart -= np.rint(apart)
        worst = max(worst, float(np.linalg.norm(apart @ cell.lattice, axis=1).max()))
        if len(own) > 1 and not _permutes(nearest.reshape(len(rotations), len(own))):
            _, pairs = tree.query(own, k=2)
            gaps = own[pairs[:, 0]] - own[pairs[:, 1]]
            if np.linalg.norm((gaps - np.rint(gaps)) @ cell.lattice, axis=1).min() > SAME_PLACE:
                return float("inf")
    return worst


def _permutes(mapping: np.ndarray) -> bool:
    """Whether each row holds every atom once."""
    return bool((np.sort(mapping, axis=1) == np.arange(mapping.shape[1])).all())
