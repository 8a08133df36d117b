"""``nucleate demo``: every file it promises, one row per crystal, every crystal survives."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import gemmi
import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from pymatgen.core import Structure
from typer.testing import CliRunner

from nucleate.cli.demo import demo
from nucleate.crystal import encode
from nucleate.data import showcase
from nucleate.data.bundled import bundled_crystal, load_bundled
from nucleate.data.canvas import Canvas
from nucleate.data.picture import Portrait, count_numbers, portrait_image
from nucleate.data.showcase import showcase_row

app = typer.Typer()
app.command()(demo)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo") / "results"
    result = CliRunner().invoke(app, ["--out", str(out)], env={"COLUMNS": "120"})
    assert result.exit_code == 0, (result.output, result.exception)
    return out, result.output


def test_every_crystal_survives(run: tuple[Path, str]) -> None:
    out, printed = run
    num = len(load_bundled())
    assert f"{num} of {num} crystals survive" in printed
    with (out / "crystals.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [crystal.id for crystal in load_bundled()]
    for check in ("has_stated_group", "found_again", "matches_input"):
        assert {row[check] for row in rows} == {"True"}
    assert pq.read_table(out / "crystals.parquet").num_rows == num


def test_run_is_described(run: tuple[Path, str]) -> None:
    described = json.loads((run[0] / "run.json").read_text(encoding="utf-8"))
    assert described["num_crystals"] == described["num_survived"] == len(load_bundled())
    assert described["settings"] == {"symprec": 0.01, "found_again_symprec": 1e-4}
    assert {"nucleate", "python", "moyopy"} <= set(described["versions"])


def test_cif_files_open_elsewhere_with_their_group(run: tuple[Path, str]) -> None:
    files = {path.stem: path for path in (run[0] / "crystals").glob("*.cif")}
    assert set(files) == {crystal.id for crystal in load_bundled()}
    for crystal_id in ("tio2-rutile", "naalsi3o8-low-albite", "sio2-alpha-quartz-p3-221", "mgal2o4-spinel"):
        bundled = bundled_crystal(crystal_id)
        small = gemmi.read_small_structure(str(files[crystal_id]))
        assert small.spacegroup.number == bundled.space_group_number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen says that it rounds 0.333333333
            density = Structure.from_file(files[crystal_id]).density
        assert density == pytest.approx(encode(bundled.unit_cell).crystal.density, rel=2e-3)


def test_picture_is_a_picture(run: tuple[Path, str]) -> None:
    with Image.open(run[0] / "crystals.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 1000
        assert np.asarray(picture.convert("L")).std() > 20


def test_damaged_crystal_does_not_survive() -> None:
    """Negative control: the row of a crystal that is not its input says so."""
    rutile, anatase = bundled_crystal("tio2-rutile"), bundled_crystal("tio2-anatase")
    wrong = showcase_row(rutile, encode(anatase.unit_cell).crystal, displacement=0.0, strain=0.0)
    assert not wrong.matches_input
    assert not wrong.has_stated_group
    assert not wrong.survived


def test_command_fails_if_a_crystal_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showcase, "_moyopy_group", lambda cell, symprec: 1)
    monkeypatch.setattr(showcase, "load_bundled", lambda: (bundled_crystal("tio2-rutile"),))
    result = CliRunner().invoke(app, ["--out", str(tmp_path)])
    assert result.exit_code == 1, result.exception
    assert "tio2-rutile" in result.output


def test_numbers_instead_of_coordinates() -> None:
    # Rutile: a, c and the x of oxygen, against a cell and six atoms.
    assert count_numbers(encode(bundled_crystal("tio2-rutile").unit_cell).crystal) == (3, 24)


def test_nearer_things_hide_farther_ones() -> None:
    canvas = Canvas(40, 2.0, fade=0.0)
    red, blue = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    canvas.sphere(np.array([0.0, 0.0, 1.0]), 0.5, red)
    canvas.sphere(np.array([0.0, 0.0, -1.0]), 1.0, blue)
    canvas.rod(np.array([-1.8, 0.0, 0.0]), np.array([1.8, 0.0, 0.0]), 0.1, (blue, blue))
    picture = canvas.image()
    assert picture[20, 20, 0] > picture[20, 20, 2], "the near sphere is in front"
    assert picture[20, 8, 2] > picture[20, 8, 0], "the far sphere shows around it"
    assert picture[20, 3, 2] > picture[20, 3, 0], "the rod sticks out"
    np.testing.assert_allclose(picture[1, 1], 1.0)


def test_portrait_shows_the_stored_atoms_outlined() -> None:
    crystal = encode(bundled_crystal("srtio3-strontium-titanate").unit_cell).crystal
    picture = portrait_image(Portrait(crystal, polyhedra=("Ti",)), 120)
    assert picture.shape == (120, 120, 3)
    outline = np.abs(picture - [0.09, 0.13, 0.19]).max(axis=-1) < 0.08
    assert outline.sum() > 20
