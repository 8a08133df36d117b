"""All images of one site under a group, with special positions recognised in spite of rounded digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.crystal.cell_checks import OVERLAP_DISTANCE
from nucleate.crystal.operation import OperationList
from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float, Int

MAX_MERGE_DISTANCE = 0.3
"""No rounding is believed to put images of one atom further apart than this (Å): no two nuclei are nearer."""

_FIXED = 1e-7  # Å; an averaged site is mapped onto itself to rounding
_MAX_ROUNDS = 50


@dataclass(frozen=True, eq=False)
class SiteImages:
    """Orbit of a site.

    Attributes:
        frac_coords: distinct images in [0, 1), in the order in which the operations first reach them.
        operation_to_image: for each operation, the image it carries the site to.
    """

    frac_coords: Float[np.ndarray, "images 3"]
    operation_to_image: Int[np.ndarray, "operations"]


def site_images(
    frac_coords: Float[np.ndarray, "3"],
    operations: OperationList,
    *,
    lattice: Float[np.ndarray, "3 3"],
    rounding: Float[np.ndarray, "3"],
) -> SiteImages:
    """Images of a site, first moved exactly onto its special position if its digits say it is on one.

    An operation fixes the site if what separates the image from the site, ``d = W x + t - n - x``, is
    explained by the digits of x: ``|d_i| <= sum_j |W_ij| e_j + e_i`` with e the last digit written, and
    less than 0.3 Å in all; or if it is less than 0.01 Å, where two atoms would be refused as one
    written twice. The site becomes the mean of its images under these operations, which they leave
    fixed; then its images either coincide to rounding or were meant to be apart.

    So 0.3333 and 0.67 are thirds in a cell of any size, while an atom written with nine digits stays
    where it is even if a mirror plane is 0.1 Å away, as in a generated or distorted crystal. A fixed
    tolerance fails one of the two: pymatgen's CifParser (1e-4 of each axis) leaves three atoms for one
    at 0.33, and gemmi (0.4 Å) merges atoms that only came near a plane.

    Args:
        frac_coords: the site as written.
        operations: a group, modulo the lattice.
        lattice: rows a, b, c in Å.
        rounding: one unit in the last digit written, for each coordinate.

    Raises:
        InvalidStructureError: the operations that fix the site within its digits are no group.
    """
    site = frac_coords - np.floor(frac_coords)
    explained = np.abs(operations.rotations) @ rounding + rounding
    for _ in range(_MAX_ROUNDS):
        images = operations.rotations @ site + operations.translations
        delta = images - site
        delta -= np.rint(delta)
        cartesian = delta @ lattice
        squared = np.einsum("ij,ij->i", cartesian, cartesian)
        fixing = (np.abs(delta) <= explained * (1 + 1e-6)).all(axis=1) & (squared < MAX_MERGE_DISTANCE**2)
        fixing |= squared < OVERLAP_DISTANCE**2
        if squared[fixing].max() < _FIXED**2:
            break
        site = site + delta[fixing].mean(axis=0)
    else:
        raise InvalidStructureError(
            f"{frac_coords.tolist()} is neither on a special position nor clearly off it"
        )
    images -= np.floor(images)
    images[images >= 1.0] = 0.0
    if fixing.sum() == 1:
        return SiteImages(images, np.arange(len(images)))
    delta = images[:, None] - images
    delta -= np.rint(delta)
    cartesian = delta @ lattice
    same = np.einsum("ijk,ijk->ij", cartesian, cartesian) < (100 * _FIXED) ** 2
    kept, operation_to_image = np.unique(same.argmax(axis=1), return_inverse=True)
    if len(kept) * fixing.sum() != len(operations):
        raise InvalidStructureError(
            f"its {len(kept)} images times {fixing.sum()} operations that fix it "
            f"are not the {len(operations)} of the group"
        )
    return SiteImages(images[kept], operation_to_image.astype(np.int64))
