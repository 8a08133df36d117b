"""Controls change what they say they change and nothing else; spglib, pymatgen and counting are the judges."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import spglib
from pymatgen.analysis.structure_matcher import StructureMatcher

from nucleate.crystal import UnitCell, encode
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.data.bundled import bundled_crystal, load_bundled
from nucleate.errors import ConfigError
from nucleate.evaluation.controls import (
    CONTROLS,
    _without_repeats,
    compress,
    control_set,
    duplicate,
    supercell,
)
from nucleate.evaluation.random_symmetry import random_symmetric_crystal

CELLS = [c.unit_cell for c in load_bundled() if c.unit_cell.num_atoms <= 16][::4]

# Of the eleven pairs of groups that are each other's mirror image.
ENANTIOMORPHS = ({152, 154}, {180, 181}, {92, 96}, {212, 213}, {144, 145}, {76, 78}, {91, 95}, {169, 170})


def _spglib(cell: UnitCell, symprec: float = 1e-3) -> int:
    return spglib.get_spacegroup_type(
        spglib.get_symmetry_dataset(
            (cell.lattice, cell.frac_coords, cell.atomic_numbers), symprec=symprec
        ).hall_number
    ).number


def _elements(cells) -> Counter:
    return Counter(z for cell in cells for z in set(cell.atomic_numbers.tolist()))


def _volume(cell: UnitCell) -> float:
    return cell.volume / cell.num_atoms


def test_every_control_is_reproducible():
    for name in CONTROLS:
        first, second = (control_set(name, CELLS[:6], seed=3) for _ in range(2))
        assert all(np.array_equal(a.frac_coords, b.frac_coords) for a, b in zip(first, second)), name
    with pytest.raises(ConfigError, match="no control 'shuffle'"):
        control_set("shuffle", CELLS)


def test_shuffled_species_keep_geometry_and_the_elements_of_the_set():
    shuffled = control_set("shuffled_species", CELLS)
    assert _elements(shuffled) == _elements(CELLS)
    assert [_spglib(cell) for cell in shuffled] == [_spglib(cell) for cell in CELLS]
    assert [len(set(c.atomic_numbers)) for c in shuffled] == [len(set(c.atomic_numbers)) for c in CELLS]
    changed = [set(a.atomic_numbers) != set(b.atomic_numbers) for a, b in zip(shuffled, CELLS)]
    assert np.mean(changed) > 0.9
    # Three cards of which two are equal cannot be one hand.
    with pytest.raises(ConfigError, match="two of a kind"):
        _without_repeats(np.array([1, 1, 2]), np.array([0, 0, 0]), np.random.default_rng(0))


def test_random_symmetric_crystals_have_exact_symmetry_and_composition(rng):
    made = control_set("random_symmetric", CELLS)
    groups = {_spglib(cell) for cell in CELLS}
    exact = 0
    for cell, origin in zip(made, CELLS):
        a, b = (unit_cell_to_pymatgen(c).composition.reduced_formula for c in (cell, origin))
        assert a == b
        assert _volume(cell) == pytest.approx(_volume(origin))
        exact += _spglib(cell) in groups
    # A random template may have more symmetry than its group (all atoms on special positions).
    assert exact > 0.6 * len(made)
    with pytest.raises(ConfigError, match="not placed"):
        # Twelve images at least in Ia-3d (primitive cell), one to four atoms are wanted.
        random_symmetric_crystal({8: 1}, groups=[230], volume_per_atom=10.0, rng=rng)


def test_rattling_inside_the_symmetry_keeps_the_group():
    rattled = control_set("rattled_in_symmetry", CELLS)
    kept = [_spglib(a) == _spglib(b) for a, b in zip(rattled, CELLS)]
    assert np.mean(kept) > 0.95
    for cell, origin in zip(rattled, CELLS):
        assert _volume(cell) == pytest.approx(_volume(origin))
        crystal, before = encode(cell).crystal, encode(origin).crystal
        assert crystal.num_free_coords == before.num_free_coords or _spglib(cell) != _spglib(origin)
    moved = [
        encode(o).crystal.num_free_coords > 0
        and not StructureMatcher(stol=0.05).fit(*map(unit_cell_to_pymatgen, (c, o)))
        for c, o in zip(rattled, CELLS)
    ]
    assert np.mean(moved) > 0.3


def test_rattling_to_p1_leaves_no_symmetry():
    assert {_spglib(cell, 0.01) for cell in control_set("rattled_to_p1", CELLS) if cell.num_atoms > 2} == {1}


def test_compression_multiplies_lengths():
    for small, cell in zip(compress(CELLS, factor=0.5), CELLS):
        assert small.volume == pytest.approx(cell.volume / 8)
        assert _spglib(small) == _spglib(cell)
    with pytest.raises(ConfigError, match="positive"):
        compress(CELLS, factor=0.0)


@pytest.mark.parametrize("name", ["duplicates", "mirror_images", "supercells", "redescribed"])
def test_the_same_crystals_stay_the_same(name):
    changed = control_set(name, CELLS)
    times = len(changed) // len(CELLS)
    for i, cell in enumerate(changed):
        origin = CELLS[i // times]
        # Inversion exchanges the eleven pairs of enantiomorphic groups, P3_121 and P3_221 among them.
        assert _spglib(cell) == _spglib(origin) or (
            name == "mirror_images" and {_spglib(cell), _spglib(origin)} in ENANTIOMORPHS
        )
        assert encode(cell).crystal.bucket_key == encode(origin).crystal.bucket_key
    for cell, origin in list(zip(changed[::times], CELLS))[::3]:
        assert StructureMatcher().fit(*map(unit_cell_to_pymatgen, (cell, origin)))


def test_copies_are_other_descriptions(rng):
    quartz = bundled_crystal("sio2-alpha-quartz-p3-121").unit_cell
    copies = duplicate([quartz], rng, copies=3)
    assert len(copies) == 3
    assert not np.allclose(copies[0].frac_coords, copies[1].frac_coords)
    handedness = {encode(copy).crystal.handedness for copy in copies}
    assert len(handedness) == 1
    assert encode(control_set("mirror_images", [quartz])[0]).crystal.handedness == -handedness.pop()


def test_supercells_are_larger():
    assert [cell.num_atoms for cell in supercell(CELLS, matrix=(2, 1, 3))] == [6 * c.num_atoms for c in CELLS]
    with pytest.raises(ConfigError, match="three numbers"):
        supercell(CELLS, matrix=(2, 0, 1))
