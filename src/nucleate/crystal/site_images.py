"""All images of one site under a group, with special positions recognised in spite of rounded digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.crystal.operation import OperationList
from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float, Int

MERGE_DISTANCE = 0.3
"""Images of one site nearer than this (Å) are one atom on a special position."""

_FIXED = 1e-7  # Å; an averaged site is mapped onto itself to rounding
_MAX_ROUNDS = 8


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
    merge_distance: float = MERGE_DISTANCE,
) -> SiteImages:
    """Images of a site, after the site was moved exactly onto its special position if it is near one.

    The operations that carry the site to less than ``merge_distance`` from itself form its site-symmetry
    group S; the site becomes the mean of its images under S, ``x <- 1/|S| sum_S (W x + t - n)``, which S
    leaves fixed. Then its images either coincide to rounding or are further apart than any rounding makes
    them. A fixed distance in Å, not in fractional coordinates (pymatgen's CifParser takes 1e-4 of each axis),
    because three-digit thirds in a 20 Å cell are 0.02 Å apart and two-digit ones 0.1 Å, while no two nuclei
    are nearer than 0.7 Å: between those, 0.3 Å separates rounding from chemistry in every cell.

    Args:
        frac_coords: the site as written.
        operations: a group, modulo the lattice.
        lattice: rows a, b, c in Å.
        merge_distance: in Å.

    Raises:
        InvalidStructureError: the site lies at the rim of the distance, so that the operations near it are no
            group.
    """
    site = frac_coords - np.floor(frac_coords)
    for _ in range(_MAX_ROUNDS):
        images = operations.rotations @ site + operations.translations
        delta = images - site
        delta -= np.rint(delta)
        cartesian = delta @ lattice
        squared = np.einsum("ij,ij->i", cartesian, cartesian)
        fixing = squared < merge_distance**2
        if squared[fixing].max() < _FIXED**2:
            break
        site = site + delta[fixing].mean(axis=0)
    else:
        raise InvalidStructureError(
            f"its images at {frac_coords.tolist()} are about {merge_distance} Å apart: "
            "neither one atom nor several"
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
