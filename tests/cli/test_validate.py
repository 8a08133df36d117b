"""``nucleate validate`` on good and damaged files: lines, values, exit codes and repair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import read, write
from ase.spacegroup import crystal as ase_crystal
from click.testing import Result
from typer.testing import CliRunner

from nucleate.cli.app import app


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Rock salt, rutile with oxygen pushed into titanium, and a file that is none."""
    write(tmp_path / "salt.cif", bulk("NaCl", "rocksalt", a=5.64))
    rutile = ase_crystal(
        ["Ti", "O"], [(0, 0, 0), (0.2, 0.2, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]
    )
    write(tmp_path / "rutile.vasp", rutile)
    (tmp_path / "junk.cif").write_text("hello")
    return tmp_path


def _validate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)], env={"COLUMNS": "160"})


def test_a_good_crystal_passes_with_every_number_on_one_line(files: Path) -> None:
    result = _validate(files / "salt.cif")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    assert line.startswith("ok")
    for part in (
        "ClNa Fm-3m",
        "d 2.820 Å",
        "g/cm³",
        "SMACT yes",
        "single_valence",
        "CN 6.0",
        "groups 225 225 225",
    ):
        assert part in line


def test_failures_are_named_and_the_exit_code_tells(files: Path) -> None:
    result = _validate(files / "salt.cif", files / "rutile.vasp", files / "junk.cif", files / "absent.cif")
    assert result.exit_code == 1
    ok, clash, junk, absent = result.stdout.splitlines()
    assert ok.startswith("ok")
    assert clash.startswith("FAIL")
    assert "O-Ti at 1.299 Å" in clash
    assert junk.startswith("FAIL")
    assert "CIF" in junk
    assert absent.startswith("FAIL")
    assert "3 of 4 crystals fail" in result.stderr


def test_json_holds_every_check(files: Path) -> None:
    result = _validate(files / "rutile.vasp", "--json")
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    assert values["ok"] is False
    assert values["pair_distances_ok"] is False
    assert values["structurally_valid"] is True  # 1.3 Å is enough for the published rule
    assert values["min_distance"] == pytest.approx(1.2994, abs=1e-3)
    assert values["space_groups_moyopy"] == [136, 136, 136]
    assert "bond_histogram" not in values


def test_repair_keeps_the_group_and_what_comes_out_passes(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "repaired"
    result = _validate(files / "salt.cif", files / "rutile.vasp", "--repair", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    salt, rutile = map(json.loads, result.stdout.splitlines())
    assert "repair" not in salt
    assert rutile["repair"]["outcome"] == "repaired"
    assert rutile["repair"]["max_displacement"] > 0.05
    assert any("O 4f" in text for text in rutile["repair"]["moved"])
    (written,) = out.iterdir()
    again = json.loads(_validate(written, "--json").stdout)
    assert again["ok"]
    assert again["space_group_number"] == 136
    assert len(read(written)) == 6


def test_what_cannot_be_repaired_says_so(files: Path, tmp_path: Path) -> None:
    result = _validate(files / "junk.cif", files / "rutile.vasp", "--repair", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 of 2 crystals repaired" in result.stderr
    clash = bulk("NaCl", "rocksalt", a=5.64)
    clash.positions[1] = clash.positions[0] + 0.001
    write(tmp_path / "clash.vasp", clash)
    result = _validate(tmp_path / "clash.vasp", "--repair", "--out", tmp_path / "none")
    assert result.exit_code == 1
    assert "on top of each other" in result.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("options", [["--repair"], ["--out", "folder"]])
def test_repair_needs_a_folder(files: Path, options: list[str]) -> None:
    result = _validate(files / "salt.cif", *options)
    assert result.exit_code == 2


def test_a_folder_with_files_in_it_is_not_written_to(files: Path) -> None:
    result = _validate(files / "salt.cif", "--repair", "--out", files)
    assert result.exit_code == 2
    assert "not an empty folder" in result.stderr
