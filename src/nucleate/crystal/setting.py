"""The standard setting of a foreign cell: group, transformation, and which atoms form which orbit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import moyopy
import numpy as np

from nucleate.crystal.space_group import SpaceGroup, space_group
from nucleate.crystal.subgroups import translationengleiche_subgroup
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import SymmetryError
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class StandardSetting:
    """How a cell sits in the standard setting of a group: ``x_input = P x + p``.

    Attributes:
        space_group_number: the group.
        transformation: P.
        origin_shift: p.
        atom_to_root: index of one atom that stands for the orbit of each atom.
        wyckoff_indices: Wyckoff position of each atom, 0 for letter a.
    """

    space_group_number: int
    transformation: Float[np.ndarray, "3 3"]
    origin_shift: Float[np.ndarray, "3"]
    atom_to_root: Int[np.ndarray, "atoms"]
    wyckoff_indices: Int[np.ndarray, "atoms"]

    @classmethod
    def from_dataset(cls, dataset: moyopy.MoyoDataset) -> StandardSetting:
        """The setting moyopy found."""
        letters = space_group(dataset.number).letters
        return cls(
            space_group_number=dataset.number,
            transformation=np.array(dataset.std_linear),
            origin_shift=np.array(dataset.std_origin_shift),
            atom_to_root=np.array(dataset.orbits),
            wyckoff_indices=np.array([letters.index(letter) for letter in dataset.wyckoffs]),
        )


def descend(unit_cell: UnitCell, dataset: moyopy.MoyoDataset, subgroup: int) -> StandardSetting:
    """The setting of a translationengleiche subgroup of the found group, atoms assigned anew.

    Raises:
        SymmetryError: the found group has no such subgroup.
    """
    found = translationengleiche_subgroup(dataset, subgroup)
    group = space_group(subgroup)
    coords = (unit_cell.frac_coords - found.origin_shift) @ np.linalg.inv(found.transformation).T
    lattice = found.transformation.T @ unit_cell.lattice
    # Atoms moyopy saw coincide within its final tolerance; distances between different atoms are far larger.
    roots, positions = assign_orbits(
        group, lattice, coords, unit_cell.atomic_numbers, tolerance=2 * dataset.symprec
    )
    return StandardSetting(subgroup, found.transformation, found.origin_shift, roots, positions)


def assign_orbits(
    group: SpaceGroup,
    lattice: Float[np.ndarray, "3 3"],
    coords: Float[np.ndarray, "atoms 3"],
    atomic_numbers: Int[np.ndarray, "atoms"],
    *,
    tolerance: float,
) -> tuple[Int[np.ndarray, "atoms"], Int[np.ndarray, "atoms"]]:
    """(root atom, Wyckoff index) of each atom of a structure that has the group in its standard setting.

    Raises:
        SymmetryError: the stabiliser of a site is not that of any Wyckoff position: the structure lacks the
            group.
    """
    primitive = group.primitive_basis
    to_primitive = np.linalg.inv(primitive)
    rows = primitive.T @ lattice

    def distances(difference: np.ndarray) -> np.ndarray:
        reduced = difference @ to_primitive.T
        return np.linalg.norm((reduced - np.rint(reduced)) @ rows, axis=-1)

    roots = np.full(len(coords), -1)
    positions = np.zeros(len(coords), dtype=np.int64)
    for i, x in enumerate(coords):
        if roots[i] >= 0:
            continue
        images = group.rotations @ x + group.translations
        free = np.flatnonzero((roots < 0) & (atomic_numbers == atomic_numbers[i]))
        members = free[(distances(coords[free, None] - images) < tolerance).any(axis=1)]
        roots[members] = i
        stabiliser = np.flatnonzero(distances(images - x) < tolerance)
        positions[members] = _position_of(group, x, len(stabiliser), distances, tolerance)
    return roots, positions


def _position_of(
    group: SpaceGroup,
    x: np.ndarray,
    order: int,
    distances: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
) -> int:
    for position in group.wyckoff_positions:
        if position.multiplicity_primitive * order != group.num_operations:
            continue
        inverse = np.linalg.inv(position.rotations)
        points = np.einsum("mij,mj->mi", inverse, x - position.translations) - position.origin
        if position.num_free < 3:
            points = points - np.rint(points @ position.functionals.T) @ position.section.T
        projected = (
            points @ np.linalg.pinv(position.basis).T @ position.basis.T if position.num_free else 0 * points
        )
        if (distances(points - projected) < tolerance).any():
            return position.index
    raise SymmetryError(
        f"the site {np.round(x, 4).tolist()} lies on no Wyckoff position of space group {group.number} "
        f"({group.symbol}) within {tolerance:g} Å"
    )
