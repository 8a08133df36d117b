"""Structures of other programs as unit cells, whatever they come as, and back to those programs."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from nucleate.crystal.ase_atoms import unit_cell_from_ase, unit_cell_to_ase
from nucleate.crystal.cell_checks import checked_unit_cell
from nucleate.crystal.cif import CifBlock, cif_blocks, unit_cell_from_cif
from nucleate.crystal.poscar import unit_cell_from_poscar, write_poscar
from nucleate.crystal.pymatgen_structure import unit_cell_from_pymatgen, unit_cell_to_pymatgen
from nucleate.crystal.text import decode_text, text_format
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import InvalidStructureError, ParseError

__all__ = [
    "CifBlock",
    "cif_blocks",
    "decode_text",
    "text_format",
    "to_unit_cell",
    "unit_cell_from_ase",
    "unit_cell_from_cif",
    "unit_cell_from_poscar",
    "unit_cell_from_pymatgen",
    "unit_cell_to_ase",
    "unit_cell_to_pymatgen",
    "write_poscar",
]


def to_unit_cell(obj: Any, *, max_atoms: int = 1000) -> UnitCell:
    """Unit cell of a UnitCell, pymatgen Structure, ASE Atoms, or CIF or POSCAR text.

    The lattice, its frame and its handedness stay as they are; nothing is wrapped or snapped except special
    positions of a CIF (see `unit_cell_from_cif`). Neither pymatgen nor ASE is imported to find out what the
    object is.

    Args:
        obj: the structure. A path is refused: read the file first.
        max_atoms: largest number of atoms accepted.

    Raises:
        ParseError: text in neither format, a path, or an object of another type.
        DisorderedStructureError: partial occupancy or mixed sites.
        InvalidStructureError: not a crystal; the message says why.
        StructureTooLargeError: more than ``max_atoms``.
    """
    if isinstance(obj, UnitCell):
        return _checked(obj, max_atoms=max_atoms)
    if isinstance(obj, str):
        if text_format(obj) == "CIF":
            return unit_cell_from_cif(obj, max_atoms=max_atoms)
        return unit_cell_from_poscar(obj, max_atoms=max_atoms)
    for base in type(obj).__mro__:
        package = base.__module__.partition(".")[0]
        if package == "pymatgen" and base.__name__ in ("Structure", "IStructure"):
            return unit_cell_from_pymatgen(obj, max_atoms=max_atoms)
        if package == "pymatgen" and base.__name__ in ("Molecule", "IMolecule"):
            raise InvalidStructureError("a pymatgen Molecule has no lattice; a Structure is needed")
        if package == "ase" and base.__name__ == "Atoms":
            return unit_cell_from_ase(obj, max_atoms=max_atoms)
    if isinstance(obj, PathLike):
        raise ParseError(f"{str(obj)!r} is a path; open the file and pass its text")
    if isinstance(obj, (bytes, bytearray)):
        raise ParseError("bytes are not text; decode_text(data, name=...) makes text of them")
    raise ParseError(
        f"a {type(obj).__module__}.{type(obj).__qualname__} is not a structure; pass a pymatgen Structure, "
        "ASE Atoms, UnitCell, or CIF or POSCAR text"
    )


def _checked(cell: UnitCell, *, max_atoms: int) -> UnitCell:
    """The same unit cell, after the checks that every other input passes."""
    for key, values in cell.site_properties.items():
        if len(values) != cell.num_atoms:
            raise InvalidStructureError(
                f"site property {key!r} has {len(values)} values for {cell.num_atoms} atoms; give one each"
            )
    checked_unit_cell(
        np.asarray(cell.lattice, dtype=np.float64),
        np.asarray(cell.frac_coords, dtype=np.float64),
        atomic_numbers=cell.atomic_numbers,
        site_properties=cell.site_properties,
        name="the unit cell",
        max_atoms=max_atoms,
    )
    return cell
