"""``nucleate encode`` on real files in every format, with bad ones among them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.spacegroup import crystal as ase_crystal
from click.testing import Result
from typer.testing import CliRunner

from nucleate.cli.app import app


def _rutile() -> Atoms:
    return ase_crystal(
        ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]
    )


def _structures() -> dict[str, Atoms]:
    return {
        "salt.cif": bulk("NaCl", "rocksalt", a=5.64),
        "rutile.vasp": _rutile(),
        "iron.extxyz": bulk("Fe", cubic=True),
    }


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with one good file of each format."""
    formats = {".cif": "cif", ".vasp": "vasp", ".extxyz": "extxyz"}
    for name, atoms in _structures().items():
        write(tmp_path / name, atoms, format=formats[Path(name).suffix])
    return tmp_path


def _encode(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["encode", *map(str, arguments)], env={"COLUMNS": "160"})


def _objects(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return {found["formula"]: found for found in map(json.loads, result.stdout.splitlines())}


def _spglib_number(atoms: Atoms, symprec: float = 0.01) -> int:
    dataset = spglib.get_symmetry_dataset(
        (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), symprec
    )
    return int(dataset.number)


def test_json_agrees_with_spglib_and_ase(files: Path) -> None:
    found = _objects(_encode(*(files / name for name in _structures()), "--json"))
    assert sorted(found) == ["ClNa", "Fe", "O2Ti"]
    for atoms in _structures().values():
        mine = next(
            o
            for o in found.values()
            if {x["atomic_number"] for x in o["orbits"]} == set(atoms.numbers.tolist())
        )
        assert mine["space_group_number"] == _spglib_number(atoms)
        assert mine["volume_per_atom"] == pytest.approx(atoms.get_volume() / len(atoms), rel=1e-6)
        assert sum(orbit["multiplicity"] for orbit in mine["orbits"]) == mine["num_atoms"]
        assert set(mine["space_group_numbers"].values()) == {mine["space_group_number"]}
        assert mine["max_displacement"] < 1e-5
        assert mine["max_strain"] < 1e-5


def test_free_coordinates_and_cell_of_rutile(files: Path) -> None:
    rutile = _objects(_encode(files / "rutile.vasp", "--json"))["O2Ti"]
    assert {(o["element"], o["wyckoff_letter"], o["multiplicity"]) for o in rutile["orbits"]} == {
        ("Ti", "a", 2),
        ("O", "f", 4),
    }
    (oxygen,) = (o for o in rutile["orbits"] if o["element"] == "O")
    # u, 1 - u and 1/2 - u name one orbit (or the one with the titanium moved from 2a to 2b)
    assert min(abs(oxygen["free_coords"][0] % 1 - x) for x in (0.305, 0.695, 0.195, 0.805)) < 1e-6
    assert rutile["cell"]["a"] == pytest.approx(4.594)
    assert rutile["cell"]["c"] == pytest.approx(2.959)
    assert rutile["cell"]["gamma"] == pytest.approx(90)
    assert len(rutile["lattice_params"]) == 2
    assert rutile["num_free_coords"] == 1


def test_summary_for_people(files: Path) -> None:
    result = _encode(files / "rutile.vasp")
    assert result.exit_code == 0
    for words in (
        "O2Ti",
        "P4_2/mnm (136)",
        "4.594",
        "4f",
        "u, u, 0",
        "u = ",
        "prototype key",
        "displacement",
        "strain",
    ):
        assert words in result.stdout
    for tolerance in ("0.1 Å: P4_2/mnm (136)", "0.01 Å: P4_2/mnm (136)", "0.001 Å: P4_2/mnm (136)"):
        assert tolerance in result.stdout


def test_folders_and_archives(files: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = tmp_path_factory.mktemp("archive") / "set.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for name in _structures():
            stream.write(files / name, name)
    assert (
        sorted(_objects(_encode(files, "--json")))
        == sorted(_objects(_encode(archive, "--json")))
        == ["ClNa", "Fe", "O2Ti"]
    )


def test_bad_files_are_named_and_the_good_ones_shown(files: Path) -> None:
    (files / "cut.cif").write_text((files / "salt.cif").read_text()[:200])
    (files / "noise.cif").write_bytes(bytes(range(256)))
    (files / "flat.vasp").write_text("flat\n1.0\n1 0 0\n0 1 0\n1 1 0\nNa\n1\nDirect\n0 0 0\n")
    (files / "notes.md").write_text("not a structure")
    bad = ["cut.cif", "noise.cif", "flat.vasp", "notes.md", "missing.cif"]
    result = _encode(*(files / name for name in ["salt.cif", *bad, "iron.extxyz"]), "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["formula"] for line in result.stdout.splitlines()] == ["ClNa", "Fe"]
    *reasons, count = result.stderr.splitlines()
    assert len(reasons) == len(bad)
    for name, reason in zip(bad, reasons):
        assert name in reason
        assert len(reason.split(": ", 1)[1]) > 20
        assert reason.count(f"{name}: ") <= 1
    assert count.startswith("2 of 7 structures encoded")
    assert "Traceback" not in result.output


def test_bad_row_of_a_file_is_named(tmp_path: Path) -> None:
    close = Atoms("Na2", positions=[[0, 0, 0], [0, 0, 0.001]], cell=[4, 4, 4], pbc=True)
    write(tmp_path / "many.extxyz", [bulk("Cu"), close, bulk("Al")], format="extxyz")
    result = _encode(tmp_path / "many.extxyz", "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["formula"] for line in result.stdout.splitlines()] == ["Cu", "Al"]
    assert "many.extxyz, row 1:" in result.stderr


def test_symprec_and_pseudo_symmetry(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.positions[0, 2] += 0.03
    write(tmp_path / "off.vasp", atoms, format="vasp")
    strict = _objects(_encode(tmp_path / "off.vasp", "--json"))["ClNa"]
    loose = _objects(_encode(tmp_path / "off.vasp", "--json", "--symprec", "0.1"))["ClNa"]
    assert strict["space_group_number"] == _spglib_number(atoms) < 225
    assert loose["space_group_number"] == _spglib_number(atoms, 0.1) == 225
    assert strict["space_group_numbers"]["0.1"] == 225
    assert strict["max_displacement"] < 1e-5
    assert 0.01 < loose["max_displacement"] < 0.031


def test_max_atoms(files: Path) -> None:
    result = _encode(files / "rutile.vasp", "--max-atoms", "5")
    assert result.exit_code == 1
    assert "6 atoms" in result.stderr
    assert "5" in result.stderr


def test_more_than_a_thousand_atoms_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "big.vasp", bulk("Cu", cubic=True).repeat((7, 7, 6)), format="vasp")
    assert _encode(tmp_path / "big.vasp").exit_code == 1
    found = _objects(_encode(tmp_path / "big.vasp", "--max-atoms", "2000", "--json"))
    assert found["Cu"]["space_group_number"] == 225


def test_subgroup(files: Path) -> None:
    found = _objects(_encode(files / "rutile.vasp", "--subgroup", "1", "--json"))["O2Ti"]
    assert found["space_group_number"] == 1
    assert [orbit["wyckoff_letter"] for orbit in found["orbits"]] == ["a"] * 6
    assert found["volume_per_atom"] == pytest.approx(_rutile().get_volume() / 6, rel=1e-6)
    assert np.prod([found["cell"][x] for x in "abc"]) == pytest.approx(_rutile().get_volume(), rel=1e-6)
    refused = _encode(files / "rutile.vasp", "--subgroup", "225")
    assert refused.exit_code == 1
    assert "225" in refused.stderr


def test_a_glob_without_a_match_is_an_error(tmp_path: Path) -> None:
    result = _encode(tmp_path / "*.cif")
    assert result.exit_code == 1
    assert "*.cif" in result.stderr


def test_what_sites_carry_is_shown_and_written(tmp_path: Path) -> None:
    atoms = bulk("NiO", "rocksalt", a=4.18, cubic=True)
    atoms.set_initial_magnetic_moments([1.7, 0, 1.7, 0, -1.7, 0, -1.7, 0])
    write(tmp_path / "nio.extxyz", atoms, format="extxyz")
    assert "magnetic_moment of the input's 8 atoms" in _encode(tmp_path / "nio.extxyz").stdout
    found = _objects(_encode(tmp_path / "nio.extxyz", "--json"))["NiO"]
    assert found["site_properties"]["magnetic_moment"] == pytest.approx([1.7, 0, 1.7, 0, -1.7, 0, -1.7, 0])
    elements = [found["orbits"][orbit]["element"] for orbit in found["atom_to_orbit"]]
    assert elements == atoms.get_chemical_symbols()


def test_a_site_without_a_charge_is_null_in_json(tmp_path: Path) -> None:
    text = "data_x\n_space_group_IT_number 221\n" + "".join(f"_cell_length_{x} 4\n" for x in "abc")
    text += "".join(f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma"))
    text += "loop_\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
    (tmp_path / "x.cif").write_text(text + "Cs1+ 0 0 0\nCl 0.5 0.5 0.5\n")
    found = _objects(_encode(tmp_path / "x.cif", "--json"))["ClCs"]
    assert found["site_properties"]["oxidation_state"] == [1.0, None]


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "10"])
def test_a_tolerance_that_cannot_be_is_wrong_usage(files: Path, wrong: str) -> None:
    result = _encode(files / "salt.cif", "--symprec", wrong)
    assert result.exit_code == 2
    assert "between 0 and 10 Å" in result.stderr
