"""The Crystal object: what it refuses, what follows from it, its cells."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import ase.data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants import assert_crystal_invariants
from pymatgen.core import Lattice, Structure
from synthetic import generic_crystal, random_crystal, same_encoding, smallest_distance

from nucleate.crystal import Crystal, encode, space_group
from nucleate.data.bundled import load_bundled
from nucleate.errors import InvalidStructureError, WyckoffError


def rutile(**changes) -> Crystal:
    """TiO2, volume per atom 10.4 Å^3."""
    fields = {
        "space_group_number": 136,
        "lattice_params": np.array([np.log(10.4) / 3**0.5, -0.36]),
        "wyckoff_indices": np.array([0, 5]),
        "atomic_numbers": np.array([22, 8]),
        "free_coords": np.array([[0.0, 0, 0], [0.305, 0, 0]]),
    }
    return Crystal(**{**fields, **changes})


def test_rutile() -> None:
    crystal = rutile()
    assert_crystal_invariants(crystal)
    assert crystal.formula == "O2Ti"
    assert crystal.composition == {8: 4, 22: 2}
    assert crystal.wyckoff_letters == ("a", "f")
    assert [p.label for p in crystal.positions] == ["2a", "4f"]
    assert crystal.multiplicities.tolist() == crystal.multiplicities_primitive.tolist() == [2, 4]
    assert (crystal.num_orbits, crystal.num_atoms, crystal.num_atoms_primitive) == (2, 6, 6)
    assert crystal.num_free.tolist() == [0, 1]
    assert crystal.num_free_coords == 1
    assert np.isclose(crystal.volume_per_atom, 10.4)
    assert repr(crystal) == "Crystal(O2Ti, P4_2/mnm (136), Ti 2a, O 4f (0.3050))"
    assert not crystal.is_chiral
    assert crystal.handedness == 0
    cell = crystal.unit_cell()
    expected = [
        [0, 0, 0],
        [0.5, 0.5, 0.5],
        [0.305, 0.305, 0],
        [0.695, 0.695, 0],
        [0.195, 0.805, 0.5],
        [0.805, 0.195, 0.5],
    ]
    found = {tuple(x) for x in np.round(cell.frac_coords, 9).tolist()}
    assert found == {tuple(map(float, x)) for x in expected}


@settings(max_examples=60, deadline=None)
@given(number=st.integers(1, 230), seed=st.integers(0, 2**32 - 1))
def test_invariants_hold_for_any_crystal(number: int, seed: int) -> None:
    assert_crystal_invariants(random_crystal(number, np.random.default_rng(seed)))


def test_the_invariants_notice_a_broken_orbit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with one atom in the wrong place the invariants fail."""
    crystal = rutile()
    coords = crystal.image_coords()
    coords[3] += 0.01
    monkeypatch.setattr(Crystal, "image_coords", lambda self: coords)
    with pytest.raises(AssertionError):
        assert_crystal_invariants(crystal)


@pytest.mark.parametrize("bundled", load_bundled(), ids=lambda b: b.id)
def test_density_and_formula_of_real_crystals_equal_those_of_pymatgen(bundled) -> None:
    crystal = encode(bundled.unit_cell).crystal
    cell = crystal.unit_cell("conventional")
    structure = Structure(Lattice(cell.lattice), cell.atomic_numbers, cell.frac_coords)
    assert np.isclose(crystal.density, float(structure.density), rtol=6e-3)  # polonium: 209 or 210
    assert structure.composition.reduced_formula == bundled_formula(structure, crystal)
    masses = ase.data.atomic_masses[cell.atomic_numbers].sum()
    assert np.isclose(crystal.density, masses / cell.volume * 1.66053906660, rtol=1e-6)


def bundled_formula(structure: Structure, crystal: Crystal) -> str:
    """pymatgen's reduced formula of our formula."""
    return type(structure.composition)(crystal.formula).reduced_formula


def test_primitive_and_conventional_cells_of_a_centred_crystal() -> None:
    crystal = Crystal(225, np.array([1.5]), np.array([0, 1]), np.array([11, 17]), np.zeros((2, 3)))
    assert (crystal.num_atoms, crystal.num_atoms_primitive) == (8, 2)
    primitive = crystal.unit_cell("primitive")
    assert np.allclose(np.linalg.norm(primitive.lattice, axis=1), crystal.lattice[0, 0] / 2**0.5)
    assert np.isclose(smallest_distance(crystal), crystal.lattice[0, 0] / 2)


def test_coordinates_lie_in_the_cell_even_when_rounding_pushes_them_out() -> None:
    """A coordinate of -1e-16 used to stay negative, and that of 1 - 1e-16 to become 1."""
    for value in (-1e-16, 1e-17, 1 - 1e-16, 0.5, -3.0):
        crystal = Crystal(
            1,
            np.array([1.7, 0.1, 0.0, 0, 0, 0]),
            np.array([0]),
            np.array([6]),
            np.array([[value, 0.2, -1e-13]]),
        )
        coords = crystal.unit_cell().frac_coords
        assert (coords >= 0).all()
        assert (coords < 1).all()


def test_a_crystal_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        rutile().space_group_number = 1
    assert same_encoding(replace(rutile()), rutile())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"space_group_number": 231}, WyckoffError, "run from 1 to 230, got 231"),
        (
            {"lattice_params": np.zeros(3)},
            InvalidStructureError,
            r"136 \(P4_2/mnm\) has 2 free lattice parameters, got 3",
        ),
        ({"lattice_params": np.array([1.0, np.nan])}, InvalidStructureError, "must be finite"),
        ({"free_coords": np.full((2, 3), np.inf)}, InvalidStructureError, "must be finite"),
        ({"wyckoff_indices": np.array([0, 11])}, WyckoffError, "has Wyckoff positions 0 to 10, got"),
        ({"wyckoff_indices": np.array([-1, 5])}, WyckoffError, "has Wyckoff positions 0 to 10, got"),
        (
            {"free_coords": np.array([[0.0, 0, 0], [0.3, 0.3, 0]])},
            WyckoffError,
            "the other columns .* must be zero",
        ),
        (
            {"free_coords": np.array([[0.1, 0, 0], [0.3, 0, 0]])},
            WyckoffError,
            "the other columns .* must be zero",
        ),
        (
            {"wyckoff_indices": np.array([0, 0]), "free_coords": np.zeros((2, 3))},
            WyckoffError,
            "2a of space group 136 has no free coordinate and holds one orbit only, but is used more than once",
        ),
        (
            {
                "wyckoff_indices": np.zeros(0, dtype=int),
                "atomic_numbers": np.zeros(0, dtype=int),
                "free_coords": np.zeros((0, 3)),
            },
            InvalidStructureError,
            "at least one orbit",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rutile(**changes)


@pytest.mark.parametrize(("u", "label"), [(0.0, "2a"), (0.5, "2b"), (1e-4, "2a"), (-1.5, "2b")])
def test_an_orbit_whose_images_meet_is_named(u: float, label: str) -> None:
    crystal = rutile(wyckoff_indices=np.array([1, 5]), free_coords=np.array([[0.0, 0, 0], [u, 0, 0]]))
    message = (
        rf"orbit 1 \(O on 4f of space group 136\).* 0\.00\d\d Å apart: the point belongs to position {label}"
    )
    with pytest.raises(WyckoffError, match=message):
        crystal.check_orbits()


@pytest.mark.parametrize("number", range(1, 231, 3))
def test_general_points_are_complete_orbits_and_points_of_other_positions_are_named(number: int) -> None:
    rng = np.random.default_rng(number)
    group = space_group(number)
    crystal = generic_crystal(number, 0, rng)
    crystal.check_orbits()
    general = group.wyckoff_positions[-1]
    for position in group.wyckoff_positions[:-1]:
        point = position.orbit(
            position.period_lattice @ np.array([0.137, 0.219, 0.391])[: position.num_free]
        )[-1]
        assert position.distance(point, lattice=crystal.lattice) < 1e-9
        free = crystal.free_coords.copy()
        free[-1] = np.linalg.solve(general.basis, point - general.origin)
        with pytest.raises(WyckoffError, match=f"belongs to position {position.label}"):
            replace(crystal, free_coords=free).check_orbits()
    off = crystal.representatives[-1]
    assert general.distance(off, lattice=crystal.lattice) < 1e-9
    for position in group.wyckoff_positions[:-1]:
        assert position.distance(off, lattice=crystal.lattice) > 0.01


def test_a_position_with_free_coordinates_holds_many_orbits() -> None:
    crystal = rutile(wyckoff_indices=np.array([5, 5]), free_coords=np.array([[0.1, 0, 0], [0.3, 0, 0]]))
    assert crystal.num_atoms == 8


@pytest.mark.parametrize("number", [62, 166, 225])
def test_from_structure_takes_a_unit_cell_and_passes_options_on(number: int) -> None:
    crystal = random_crystal(number, np.random.default_rng(number))
    cell = crystal.unit_cell("primitive")
    encoded = Crystal.from_structure(cell, symprec=1e-4)
    assert encoded.crystal.num_atoms_primitive == crystal.num_atoms_primitive
    assert Crystal.from_structure(cell, symprec=1e-4, subgroup=1).crystal.space_group_number == 1


def test_conversions_hold_the_same_atoms() -> None:
    crystal = rutile()
    for kind in ("conventional", "primitive"):
        structure, atoms = crystal.to_structure(kind), crystal.to_atoms(kind)
        cell = crystal.unit_cell(kind)
        assert np.allclose(structure.lattice.matrix, cell.lattice)
        assert np.allclose(atoms.cell[:], cell.lattice)
        assert np.allclose(structure.frac_coords, cell.frac_coords)
        assert (atoms.numbers == cell.atomic_numbers).all()
    for text in (crystal.to_cif(), crystal.to_poscar()):
        again = Crystal.from_structure(text).crystal
        assert again.bucket_key == crystal.bucket_key
        assert np.allclose(again.canonical().lattice_params, crystal.canonical().lattice_params, atol=1e-6)


def test_crystals_need_neither_moyopy_nor_pymatgen() -> None:
    code = (
        "import sys\n"
        "for name in ('moyopy', 'pymatgen', 'ase', 'gemmi', 'scipy', 'spglib', 'pyxtal', 'jaxtyping'):\n"
        "    sys.modules[name] = None\n"
        "import numpy as np\n"
        "from nucleate.crystal import Crystal, CrystalBatch, space_group\n"
        "from nucleate.crystal.reencode import random_encoding\n"
        "c = Crystal(136, np.array([1.4, -0.3]), np.array([0, 5]), np.array([22, 8]),\n"
        "            np.array([[0.0, 0, 0], [0.305, 0, 0]]))\n"
        "c = random_encoding(c, np.random.default_rng(0)).canonical()\n"
        "batch = CrystalBatch.from_crystals([c, c])\n"
        "print(c.prototype_key, c.handedness, len(batch.atoms().cart_coords))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["136:a|f", "0", "12"]


def test_all_groups_of_a_crystal_are_cached() -> None:
    assert rutile().group is space_group(136)
