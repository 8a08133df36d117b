"""From a foreign structure to its exact asymmetric unit: analyse, project, and keep the way back."""

from __future__ import annotations

import logging
from functools import cache

import moyopy

from nucleate.crystal.cell_checks import checked_unit_cell
from nucleate.crystal.encoded import EncodedStructure
from nucleate.crystal.projection import project
from nucleate.crystal.setting import StandardSetting, descend
from nucleate.crystal.subgroups import Subgroup
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import SymmetryError

STANDARD_SETTING = moyopy.Setting.standard()
PSEUDO_SYMMETRY_TOLERANCES = (0.1, 0.01, 1e-3)


@cache
def _quiet_about_supercells() -> None:
    # moyopy warns about the operations of every supercell; encoding does not read them.
    logging.getLogger("moyo").setLevel(logging.ERROR)


def analyse(unit_cell: UnitCell, *, symprec: float) -> moyopy.MoyoDataset:
    """moyopy's symmetry dataset of a cell in the standard setting.

    Raises:
        SymmetryError: the search failed.
    """
    _quiet_about_supercells()
    cell = moyopy.Cell(
        unit_cell.lattice.tolist(), unit_cell.frac_coords.tolist(), unit_cell.atomic_numbers.tolist()
    )
    try:
        return moyopy.MoyoDataset(cell, symprec=symprec, setting=STANDARD_SETTING, rotate_basis=False)
    except ValueError as error:
        raise SymmetryError(
            f"the symmetry search at symprec {symprec:g} Å failed ({error}); try another symprec"
        ) from error


def pseudo_symmetry(
    unit_cell: UnitCell, *, tolerances: tuple[float, ...] = PSEUDO_SYMMETRY_TOLERANCES
) -> dict[float, int | None]:
    """Space group number found at each tolerance in Å; None where the search fails."""
    found: dict[float, int | None] = {}
    for symprec in tolerances:
        try:
            found[symprec] = analyse(unit_cell, symprec=symprec).number
        except SymmetryError:
            found[symprec] = None
    return found


def encode(
    unit_cell: UnitCell,
    *,
    symprec: float = 0.01,
    max_atoms: int = 1000,
    subgroup: int | Subgroup | None = None,
    max_displacement: float | None = None,
    max_strain: float = 0.05,
) -> EncodedStructure:
    """The exact asymmetric unit of a unit cell, with the way back.

    moyopy finds the group and the transformation to its standard setting. The lattice is projected onto the
    lattice subspace (group average of its metric), each orbit onto its Wyckoff position: all atoms of an
    orbit are pulled back to the representative by the inverse of their operation, averaged, and the mean is
    projected orthogonally in the Cartesian metric,

        u = (B^T G B)^-1 B^T G (y - c),   G = A A^T.

    Args:
        unit_cell: any cell, supercells and left-handed ones included.
        symprec: tolerance of the symmetry search in Å.
        max_atoms: refuse larger cells.
        subgroup: number of a translationengleiche subgroup (1 for P1) to descend to instead of the full
            group, or one of ``translationengleiche_subgroups(number)`` where several share a number.
        max_displacement: refuse if an atom moves further than this in Å; 10 ``symprec`` unless given.
        max_strain: refuse if the lattice is strained more than this (dimensionless).

    Raises:
        InvalidStructureError: NaN, no volume, overlapping atoms.
        StructureTooLargeError: more than ``max_atoms`` atoms.
        SymmetryError: the search failed, or the ideal crystal is too far from the input.
    """
    unit_cell = checked_unit_cell(
        unit_cell.lattice,
        unit_cell.frac_coords,
        atomic_numbers=unit_cell.atomic_numbers,
        site_properties=unit_cell.site_properties,
        name="the structure",
        max_atoms=max_atoms,
    )
    return encode_checked(
        unit_cell,
        symprec=symprec,
        subgroup=subgroup,
        max_displacement=max_displacement,
        max_strain=max_strain,
    )


def encode_checked(
    unit_cell: UnitCell,
    *,
    symprec: float = 0.01,
    subgroup: int | Subgroup | None = None,
    max_displacement: float | None = None,
    max_strain: float = 0.05,
) -> EncodedStructure:
    """As ``encode``, for a cell that has passed ``checked_unit_cell``, as all that the converters return have."""
    dataset = analyse(unit_cell, symprec=symprec)
    if subgroup is None or subgroup == dataset.number:
        setting = StandardSetting.from_dataset(dataset)
    else:
        setting = descend(unit_cell, dataset, subgroup)
    return project(
        unit_cell,
        setting,
        symprec=symprec,
        max_displacement=10 * symprec if max_displacement is None else max_displacement,
        max_strain=max_strain,
    )
