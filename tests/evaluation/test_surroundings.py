"""Coordination shells and angles against pymatgen's Brunner algorithm and known structures."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal
from pymatgen.analysis.local_env import BrunnerNNReciprocal
from pymatgen.core import Structure

from nucleate.crystal import UnitCell
from nucleate.evaluation.surroundings import surroundings


def _cell(atoms: object) -> UnitCell:
    return UnitCell(np.array(atoms.cell), atoms.get_scaled_positions(), np.array(atoms.numbers))


def _rutile() -> UnitCell:
    return _cell(
        ase_crystal(
            ["Ti", "O"],
            [(0, 0, 0), (0.305, 0.305, 0)],
            spacegroup=136,
            cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
        )
    )


@pytest.mark.parametrize("seed", range(12))
def test_shells_are_those_of_pymatgen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = _rutile()
    cell = UnitCell(cell.lattice, cell.frac_coords + rng.normal(scale=0.03, size=(6, 3)), cell.atomic_numbers)
    structure = Structure(cell.lattice, cell.atomic_numbers, cell.frac_coords)
    oracle = BrunnerNNReciprocal()
    expected = [len(oracle.get_nn_info(structure, i)) for i in range(len(structure))]
    assert surroundings(cell).coordination.tolist() == expected


@pytest.mark.parametrize(
    ("atoms", "number", "angle"),
    [
        (bulk("NaCl", "rocksalt", a=5.64), 6, 90.0),
        (bulk("Cu", "fcc", a=3.61), 12, 60.0),
        (bulk("Si", "diamond", a=5.43), 4, 109.4712),
        (bulk("ZnS", "zincblende", a=5.41), 4, 109.4712),
    ],
)
def test_known_polyhedra(atoms: object, number: int, angle: float) -> None:
    around = surroundings(_cell(atoms))
    assert set(around.coordination.tolist()) == {number}
    _, angles = around.bond_angles()
    assert angles.min() == pytest.approx(angle, abs=1e-3)
    assert len(angles) == around.num_atoms * number * (number - 1) // 2


def test_every_atom_looks_at_its_surroundings_whatever_the_cell() -> None:
    small = surroundings(_rutile())
    atoms = ase_crystal(
        ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]
    )
    large = surroundings(_cell(atoms.repeat((2, 1, 3))))
    assert sorted(large.coordination.tolist()) == sorted(small.coordination.tolist() * 6)
    assert np.allclose(np.linalg.norm(large.vectors, axis=1), large.distances)


def test_a_lonely_atom_has_no_shell() -> None:
    # A dense slab and one atom in the middle of its vacuum.
    slab = np.array([[x, y, z] for x in range(3) for y in range(3) for z in range(3)], dtype=float) * 2.5
    lattice = np.diag([7.5, 7.5, 60.0])
    coords = np.concatenate([slab, [[3.7, 3.7, 33.0]]]) @ np.linalg.inv(lattice)
    around = surroundings(UnitCell(lattice, coords, np.full(28, 29)))
    assert around.coordination[-1] in (0, 4)  # its own images are 7.5 Å away
    assert (around.coordination[:-1] > 0).all()
