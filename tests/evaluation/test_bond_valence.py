"""Bond valence sums against pymatgen, and the instability index on crystals that are well or badly bonded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal
from pymatgen.core import Structure
from pymatgen.core.bond_valence import calculate_bv_sum

from nucleate.crystal import UnitCell
from nucleate.evaluation.bond_valence import bond_valence_sums, instability_index
from nucleate.evaluation.surroundings import surroundings


def _cell(atoms: object) -> UnitCell:
    return UnitCell(np.array(atoms.cell), atoms.get_scaled_positions(), np.array(atoms.numbers))


def _perovskite(a: float = 3.905) -> UnitCell:
    return _cell(
        ase_crystal(
            ["Sr", "Ti", "O"],
            [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
            spacegroup=221,
            cellpar=[a, a, a, 90, 90, 90],
        )
    )


@pytest.mark.parametrize("cell", [_perovskite(), _cell(bulk("NaCl", "rocksalt", a=5.64)), _perovskite(4.3)])
def test_sums_are_those_of_pymatgen(cell: UnitCell) -> None:
    structure = Structure(cell.lattice, cell.atomic_numbers, cell.frac_coords)
    expected = [calculate_bv_sum(site, structure.get_neighbors(site, 4.0)) for site in structure]
    assert np.allclose(bond_valence_sums(surroundings(cell)), expected, atol=1e-9)


def test_index_is_low_for_real_crystals_and_high_for_compressed_and_shuffled_ones() -> None:
    states = {38: 2.0, 22: 4.0, 8: -2.0}
    real = instability_index(surroundings(_perovskite()), states)
    assert real < 0.6
    assert instability_index(surroundings(_perovskite(3.4)), states) > 3 * real
    cell = _perovskite()
    shuffled = UnitCell(cell.lattice, cell.frac_coords, cell.atomic_numbers[[2, 3, 0, 1, 4]])
    assert instability_index(surroundings(shuffled), states) > 3 * real


def test_nothing_is_said_where_states_or_parameters_are_missing() -> None:
    around = surroundings(_cell(bulk("Cu", "fcc", a=3.61)))
    assert math.isnan(instability_index(around, {}))
    assert math.isnan(instability_index(around, {29: 0.0}))
    neptunium = _cell(bulk("NaCl", "rocksalt", a=5.0))
    neptunium = UnitCell(neptunium.lattice, neptunium.frac_coords, np.array([93, 8]))
    assert math.isnan(instability_index(surroundings(neptunium), {93: 2.0, 8: -2.0}))
