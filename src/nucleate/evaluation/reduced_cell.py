"""The cell that two crystals are compared in: primitive within a tolerance, Niggli reduced."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import moyopy
import numpy as np

from nucleate.crystal import UnitCell
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.errors import InvalidStructureError
from nucleate.shapes import Bool, Float, Int

PRIMITIVE_TOLERANCE = 0.25
"""Distance in Å below which pymatgen takes two atoms for translates of each other (its default)."""


@dataclass(frozen=True, eq=False)
class ReducedCell:
    """A crystal as StructureMatcher sees it: Niggli-reduced primitive cell.

    Attributes:
        lattice: rows a, b, c in Å, Niggli reduced.
        frac_coords: in [0, 1).
        atomic_numbers: element of each site.
    """

    lattice: Float[np.ndarray, "3 3"]
    frac_coords: Float[np.ndarray, "sites 3"]
    atomic_numbers: Int[np.ndarray, "sites"]

    @property
    def num_sites(self) -> int:
        """Number of sites in the reduced cell."""
        return len(self.atomic_numbers)

    @cached_property
    def volume(self) -> float:
        """Volume in Å^3."""
        return abs(float(np.linalg.det(self.lattice)))

    @cached_property
    def sorted_numbers(self) -> tuple[int, ...]:
        """Elements of all sites in ascending order: two cells that match have the same."""
        return tuple(sorted(self.atomic_numbers.tolist()))

    @cached_property
    def parameters(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Lengths a, b, c in Å and angles alpha, beta, gamma in degrees."""
        return lengths_and_angles(self.lattice)


def lengths_and_angles(
    lattices: Float[np.ndarray, "... 3 3"],
) -> tuple[Float[np.ndarray, "... 3"], Float[np.ndarray, "... 3"]]:
    """Lengths a, b, c (Å) and angles alpha, beta, gamma (degrees) of lattices with rows a, b, c."""
    metric = lattices @ np.swapaxes(lattices, -1, -2)
    lengths = np.sqrt(np.diagonal(metric, axis1=-2, axis2=-1))
    pairs = ((1, 2), (0, 2), (0, 1))
    cosines = np.stack([metric[..., i, j] / (lengths[..., i] * lengths[..., j]) for i, j in pairs], axis=-1)
    return lengths, np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))


def reduce_cell(unit_cell: UnitCell) -> ReducedCell:
    """The Niggli-reduced primitive cell, as StructureMatcher makes it before it compares.

    1. Niggli reduction of the lattice (moyopy), coordinates carried along.
    2. pymatgen's ``get_primitive_structure`` with its tolerance of 0.25 Å. It looks for sublattices among the
       vectors that carry every atom to within twice the tolerance of an atom of the same element; where no
       such vector but zero exists, or the numbers of atoms have no common divisor, there is nothing to find
       and pymatgen is not called. The outcome is that of pymatgen's own reduction.

    Raises:
        InvalidStructureError: the lattice cannot be reduced.
    """
    try:
        basis, _ = moyopy.niggli_reduce(np.asarray(unit_cell.lattice, dtype=float).tolist())
    except ValueError as error:
        raise InvalidStructureError(f"the lattice cannot be Niggli reduced: {error}") from error
    lattice = np.array(basis)
    frac = unit_cell.frac_coords @ (unit_cell.lattice @ np.linalg.inv(lattice))
    cell = ReducedCell(lattice, _wrapped(frac), np.asarray(unit_cell.atomic_numbers, dtype=np.int64))
    if _may_be_reducible(cell):
        return _primitive(cell)
    return cell


def _wrapped(frac: Float[np.ndarray, "sites 3"]) -> Float[np.ndarray, "sites 3"]:
    wrapped = frac - np.floor(frac)
    return np.where(wrapped >= 1.0, 0.0, wrapped)  # -1e-17 wraps to 1


def _may_be_reducible(cell: ReducedCell) -> bool:
    """Whether some vector but zero carries every atom to within twice the tolerance of an equal atom."""
    elements, counts = np.unique(cell.atomic_numbers, return_counts=True)
    if gcd(*counts.tolist()) == 1:
        return False
    tolerance = 2 * PRIMITIVE_TOLERANCE / np.linalg.norm(cell.lattice, axis=1)
    groups = [cell.frac_coords[cell.atomic_numbers == z] for z in elements[np.argsort(counts, kind="stable")]]
    vectors = groups[0][1:] - groups[0][0]
    for group in groups:
        if not len(vectors):
            return False
        vectors = vectors[_carries(group, vectors, tolerance)]
    return len(vectors) > 0


def _carries(
    coords: Float[np.ndarray, "sites 3"], vectors: Float[np.ndarray, "vectors 3"], tolerance: np.ndarray
) -> Bool[np.ndarray, "vectors"]:
    """Which vectors carry each of the points near one of them, up to lattice translations."""
    between = coords[None, :, :] - coords[:, None, :]
    alive = np.ones(len(vectors), dtype=bool)
    for from_one in between:  # one atom at a time: most vectors fail at the first
        left = np.flatnonzero(alive)
        if not len(left):
            break
        offset = from_one[None, :, :] - vectors[left, None, :]
        near = np.abs(offset - np.rint(offset)) <= tolerance
        alive[left] = near.all(axis=2).any(axis=1)
    return alive


def _primitive(cell: ReducedCell) -> ReducedCell:
    given = UnitCell(cell.lattice, cell.frac_coords, cell.atomic_numbers)
    found = unit_cell_to_pymatgen(given).get_primitive_structure(tolerance=PRIMITIVE_TOLERANCE)
    if len(found) == cell.num_sites:
        return cell
    return ReducedCell(
        np.array(found.lattice.matrix),
        _wrapped(np.array(found.frac_coords)),
        np.array([site.specie.Z for site in found], dtype=np.int64),
    )
