"""Fourteen real crystals as ASE atoms, for the tests of evaluation."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk

from nucleate.crystal import UnitCell

ELEMENTS = ("Cu", "Si", "Fe", "Mg", "Al", "W", "Ti", "Ni", "Ge", "Ag", "Au", "Nb")


def real_atoms() -> list[Atoms]:
    """Fourteen elements and compounds of many groups."""
    return [
        *(bulk(symbol) for symbol in ELEMENTS),
        bulk("NaCl", "rocksalt", a=5.64),
        bulk("ZnS", "zincblende", a=5.41),
    ]


def cell_of(atoms: Atoms) -> UnitCell:
    """The unit cell of ASE atoms."""
    return UnitCell(np.array(atoms.cell), atoms.get_scaled_positions(), np.array(atoms.numbers))
