"""Lattice lengths and angles, and the matrix they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float


def lattice_from_parameters(
    parameters: Sequence[float], *, name: str = "the structure"
) -> Float[np.ndarray, "3 3"]:
    """Lattice rows a, b, c of lengths a, b, c (Å) and angles alpha, beta, gamma (degrees).

    The frame is pymatgen's: c along z, a in the xz plane,
    ``a = a (sin beta, 0, cos beta)``, ``b = b (-sin alpha cos gamma*, sin alpha sin gamma*, cos alpha)``.

    Raises:
        InvalidStructureError: a length that is not positive, an angle outside (0, 180), or three angles that
            close no cell.
    """
    a, b, c, alpha, beta, gamma = parameters
    if not (min(a, b, c) > 0 and math.isfinite(a + b + c)):
        raise InvalidStructureError(
            f"{name} has the cell lengths {a:g}, {b:g}, {c:g} Å; they must be positive"
        )
    if not (min(alpha, beta, gamma) > 0 and max(alpha, beta, gamma) < 180):
        raise InvalidStructureError(
            f"{name} has the cell angles {alpha:g}, {beta:g}, {gamma:g}; they must be between 0 and 180"
        )
    cos_alpha, cos_beta, cos_gamma = (math.cos(math.radians(angle)) for angle in (alpha, beta, gamma))
    sin_alpha, sin_beta = math.sin(math.radians(alpha)), math.sin(math.radians(beta))
    cos_gamma_star = (cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)
    if not abs(cos_gamma_star) < 1:
        raise InvalidStructureError(
            f"{name} has the cell angles {alpha:g}, {beta:g}, {gamma:g}, which close no cell: "
            "each must be smaller than the sum of the other two, and their sum smaller than 360 degrees"
        )
    sin_gamma_star = math.sqrt(1 - cos_gamma_star**2)
    return np.array(
        (
            (a * sin_beta, 0.0, a * cos_beta),
            (-b * sin_alpha * cos_gamma_star, b * sin_alpha * sin_gamma_star, b * cos_alpha),
            (0.0, 0.0, c),
        )
    )


def parameters_from_lattice(
    lattice: Float[np.ndarray, "3 3"],
) -> tuple[float, float, float, float, float, float]:
    """Lengths a, b, c (Å) and angles alpha, beta, gamma (degrees) of a lattice with rows a, b, c.

    Angles within 1e-10 degrees of a whole number are that number: the arc cosine leaves dust on 90 and 120.
    """
    lengths = np.sqrt((lattice**2).sum(axis=1))
    cosines = (lattice @ lattice.T) / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos(np.clip((cosines[1, 2], cosines[0, 2], cosines[0, 1]), -1.0, 1.0)))
    whole = np.rint(angles)
    a, b, c = lengths.tolist()
    alpha, beta, gamma = np.where(np.abs(angles - whole) < 1e-10, whole, angles).tolist()
    return a, b, c, alpha, beta, gamma
