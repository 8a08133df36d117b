"""Wyckoff positions as affine maps of their free coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.errors import WyckoffError
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """One of the 1,731 Wyckoff positions: ``f(u) = B u + c`` and its images, in the standard setting.

    T is the full translation lattice of the group, centring included, in conventional coordinates.

    Attributes:
        space_group_number: number of the group, 1 to 230.
        letter: Wyckoff letter; ``index`` is its place (0 for a).
        multiplicity: points per conventional cell; ``multiplicity_primitive`` per primitive cell.
        site_symmetry: oriented symbol of the site-symmetry group S_w.
        basis: B, one column per free coordinate.
        origin: c.
        rotations: W of the images ``W f(u) + t``, one per point of the orbit modulo T; the first is the
            identity.
        translations: t of the images.
        operation_indices: which operation of the group each image is.
        stabiliser_rotations: W of S_w: ``W f(u) + t = f(u)`` for every u, with ``stabiliser_translations`` t
            exact (not modulo T).
        period_lattice: columns generate ``{v : B v in T}``: u and u + v are the same point modulo T.
        identification_linear: M of the maps ``u -> M u + v`` that give the same orbit, modulo the period
            lattice; the first is the identity.
        identification_shift: v of these maps.
        functionals: K, rows vanish on the columns of B, and ``K T = Z^(3-d)``: x lies on ``f(R^d) + T``
            exactly if ``K (x - c)`` is integer.
        section: R with ``K R = 1`` and columns in T: ``x - R round(K (x - c))`` is the nearest translate.
    """

    space_group_number: int
    letter: str
    index: int
    multiplicity: int
    multiplicity_primitive: int
    site_symmetry: str
    basis: Float[np.ndarray, "3 d"]
    origin: Float[np.ndarray, "3"]
    rotations: Int[np.ndarray, "images 3 3"]
    translations: Float[np.ndarray, "images 3"]
    operation_indices: Int[np.ndarray, "images"]
    stabiliser_rotations: Int[np.ndarray, "stabiliser 3 3"]
    stabiliser_translations: Float[np.ndarray, "stabiliser 3"]
    period_lattice: Float[np.ndarray, "d d"]
    identification_linear: Float[np.ndarray, "maps d d"]
    identification_shift: Float[np.ndarray, "maps d"]
    functionals: Float[np.ndarray, "e 3"]
    section: Float[np.ndarray, "3 e"]
    centring_vectors: Float[np.ndarray, "centrings 3"]

    @property
    def num_free(self) -> int:
        """Number of free coordinates, 0 to 3."""
        return self.basis.shape[1]

    @property
    def label(self) -> str:
        """Multiplicity and letter, such as ``4f``."""
        return f"{self.multiplicity}{self.letter}"

    def coords(self, free_coords: Float[np.ndarray, "d"]) -> Float[np.ndarray, "3"]:
        """The representative point ``B u + c`` in fractional coordinates of the conventional cell.

        Raises:
            WyckoffError: the number of free coordinates is wrong.
        """
        if len(free_coords) != self.num_free:
            raise WyckoffError(
                f"Wyckoff position {self.label} of space group {self.space_group_number} has {self.num_free} "
                f"free coordinate{'s' if self.num_free != 1 else ''}, got {len(free_coords)}"
            )
        return self.basis @ free_coords + self.origin

    def orbit(self, free_coords: Float[np.ndarray, "d"]) -> Float[np.ndarray, "multiplicity 3"]:
        """All points in the conventional cell, each in [0, 1); centring translations outermost."""
        points = self.rotations @ self.coords(free_coords) + self.translations
        points = (self.centring_vectors[:, None, :] + points).reshape(-1, 3)
        wrapped = points - np.floor(points)
        return np.where(wrapped >= 1.0, 0.0, wrapped)

    def distance(self, point: Float[np.ndarray, "3"], *, lattice: Float[np.ndarray, "3 3"]) -> float:
        """Distance in Å of a point (fractional) from the nearest point of this position, all images included.

        Exact on the position and near it; further away the nearest image by ``functionals`` is taken.
        """
        points = (
            np.linalg.solve(self.rotations, (point - self.translations)[:, :, None])[:, :, 0] - self.origin
        )
        points = points - np.rint(points @ self.functionals.T) @ self.section.T
        normal = self.basis.T @ lattice @ lattice.T
        along = np.linalg.solve(normal @ self.basis, normal @ points.T) if self.num_free else np.zeros((0, 1))
        return float(np.linalg.norm((points - (self.basis @ along).T) @ lattice, axis=1).min())
