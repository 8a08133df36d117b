"""Who surrounds each atom: one neighbour search per crystal, and the bonds among the pairs it finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nucleate.crystal.unit_cell import UnitCell
from nucleate.physics.distances import minimum_distance_matrix
from nucleate.physics.elements import NUM_ELEMENTS
from nucleate.physics.neighbours import neighbours_within
from nucleate.shapes import Bool, Float, Int

REACH = 2.6
"""Radius of the search in units of the cube root of the volume per atom: about 74 neighbours per atom."""

COINCIDENT = 1e-6
"""Distances (Å) below this are this: atoms on top of each other have no direction and no reciprocal distance."""

SAME_SHELL = 1e-4
"""Distances (Å) nearer than this belong to one shell."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """All directed pairs of a cell within ``radius``, sorted by central atom, then by distance.

    Attributes:
        atomic_numbers: of the atoms of the cell.
        radius: Å.
        first: central atom of each pair.
        second: the other atom; the same atom where its own image is meant.
        vectors: from the first to the second, Å.
        distances: Å.
    """

    atomic_numbers: Int[np.ndarray, "atoms"]
    radius: float
    first: Int[np.ndarray, "pairs"]
    second: Int[np.ndarray, "pairs"]
    vectors: Float[np.ndarray, "pairs 3"]
    distances: Float[np.ndarray, "pairs"]

    @property
    def num_atoms(self) -> int:
        """Atoms of the cell."""
        return len(self.atomic_numbers)

    @cached_property
    def bonded(self) -> Bool[np.ndarray, "pairs"]:
        """Whether the second atom is in the coordination shell of the first (Brunner's reciprocal gap).

        With the distances of an atom in ascending order d_1, d_2, ... its shell ends before the largest

            1 / d_k - 1 / d_(k+1),

        a criterion without radii or thresholds. It is directed: a may be bonded to b while b has nearer atoms.

        Source: G. O. Brunner, Acta Cryst. A33 (1977) 226; pymatgen's ``BrunnerNNReciprocal``.
        """
        if not len(self.first):
            return np.zeros(0, dtype=bool)
        start = np.searchsorted(self.first, np.arange(self.num_atoms + 1))
        inverse = 1.0 / np.maximum(self.distances, COINCIDENT)
        gap = np.append(inverse[:-1] - inverse[1:], -1.0)
        gap[start[1:][start[1:] > start[:-1]] - 1] = -1.0  # the last pair of an atom has no next one
        shell = np.zeros(self.num_atoms)
        for atom, (low, high) in enumerate(zip(start[:-1].tolist(), start[1:].tolist())):
            if high > low:
                shell[atom] = self.distances[low + int(gap[low:high].argmax())]
        return self.distances < shell[self.first] + SAME_SHELL

    @cached_property
    def coordination(self) -> Int[np.ndarray, "atoms"]:
        """Number of atoms in each atom's coordination shell; 0 for an atom with nobody within ``radius``."""
        return np.bincount(self.first[self.bonded], minlength=self.num_atoms)

    @property
    def element_pairs(self) -> Int[np.ndarray, "pairs"]:
        """``128 z_small + z_large`` of each pair."""
        z = self.atomic_numbers
        a, b = z[self.first], z[self.second]
        return np.minimum(a, b) * 128 + np.maximum(a, b)

    def bond_angles(self) -> tuple[Int[np.ndarray, "angles"], Float[np.ndarray, "angles"]]:
        """(central atom, angle in degrees) of every pair of bonds of every atom, each pair once."""
        rows = np.flatnonzero(self.bonded)
        centre = self.first[rows]
        unit = self.vectors[rows] / np.maximum(self.distances[rows], COINCIDENT)[:, None]
        start = np.searchsorted(centre, np.arange(self.num_atoms + 1))
        atoms, angles = [], []
        for atom, (low, high) in enumerate(zip(start[:-1].tolist(), start[1:].tolist())):
            count = high - low
            if count > 1:
                a, b = np.triu_indices(count, 1)
                cosine = np.einsum("ij,ij->i", unit[low:high][a], unit[low:high][b])
                angles.append(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
                atoms.append(np.full(len(a), atom))
        if not atoms:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        return np.concatenate(atoms), np.concatenate(angles)


def surroundings(unit_cell: UnitCell) -> Surroundings:
    """Everybody within 2.6 (V/N)^(1/3) of each atom, and within the least distance of any present pair.

    The radius grows with the volume per atom, so that dilute and dense crystals are searched alike. The
    shortest distance of the crystal is always among the pairs: N balls of diameter d without overlap fill at
    most 74 % of V, so d <= 1.13 (V/N)^(1/3).

    Raises:
        InvalidStructureError: numbers that are not finite, no volume, or a cell collapsed beyond searching.
    """
    z = np.asarray(unit_cell.atomic_numbers, dtype=np.int64)
    present = np.unique(z[z <= NUM_ELEMENTS])
    least = float(minimum_distance_matrix()[np.ix_(present, present)].max()) if len(present) else 0.0
    radius = max(REACH * (unit_cell.volume / max(len(z), 1)) ** (1 / 3), least)
    pairs = neighbours_within(unit_cell.lattice, unit_cell.frac_coords, radius=radius)
    order = np.lexsort((pairs.distances, pairs.first))
    first, second = pairs.first[order], pairs.second[order]
    frac = unit_cell.frac_coords
    vectors = (frac[second] + pairs.shifts[order] - frac[first]) @ unit_cell.lattice
    return Surroundings(z, radius, first, second, vectors, pairs.distances[order])
