"""Foreign structure objects and text as unit cells and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.crystal.convert import (
    decode_text,
    to_unit_cell,
    unit_cell_from_ase,
    unit_cell_from_pymatgen,
    unit_cell_to_ase,
    unit_cell_to_pymatgen,
)
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import (
    DisorderedStructureError,
    InvalidStructureError,
    NucleateError,
    ParseError,
    StructureTooLargeError,
)

LATTICE = np.array([[4.0, 0.1, 0.0], [0.3, 5.0, 0.2], [0.0, -0.4, 6.0]])
COORDS = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.25, -0.25, 0.3]])


def cell(**properties) -> UnitCell:
    return UnitCell(LATTICE, COORDS, np.array([1, 26, 8]), properties)


def full_cell(rng: np.random.Generator) -> UnitCell:
    return cell(
        magnetic_moment=np.array([0.0, 3.5, -0.1]),
        oxidation_state=np.array([1.0, 3.0, -2.0]),
        mass_number=np.array([2, 0, 0]),
        forces=rng.standard_normal((3, 3)),
        label=np.array(["D1", "Fe1", "O1"]),
        tags=np.array([1, 2, 3]),
    )


def assert_same(a: UnitCell, b: UnitCell) -> None:
    assert np.allclose(a.lattice, b.lattice, atol=1e-14)
    assert np.allclose(a.frac_coords, b.frac_coords, atol=1e-13)
    assert (a.atomic_numbers == b.atomic_numbers).all()
    assert set(a.site_properties) == set(b.site_properties)
    for key, values in a.site_properties.items():
        assert np.array_equal(np.asarray(values), np.asarray(b.site_properties[key])), key


@pytest.mark.parametrize("handedness", [1, -1])
def test_there_and_back_with_every_property(rng: np.random.Generator, handedness: int) -> None:
    full = full_cell(rng)
    full = UnitCell(full.lattice * [1, 1, handedness], COORDS, full.atomic_numbers, full.site_properties)
    structure, atoms = unit_cell_to_pymatgen(full), unit_cell_to_ase(full)
    assert [str(site.specie) for site in structure] == ["D+", "Fe3+", "O2-"]
    assert structure.site_properties["magmom"] == [0.0, 3.5, -0.1]
    assert atoms.get_initial_magnetic_moments().tolist() == [0.0, 3.5, -0.1]
    assert np.array_equal(atoms.get_forces(), full.site_properties["forces"])
    assert atoms.get_masses()[0] == pytest.approx(2.0141, abs=1e-3)
    assert_same(to_unit_cell(structure), full)
    assert_same(to_unit_cell(atoms), full)
    assert to_unit_cell(full) is full


def test_agrees_with_pymatgens_own_ase_adaptor(rng: np.random.Generator) -> None:
    from pymatgen.io.ase import AseAtomsAdaptor

    plain = cell(magnetic_moment=np.array([0.0, 3.5, -0.1]), oxidation_state=np.array([1.0, 3.0, -2.0]))
    atoms = AseAtomsAdaptor.get_atoms(unit_cell_to_pymatgen(plain))
    assert_same(to_unit_cell(atoms), plain)
    assert_same(to_unit_cell(AseAtomsAdaptor.get_structure(unit_cell_to_ase(plain))), plain)


def test_moment_vectors_spins_isotopes_and_constraints() -> None:
    from ase import Atoms
    from ase.constraints import FixAtoms, FixCartesian
    from pymatgen.core import Lattice, Species, Structure
    from pymatgen.electronic_structure.core import Magmom

    structure = Structure(
        Lattice(LATTICE),
        ["Fe", Species("Fe", 2, spin=5), "O"],
        COORDS,
        site_properties={"magmom": [Magmom([1, 0, 2]), 3, None]},
    )
    read = unit_cell_from_pymatgen(structure)
    moments = read.site_properties["magnetic_moment"]
    assert moments[:2].tolist() == [[1, 0, 2], [0, 0, 3]]
    assert np.isnan(moments[2]).all()
    assert np.array_equal(read.site_properties["spin"], [np.nan, 5, np.nan], equal_nan=True)
    assert np.array_equal(read.site_properties["oxidation_state"], [np.nan, 2, np.nan], equal_nan=True)
    assert unit_cell_to_pymatgen(read)[1].specie == Species("Fe", 2, spin=5)

    atoms = Atoms("CClO", cell=LATTICE, scaled_positions=COORDS, pbc=True)
    atoms.set_masses([13.00335, 35.45, 15.999])
    atoms.set_constraint([FixAtoms([0]), FixCartesian(2, mask=(True, False, False))])
    read = unit_cell_from_ase(atoms)
    assert read.site_properties["mass_number"].tolist() == [13, 0, 0]
    assert read.site_properties["selective_dynamics"].tolist() == [
        [False] * 3,
        [True] * 3,
        [False, True, True],
    ]
    assert_same(unit_cell_from_ase(unit_cell_to_ase(read)), read)


def test_disorder_dummies_and_molecules_are_refused() -> None:
    from ase import Atoms
    from pymatgen.core import DummySpecies, Lattice, Molecule, Structure

    lattice = Lattice(LATTICE)
    mixed = Structure(lattice, [{"Fe": 0.5, "Ni": 0.5}, "O", {"Na": 0.9}], COORDS)
    with pytest.raises(DisorderedStructureError, match=r"2 partially .*Fe:0\.5, Ni:0\.5.*Na:0\.9"):
        to_unit_cell(mixed)
    with pytest.raises(InvalidStructureError, match="dummy species"):
        to_unit_cell(Structure(lattice, ["Fe", DummySpecies("X"), "O"], COORDS))
    with pytest.raises(InvalidStructureError, match="has no lattice"):
        to_unit_cell(Molecule(["H"], [[0, 0, 0]]))
    with pytest.raises(InvalidStructureError, match="periodic along"):
        to_unit_cell(Structure(Lattice(LATTICE, pbc=(True, True, False)), ["Fe"], [[0, 0, 0]]))
    with pytest.raises(InvalidStructureError, match="has no cell"):
        to_unit_cell(Atoms("H2", [[0, 0, 0], [0, 0, 1]]))
    with pytest.raises(InvalidStructureError, match=r"set atoms\.pbc = True"):
        to_unit_cell(Atoms("H", cell=LATTICE))
    with pytest.raises(InvalidStructureError, match="atomic number 0"):
        to_unit_cell(Atoms("X", cell=LATTICE, pbc=True))
    partial = Atoms("Fe", cell=LATTICE, pbc=True, info={"occupancy": {"0": {"Fe": 0.5, "Ni": 0.5}}})
    with pytest.raises(DisorderedStructureError, match="kind 0"):
        to_unit_cell(partial)


@pytest.mark.parametrize(
    ("lattice", "coords", "numbers", "reason"),
    [
        (LATTICE * np.nan, COORDS, [1, 26, 8], "NaN or infinite"),
        (LATTICE, COORDS + np.inf, [1, 26, 8], "NaN|fractional coordinates"),
        (LATTICE * [1, 1, 0], COORDS, [1, 26, 8], "without volume"),
        (LATTICE * [[1], [1], [1e-3]], COORDS, [1, 26, 8], "without volume"),
        (LATTICE * 1e5, COORDS, [1, 26, 8], "longer than"),
        (
            LATTICE,
            COORDS[[0, 1, 1]] + [[0, 0, 0], [0, 0, 0], [3, -2, 1e-3]],
            [1, 26, 8],
            r"Fe \(site 2\) and O \(site 3\)",
        ),
        (LATTICE, COORDS, [1, 119, 8], "atomic number 119"),
        (LATTICE, COORDS, [1, -1, 8], "atomic number -1"),
        (LATTICE, COORDS[:0], [], "no atoms"),
    ],
)
def test_what_is_no_crystal_is_refused(lattice, coords, numbers, reason) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(InvalidStructureError, match=reason):
        to_unit_cell(UnitCell(lattice, coords, np.array(numbers, dtype=np.int64)))


def test_limits() -> None:
    with pytest.raises(StructureTooLargeError, match="3 atoms or more, the limit is 2"):
        to_unit_cell(cell(), max_atoms=2)
    with pytest.raises(InvalidStructureError, match="'forces' has 2 values for 3 atoms"):
        to_unit_cell(cell(forces=np.zeros((2, 3))))


def test_overlaps_are_found_in_large_cells_too(rng: np.random.Generator) -> None:
    coords = rng.random((900, 3))
    lattice, numbers = LATTICE * 20, np.full(900, 14)
    assert to_unit_cell(UnitCell(lattice, coords, numbers)).num_atoms == 900
    coords[700] = coords[13] + [1, -1, 0.00001]
    with pytest.raises(InvalidStructureError, match=r"Si \(site 14\) and Si \(site 701\)"):
        to_unit_cell(UnitCell(lattice, coords, numbers))


def test_text_is_told_apart_and_paths_are_refused(tmp_path: Path) -> None:
    poscar = "x\n1.0\n4 0 0\n0 4 0\n0 0 4\nFe\n1\nDirect\n0 0 0\n"
    cif = "data_a\n_symmetry_equiv_pos_as_xyz x,y,z\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n"
    cif += "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n_atom_site_label\n"
    cif += "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nFe1 0 0 0\n"
    assert to_unit_cell(poscar).num_atoms == to_unit_cell(cif).num_atoms == 1
    assert to_unit_cell("data_x" + poscar).num_atoms == 1
    for path in ("POSCAR", str(tmp_path / "a.cif"), ""):
        with pytest.raises(ParseError, match="not a path"):
            to_unit_cell(path)
    with pytest.raises(ParseError, match="is a path"):
        to_unit_cell(tmp_path)
    with pytest.raises(ParseError, match="decode_text"):
        to_unit_cell(b"data_a")
    with pytest.raises(ParseError, match="neither CIF"):
        to_unit_cell("some\ntext\n")
    with pytest.raises(ParseError, match=r"builtins\.int is not a structure"):
        to_unit_cell(3)


def test_telling_types_apart_imports_nothing_heavy() -> None:
    code = "import sys, nucleate.crystal.convert as c\ntry: c.to_unit_cell(3)\nexcept Exception: pass\n"
    code += "print([m for m in ('pymatgen', 'ase', 'gemmi', 'scipy', 'moyopy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_decode_text() -> None:
    text = "data_é\n_cell_length_a 4.0 # Å\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"):
        assert decode_text(text.encode(encoding), name="f") == text
    plain = text.replace("é", "e").replace("Å", "A")
    for encoding in ("utf-16-le", "utf-16-be"):
        assert decode_text(plain.encode(encoding), name="f") == plain
    for data, reason in (
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"data_a\x00\x01", "not text"),
    ):
        with pytest.raises(ParseError, match=f"f is .*{reason}"):
            decode_text(data, name="f")
    with pytest.raises(ParseError, match="not valid utf-16"):
        decode_text(b"\xff\xfea", name="f")


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    try:
        assert isinstance(decode_text(data, name="f"), str)
    except NucleateError:
        return
