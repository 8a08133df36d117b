"""The standard setting of a foreign cell: group, transformation, and which atoms form which orbit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import moyopy
import numpy as np

from nucleate.crystal.space_group import SpaceGroup, space_group
from nucleate.crystal.subgroups import Subgroup, translationengleiche_subgroup
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import SymmetryError
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class StandardSetting:
    """How a cell sits in the standard setting of a group: ``x_input = P x + p``.

    Attributes:
        space_group_number: the group.
        transformation: P, with ``inverse`` and ``volume_ratio`` = ``|det P|``.
        origin_shift: p.
        atom_to_orbit: orbit of each atom, numbered as they first occur.
        representatives: the first atom of each orbit.
        wyckoff_indices: Wyckoff position of each orbit, 0 for letter a.
    """

    space_group_number: int
    transformation: Float[np.ndarray, "3 3"]
    inverse: Float[np.ndarray, "3 3"]
    volume_ratio: float
    origin_shift: Float[np.ndarray, "3"]
    atom_to_orbit: Int[np.ndarray, "atoms"]
    representatives: Int[np.ndarray, "orbits"]
    wyckoff_indices: Int[np.ndarray, "orbits"]

    @classmethod
    def of_roots(
        cls,
        space_group_number: int,
        transformation: Sequence[Sequence[float]],
        origin_shift: Sequence[float],
        *,
        roots: Sequence[int],
        position_of: Callable[[int], int],
    ) -> StandardSetting:
        """The setting in which the atoms with equal roots (the number of one of them) are one orbit.

        Args:
            space_group_number: the group.
            transformation: P.
            origin_shift: p.
            roots: number of the atom that stands for each atom's orbit.
            position_of: Wyckoff index of the orbit of an atom.
        """
        orbit_of_root: dict[int, int] = {}
        atom_to_orbit = [orbit_of_root.setdefault(root, len(orbit_of_root)) for root in roots]
        inverse, determinant = inverse_and_determinant(transformation)
        return cls(
            space_group_number=space_group_number,
            transformation=np.array(transformation),
            inverse=inverse,
            volume_ratio=abs(determinant),
            origin_shift=np.array(origin_shift),
            atom_to_orbit=np.array(atom_to_orbit),
            representatives=np.array([*orbit_of_root]),
            wyckoff_indices=np.array([position_of(root) for root in orbit_of_root]),
        )

    @classmethod
    def from_dataset(cls, dataset: moyopy.MoyoDataset) -> StandardSetting:
        """The setting and the orbits moyopy found."""
        number, letters = dataset.number, dataset.wyckoffs
        order = space_group(number).letters
        return cls.of_roots(
            number,
            dataset.std_linear,
            dataset.std_origin_shift,
            roots=dataset.orbits,
            position_of=lambda atom: order.index(letters[atom]),
        )


def inverse_and_determinant(matrix: Sequence[Sequence[float]]) -> tuple[Float[np.ndarray, "3 3"], float]:
    """(inverse, determinant) of a 3x3 matrix, in plain floats: through LAPACK they cost several times as much."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    first, second, third = e * i - f * h, f * g - d * i, d * h - e * g
    determinant = a * first + b * second + c * third
    adjugate = (
        (first, c * h - b * i, b * f - c * e),
        (second, a * i - c * g, c * d - a * f),
        (third, b * g - a * h, a * e - b * d),
    )
    return np.array(adjugate) / determinant, determinant


def descend(unit_cell: UnitCell, dataset: moyopy.MoyoDataset, subgroup: int | Subgroup) -> StandardSetting:
    """The setting of a translationengleiche subgroup of the found group, atoms assigned anew.

    Raises:
        SymmetryError: the found group has no such subgroup.
    """
    found = translationengleiche_subgroup(dataset, subgroup)
    # Atoms moyopy saw coincide within its final tolerance; distances between different atoms are far larger.
    roots, positions = assign_orbits(
        space_group(found.space_group_number),
        found.transformation.T @ unit_cell.lattice,
        (unit_cell.frac_coords - found.origin_shift) @ np.linalg.inv(found.transformation).T,
        unit_cell.atomic_numbers,
        tolerance=2 * dataset.symprec,
    )
    return StandardSetting.of_roots(
        found.space_group_number,
        found.transformation.tolist(),
        found.origin_shift.tolist(),
        roots=roots.tolist(),
        position_of=positions.__getitem__,
    )


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
