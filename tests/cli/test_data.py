"""``nucleate data``: build, info, show and export from the shell, and what bad input is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from ase.spacegroup import crystal as ase_crystal
from click.testing import Result
from pymatgen.core import Structure
from typer.testing import CliRunner

from nucleate.cli.data import data_app
from nucleate.data import Store


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(data_app, list(map(str, arguments)), env={"COLUMNS": "200"})


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    """A folder of structure files, one of them damaged."""
    rutile: Atoms = ase_crystal(
        ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]
    )
    folder = tmp_path / "structures"
    folder.mkdir()
    write(folder / "salt.cif", bulk("NaCl", "rocksalt", a=5.64), format="cif")
    write(folder / "rutile.vasp", rutile, format="vasp")
    write(folder / "iron.extxyz", bulk("Fe", cubic=True), format="extxyz")
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a none\n")
    return folder


@pytest.fixture
def store(structures: Path, tmp_path: Path) -> Path:
    """The store of that folder."""
    assert _run("build", structures, "--out", tmp_path / "store").exit_code == 0
    return tmp_path / "store"


def test_build_reports_what_it_did(structures: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("material_id,colour\nsalt,white\nrutile,white\nghost,none at all\n")
    result = _run(
        "build", structures, "--out", tmp_path / "store", "--properties", table, "--split", "formula"
    )
    assert result.exit_code == 0, result.output
    assert "3 crystals in" in result.stdout
    assert "1 left out (unreadable 1)" in result.stdout
    assert "1 records have no row" in result.stdout
    assert "1 rows of" in result.stdout
    assert "ghost" in result.stdout
    assert Store.open(tmp_path / "store").get("salt").properties == {"colour": "white"}
    assert "broken.cif" in (tmp_path / "store" / "rejected.csv").read_text()
    again = _run(
        "build", structures, "--out", tmp_path / "store", "--properties", table, "--split", "formula"
    )
    assert again.exit_code == 0
    assert "4 inputs were done by an earlier run." in again.stdout


def test_info_counts_and_draws(store: Path, tmp_path: Path) -> None:
    result = _run("info", store)
    assert result.exit_code == 0, result.output
    for expected in ("Fm-3m (225) 1", "P4_2/mnm (136) 1", "O 1", "symprec 0.01 Å", "unreadable 1"):
        assert expected in result.stdout
    names = {"space_groups.png", "elements.png", "orbits.png", "atoms.png", "density.png"}
    assert {p.name for p in (store / "plots").iterdir()} == names
    assert _run("info", store, "--out", tmp_path / "drawings").exit_code == 0
    assert {p.name for p in (tmp_path / "drawings").iterdir()} == names
    # A store with drawings in it is still the store that the same build command means.
    assert Store.open(store).damaged_shards() == {}


def test_show_is_one_readable_encoding(store: Path) -> None:
    result = _run("show", store, "rutile")
    assert result.exit_code == 0, result.output
    for expected in ("P4_2/mnm (136)", "2a", "4f", "u = ", "Å displacement", "rutile.vasp", "split"):
        assert expected in result.stdout


@pytest.mark.parametrize(
    ("file_format", "ending"), [("cif", ".cif"), ("poscar", ".vasp"), ("extxyz", ".extxyz")]
)
def test_export_writes_one_file_per_record(
    store: Path, tmp_path: Path, file_format: str, ending: str
) -> None:
    result = _run("export", store, "--out", tmp_path / "out", "--format", file_format)
    assert result.exit_code == 0, result.output
    assert "3 files written" in result.stdout
    assert {p.name for p in (tmp_path / "out").glob(f"*{ending}")} == {
        f"{n}{ending}" for n in ("salt", "rutile", "iron")
    }
    if file_format == "cif":
        assert Structure.from_file(tmp_path / "out" / "salt.cif").composition.reduced_formula == "NaCl"
    assert (
        "3 were there already" in _run("export", store, "--out", tmp_path / "out", "-f", file_format).stdout
    )


def test_the_original_cell_needs_the_frame(structures: Path, tmp_path: Path) -> None:
    built = _run("build", structures, "--out", tmp_path / "framed", "--keep-frame")
    assert built.exit_code == 0
    assert "Note:" not in built.stdout
    arguments = ("--out", tmp_path / "out", "--format", "extxyz", "--cell", "original")
    result = _run("export", tmp_path / "framed", *arguments)
    assert result.exit_code == 0, result.output
    iron = read(tmp_path / "out" / "iron.extxyz")
    assert iron.get_initial_magnetic_moments().tolist() == [2.3, 2.3]
    lost = _run("build", structures, "--out", tmp_path / "bare")
    assert "Site properties of 1 records (magnetic_moment) are not stored" in lost.stdout


def test_bad_input_gets_one_sentence_and_exit_code_1(store: Path, structures: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    for arguments, message in (
        (["build", tmp_path / "nowhere", "--out", out], "nowhere"),
        (["build", structures, "--out", out, "--split", "time"], "--split-column"),
        (["build", structures, "--out", out, "--fractions", "most,some,few"], "three numbers"),
        (["build", structures, "--out", out, "--fractions", "1,1,1"], "add up to 1"),
        (["build", structures, "--out", out, "--source-option", "licence"], "NAME=VALUE"),
        (["build", structures, "--out", out, "--source-option", "lisence=x"], "did you mean 'licence'?"),
        (["build", structures, "--out", out, "--properties", tmp_path / "no.csv"], "no.csv cannot be read"),
        (["build", structures, "--out", out, "--scheduler", "nonsense://x"], "No Dask scheduler"),
        (["build", structures, "--out", store, "--symprec", "0.1"], "0.01 there, 0.1 asked"),
        (["build", structures / "broken.cif", "--out", out], "No record of"),
        (["info", tmp_path / "nowhere"], "There is no store at"),
        (["info", store, "--split", "holdout"], "no split 'holdout'"),
        (["show", store, "unobtainium"], "No record 'unobtainium'"),
        (["export", store, "--out", structures], "is not empty"),
        (["export", store, "--out", out, "--cell", "original"], "build it again with --keep-frame"),
    ):
        result = _run(*arguments)
        assert result.exit_code == 1, (arguments, result.output)
        assert message in " ".join(result.output.split()), (arguments, result.output)
        assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["build", "info", "show", "export"])
def test_every_help_has_an_example(command: str) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert f"nucleate data {command}" in result.stdout


def test_the_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, nucleate.cli.data; "
        "heavy = ('numpy', 'pyarrow', 'moyopy', 'matplotlib', 'ase', 'pymatgen'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
