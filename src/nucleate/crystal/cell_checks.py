"""What every unit cell must satisfy before anything expensive is done with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nucleate.crystal.species import element_symbol
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import InvalidStructureError, StructureTooLargeError
from nucleate.shapes import Float, Int

OVERLAP_DISTANCE = 0.01
"""Two atoms nearer than this (Å) are one atom written twice."""

MIN_PLANE_SPACING = 0.1
"""Smallest spacing (Å) of the lattice planes (100), (010), (001); flatter cells have no volume."""

MAX_LATTICE_LENGTH = 1e4
"""Longest lattice vector (Å); beyond it the unit is wrong or the number is damaged."""

MAX_FRAC_COORD = 1e6
"""Largest fractional coordinate; beyond it wrapping into the cell loses the digits that hold the position."""

_ONES = np.ones(3)
_DENSE_PAIRS_LIMIT = 48  # above it a k-d tree is faster than all pairs


def check_num_atoms(num_atoms: int, *, max_atoms: int, name: str) -> None:
    """Nothing, if the number of atoms is between 1 and ``max_atoms``.

    Raises:
        InvalidStructureError: no atoms.
        StructureTooLargeError: more than ``max_atoms``.
    """
    if num_atoms < 1:
        raise InvalidStructureError(f"{name} has no atoms")
    if num_atoms > max_atoms:
        raise StructureTooLargeError(
            f"{name} has {num_atoms} atoms or more, the limit is {max_atoms}; raise "
            "max_atoms (--max-atoms on the command line) to read it"
        )


def check_lattice(lattice: Float[np.ndarray, "3 3"], *, name: str) -> Float[np.ndarray, "3 3"]:
    """Reciprocal lattice as columns, the inverse of ``lattice``, if its rows a, b, c span a volume.

    Raises:
        InvalidStructureError: NaN or infinite numbers, a lattice vector that is too long, or (nearly) no
            volume.
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = rows = lattice.tolist()
    longest_squared = max(x * x + y * y + z * z for x, y, z in rows)
    if not longest_squared <= MAX_LATTICE_LENGTH**2:  # NaN and overflow land here too
        if not np.isfinite(lattice).all():
            raise InvalidStructureError(f"{name} has NaN or infinite numbers in its lattice: {rows}")
        raise InvalidStructureError(
            f"{name} has a lattice vector longer than {MAX_LATTICE_LENGTH:g} Å: {rows}; is the unit Å?"
        )
    # Plain floats: a 3x3 inverse through LAPACK costs more than the whole conversion may take.
    b_x_c = (by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx)
    c_x_a = (cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax)
    a_x_b = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    volume = ax * b_x_c[0] + ay * b_x_c[1] + az * b_x_c[2]
    widest = max(x * x + y * y + z * z for x, y, z in (b_x_c, c_x_a, a_x_b)) ** 0.5
    if not abs(volume) > MIN_PLANE_SPACING * widest:
        raise InvalidStructureError(
            f"{name} has a cell without volume: {abs(volume):.4g} Å^3, lattice planes nearer than "
            f"{MIN_PLANE_SPACING} Å; lattice vectors {rows}"
        )
    return np.array((b_x_c, c_x_a, a_x_b)).T / volume


def overlapping_pairs(
    lattice: Float[np.ndarray, "3 3"],
    frac_coords: Float[np.ndarray, "sites 3"],
    *,
    reciprocal: Float[np.ndarray, "3 3"],
    distance: float = OVERLAP_DISTANCE,
) -> Int[np.ndarray, "pairs 2"]:
    """Pairs i < j of sites nearer than ``distance``, periodic images counted, in order.

    With plane spacings above ``2 distance`` a pair this near differs by less than half a lattice vector in
    each fractional coordinate once the nearest integers are taken off, so rounding finds the nearest image
    exactly.

    Args:
        lattice: rows a, b, c.
        frac_coords: need not be wrapped.
        reciprocal: inverse of ``lattice``.
        distance: in Å.
    """
    num_sites = len(frac_coords)
    if num_sites <= _DENSE_PAIRS_LIMIT:
        columns = np.ascontiguousarray(frac_coords.T)  # long rows make the operations below fast
        delta = (columns[:, :, None] - columns[:, None]).reshape(3, -1)
        delta -= np.rint(delta)
        cartesian = lattice.T @ delta
        near = _ONES @ (cartesian * cartesian) < distance * distance
        if np.count_nonzero(near) == num_sites:  # each site is near itself
            return np.empty((0, 2), dtype=np.int64)
        first, second = np.divmod(np.flatnonzero(near), num_sites)
        return np.stack((first, second), axis=1)[first < second]
    from scipy.spatial import cKDTree  # noqa: PLC0415  heavy, and only large cells need it

    wrapped = frac_coords - np.floor(frac_coords)
    wrapped[wrapped >= 1.0] = 0.0
    reach = distance * float(np.sqrt((reciprocal**2).sum(axis=0).max()))
    pairs = cKDTree(wrapped, boxsize=1.0).query_pairs(reach * (1 + 1e-9), p=np.inf, output_type="ndarray")
    delta = wrapped[pairs[:, 0]] - wrapped[pairs[:, 1]]
    delta -= np.rint(delta)
    pairs = pairs[((delta @ lattice) ** 2).sum(axis=1) < distance * distance]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def checked_unit_cell(
    lattice: Float[np.ndarray, "3 3"],
    frac_coords: Float[np.ndarray, "sites 3"],
    *,
    atomic_numbers: Int[np.ndarray, "sites"],
    site_properties: Mapping[str, Any],
    name: str,
    max_atoms: int,
    site_names: Sequence[str] | np.ndarray | None = None,
) -> UnitCell:
    """Unit cell of these atoms, if they are one: finite, with volume, with real elements, no atom twice.

    A left-handed lattice passes unchanged.

    Args:
        lattice: rows a, b, c in Å.
        frac_coords: any cell offset.
        atomic_numbers: 1 to 118.
        site_properties: per-site arrays carried along.
        name: what to call the structure in an error.
        max_atoms: largest number of atoms accepted.
        site_names: what to call the sites in an error; element and number if not given.

    Raises:
        InvalidStructureError: one of the conditions fails; the message names sites and numbers.
        StructureTooLargeError: more than ``max_atoms``.
    """
    check_num_atoms(len(frac_coords), max_atoms=max_atoms, name=name)
    reciprocal = check_lattice(lattice, name=name)
    numbers = atomic_numbers.tolist()
    if min(numbers) < 1 or max(numbers) > 118:
        bad = int(np.flatnonzero((atomic_numbers < 1) | (atomic_numbers > 118))[0])
        raise InvalidStructureError(
            f"{name}: site {bad + 1} has atomic number {atomic_numbers[bad]}, outside 1..118 (a dummy atom?)"
        )

    def site(index: int) -> str:
        if site_names is not None:
            return str(site_names[index])
        return f"{element_symbol(int(atomic_numbers[index]))} (site {index + 1})"

    # The sum of squares bounds all of them, in one operation; it is NaN where one of them is.
    if not np.vdot(frac_coords, frac_coords) <= MAX_FRAC_COORD**2 and not (
        np.abs(frac_coords).max() <= MAX_FRAC_COORD
    ):
        bad = int(np.flatnonzero(~(np.abs(frac_coords) <= MAX_FRAC_COORD).all(axis=1))[0])
        raise InvalidStructureError(
            f"{name}: {site(bad)} has fractional coordinates {frac_coords[bad].tolist()}; "
            f"they must be finite and below {MAX_FRAC_COORD:g}"
        )
    pairs = overlapping_pairs(lattice, frac_coords, reciprocal=reciprocal)
    if len(pairs):
        raise InvalidStructureError(_overlap_message(lattice, frac_coords, pairs=pairs, name=name, site=site))
    return UnitCell(lattice, frac_coords, atomic_numbers, site_properties)


def _overlap_message(
    lattice: np.ndarray, frac_coords: np.ndarray, *, pairs: np.ndarray, name: str, site: Callable[[int], str]
) -> str:
    listed = []
    for i, j in pairs[:3]:
        delta = frac_coords[i] - frac_coords[j]
        distance = float(np.linalg.norm((delta - np.rint(delta)) @ lattice))
        listed.append(f"{site(int(i))} and {site(int(j))} ({distance:.4f} Å)")
    more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
    return f"{name} has atoms on top of each other: {'; '.join(listed)}{more}; remove the duplicates"
