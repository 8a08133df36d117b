"""Magnetic moments of a magnetic CIF, carried to every image of their site as axial vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nucleate.crystal.cif_block import CifTags, parse_number, unquoted
from nucleate.crystal.operation import OperationList
from nucleate.crystal.site_images import SiteImages
from nucleate.errors import InvalidStructureError, ParseError
from nucleate.shapes import Float

MOMENT_TOLERANCE = 0.05
"""Largest change (μB) of a moment under an operation that fixes its site."""

LARGEST_MOMENT = 1e3
"""Component (μB) above which a number is no moment of an atom; real ones stay below 15."""


def read_moments(tags: CifTags, labels: Sequence[str]) -> Float[np.ndarray, "sites 3"] | None:
    """Moments in μB along a/|a|, b/|b|, c/|c| (the ``crystalaxis`` items), zero for unlisted sites.

    None if the block gives no moments.

    Raises:
        ParseError: moments in another frame only, or of a label that no site has.
    """
    names = tags.column("_atom_site_moment.label", "_atom_site_moment_label")
    if names is None:
        return None
    columns = [
        tags.column(f"_atom_site_moment.crystalaxis_{axis}", f"_atom_site_moment_crystalaxis_{axis}")
        for axis in "xyz"
    ]
    row_of = {label: row for row, label in enumerate(labels)}
    moments = np.zeros((len(labels), 3))
    for axis, column in enumerate(columns):
        if column is None or len(column) != len(names):
            raise ParseError(
                f"{tags.where}: magnetic moments without _atom_site_moment.crystalaxis_{'xyz'[axis]}; "
                "Cartesian and spherical components are not read"
            )
        for name, value in zip(names, column):
            label = unquoted(name)
            if label not in row_of:
                raise ParseError(f"{tags.where}: magnetic moment of {label!r}, which is no site label")
            moments[row_of[label], axis] = parse_number(value, what=f"{tags.where}: moment of site {label}")
    return moments


def image_moments(
    moment: Float[np.ndarray, "3"],
    images: SiteImages,
    *,
    operations: OperationList,
    lattice: Float[np.ndarray, "3 3"],
    site: str,
) -> Float[np.ndarray, "images 3"]:
    """Cartesian moments (μB) of all images of a site: ``m' = theta det(W) W m``, theta the time reversal.

    Args:
        moment: along the unit vectors of a, b, c.
        images: orbit of the site.
        operations: group with time reversals.
        lattice: rows a, b, c.
        site: what to call the site in an error.

    Raises:
        InvalidStructureError: the moment breaks the symmetry of its own site, or no atom could have it.
    """
    if not np.abs(moment).max() <= LARGEST_MOMENT:
        raise InvalidStructureError(
            f"{site}: its magnetic moment {moment.tolist()} is not one of an atom (at most {LARGEST_MOMENT:g} μB "
            "are read)"
        )
    along_lattice = moment / np.linalg.norm(lattice, axis=1)
    signs = operations.time_reversals * np.rint(np.linalg.det(operations.rotations))
    cartesian = (signs[:, None] * (operations.rotations @ along_lattice)) @ lattice
    num_images = len(images.frac_coords)
    means = np.zeros((num_images, 3))
    np.add.at(means, images.operation_to_image, cartesian)
    means /= np.bincount(images.operation_to_image, minlength=num_images)[:, None]
    deviation = float(np.linalg.norm(cartesian - means[images.operation_to_image], axis=1).max())
    if deviation > MOMENT_TOLERANCE:
        raise InvalidStructureError(
            f"{site}: its magnetic moment {moment.tolist()} breaks the magnetic symmetry of its position by "
            f"{deviation:.3g} μB"
        )
    return means
