"""Crystals of every format become the same candidates; what cannot be read stays a row with its reason."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.db import connect
from ase.io import read, write
from fourteen_atoms import cell_of, real_atoms
from pymatgen.io.ase import AseAtomsAdaptor

from nucleate.crystal import Crystal
from nucleate.data import Store
from nucleate.errors import SourceError
from nucleate.evaluation.candidate import Candidate
from nucleate.evaluation.reading import open_crystals, read_candidates, store_candidates
from nucleate.generation.checks import check_crystal
from nucleate.generation.result_folder import ResultFolder


def _csv(folder: Path) -> str:
    path = folder / "set.csv"
    with path.open("w") as file:
        file.write("material_id,e_hull,cif\n")
        for i, atoms in enumerate(real_atoms()):
            write(folder / "one.cif", atoms)
            text = (folder / "one.cif").read_text().replace('"', "'")
            file.write(f'm{i},{0.1 * i},"{text}"\n')
    return str(path)


def _csv_gz(folder: Path) -> str:
    path = _csv(folder)
    with gzip.open(path + ".gz", "wt") as file:
        file.write(Path(path).read_text())
    return path + ".gz"


def _parquet(folder: Path) -> str:
    cells = [cell_of(atoms) for atoms in real_atoms()]
    table = pa.table(
        {
            "numbers": [c.atomic_numbers.tolist() for c in cells],
            "lattice": [c.lattice.ravel().tolist() for c in cells],
            "frac_coords": [c.frac_coords.ravel().tolist() for c in cells],
        }
    )
    pq.write_table(table, folder / "set.parquet")
    return str(folder / "set.parquet")


def _parquet_cif(folder: Path) -> str:
    texts = []
    for atoms in real_atoms():
        write(folder / "one.cif", atoms)
        texts.append((folder / "one.cif").read_text())
    pq.write_table(pa.table({"cif": texts}), folder / "cifs.parquet")
    return str(folder / "cifs.parquet")


def _extxyz(folder: Path) -> str:
    write(folder / "set.extxyz", real_atoms())
    return str(folder / "set.extxyz")


def _database(folder: Path) -> str:
    with connect(folder / "set.db") as database:
        for atoms in real_atoms():
            database.write(atoms)
    return str(folder / "set.db")


def _poscars(folder: Path) -> str:
    (folder / "poscars").mkdir()
    for i, atoms in enumerate(real_atoms()):
        write(folder / "poscars" / f"{i:02d}.vasp", atoms, format="vasp", direct=True)
    return str(folder / "poscars")


def _archive(folder: Path) -> str:
    _poscars(folder)
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for path in sorted((folder / "poscars").iterdir()):
            archive.write(path, path.name)
    return str(folder / "set.zip")


FORMATS = [_csv, _csv_gz, _parquet, _parquet_cif, _extxyz, _database, _poscars, _archive]


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__.strip("_"))
def test_every_format_gives_the_same_crystals(
    make: object, tmp_path: Path, candidates: list[Candidate]
) -> None:
    found = list(read_candidates(make(tmp_path)))  # type: ignore[operator]
    assert [c.row for c in found] == list(range(14))
    assert [c.crystal.bucket_key for c in found if c.crystal] == [
        c.crystal.bucket_key for c in candidates if c.crystal
    ]
    if make is _csv:
        assert (found[3].id, found[3].given["e_hull"]) == ("m3", pytest.approx(0.3))
        assert found[3].file.endswith("set.csv row 3")


def test_structures_in_memory_are_read_too(candidates: list[Candidate]) -> None:
    atoms = real_atoms()
    mixed = [
        atoms[0],
        AseAtomsAdaptor.get_structure(atoms[1]),
        cell_of(atoms[2]),
        candidates[3].crystal,
        "nonsense",
    ]
    found = list(read_candidates(mixed))
    assert [c.crystal.formula if c.crystal else None for c in found] == ["Cu", "Si", "Fe", "Mg", None]
    assert found[4].problem
    with pytest.raises(SourceError, match="sequence is empty"):
        open_crystals([])


def test_what_lies_beside_the_crystals_of_an_archive_does_not_count(tmp_path: Path) -> None:
    _poscars(tmp_path)
    path = tmp_path / "set.zip"
    attributes = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "  # how AppleDouble begins
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/README.txt", "made by us")
        for file in sorted((tmp_path / "poscars").iterdir()):
            archive.write(file, f"set/{file.name}")
            archive.writestr(f"__MACOSX/set/._{file.name}", attributes)
        archive.writestr("set/broken.cif", "data_broken")
    report = store_candidates(path, str(tmp_path / "work"))
    assert len(report.candidates) == 15
    assert report.num_unreadable == 1
    assert len(report.ignored) == 15
    assert sum("README" in item.file for item in report.ignored) == 1
    # Half an archive is a loss: the reason is a row of its own and counts.
    content = path.read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    cut = store_candidates(tmp_path / "cut.zip", str(tmp_path / "cut"))
    assert (len(cut.candidates), cut.num_unreadable, cut.ignored) == (1, 1, ())


def test_a_folder_keeps_what_is_broken_and_passes_over_what_is_no_crystal(
    crystal_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cifs"
    shutil.copytree(crystal_folder, folder)
    (folder / "README.md").write_text("made by us")
    (folder / "scores.csv").write_text("id,score\na,1\n")
    report = store_candidates(folder, str(tmp_path / "work"))
    assert (len(report.candidates), report.num_unreadable, report.num_refused) == (16, 2, 0)
    assert sorted(Path(item.file).name for item in report.ignored) == ["README.md", "scores.csv"]
    broken, clash = report.candidates[14], report.candidates[15]
    assert broken.unit_cell is None
    assert broken.problem
    assert "0.0000 Å" in clash.problem
    table = report.candidates.base_table()
    assert table.column("row").to_pylist() == list(range(16))
    assert table.column("formula").to_pylist()[14:] == [None, None]
    assert table.column("is_read").to_pylist()[14:] == [False, False]
    assert table.column("is_encoded").to_pylist() == [True] * 14 + [False, False]
    oracle = [a.get_masses().sum() / a.get_volume() * 1.66053906660 for a in real_atoms()]
    assert table.column("density").to_pylist()[:14] == pytest.approx(oracle, rel=1e-3)


def test_a_cell_that_is_no_crystal_is_read_but_refused(tmp_path: Path) -> None:
    row = {"numbers": [11, 17], "lattice": (4.0 * np.eye(3)).ravel().tolist(), "frac_coords": [0.5] * 6}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "clash.parquet")
    report = store_candidates(tmp_path / "clash.parquet", str(tmp_path / "work"))
    assert (report.num_unreadable, report.num_refused) == (0, 1)
    table = report.candidates.base_table().to_pylist()[0]
    assert (table["is_read"], table["is_encoded"], table["formula"]) == (True, False, "ClNa")
    assert table["volume_per_atom"] == pytest.approx(32)
    assert "0.0000 Å" in table["problem"]


def test_what_was_read_is_not_read_again_until_it_changes(
    crystal_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, work = tmp_path / "cifs", str(tmp_path / "work")
    shutil.copytree(crystal_folder, folder)
    first = store_candidates(folder, work)
    with monkeypatch.context() as patch:
        patch.setattr("nucleate.evaluation.reading.make_candidate", None)
        again = store_candidates(folder, work)
    assert again.candidates.digest == first.candidates.digest
    assert (again.num_unreadable, again.num_refused) == (2, 0)
    write(folder / "c00.cif", real_atoms()[1])
    changed = store_candidates(folder, work)
    assert changed.candidates.digest != first.candidates.digest
    assert changed.candidates[0].crystal is not None
    assert changed.candidates[0].crystal.formula == "Si"


def test_a_run_folder_brings_what_was_asked(tmp_path: Path, candidates: list[Candidate]) -> None:
    crystals = [c.crystal for c in candidates if c.crystal]
    rows = [check_crystal(i, crystal) for i, crystal in enumerate(crystals)]
    folder = ResultFolder(tmp_path / "run")
    folder.begin({"condition": {"formula": "NaCl", "space_group": None}})
    folder.add(list(zip(rows, crystals)), rows, crystals)
    folder.write_run({"asked": {"condition": {"formula": "NaCl", "space_group": None}}, "seconds": 3.0})
    found = list(read_candidates(tmp_path / "run"))
    assert [c.crystal.bucket_key for c in found if c.crystal] == [c.bucket_key for c in crystals]
    assert {c.given["formula_asked"] for c in found} == {"NaCl"}
    assert [c.given["space_group_asked"] for c in found] == [c.space_group_number for c in crystals]
    assert "space_group_asked" not in json.loads((tmp_path / "run" / "run.json").read_text())


def test_a_store_is_read_as_it_is(reference_store: Store) -> None:
    found = list(read_candidates(reference_store.location))
    assert [c.id for c in found] == [record.id for record in reference_store]
    stored: list[Crystal] = list(reference_store.iter_crystals())
    assert [c.crystal.bucket_key for c in found if c.crystal] == [c.bucket_key for c in stored]


def test_nothing_to_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="There is no file, folder or match"):
        store_candidates(tmp_path / "none", str(tmp_path / "work"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no crystal")
    with pytest.raises(SourceError, match=r"There are no crystals in notes: .*a\.txt"):
        store_candidates(tmp_path / "notes", str(tmp_path / "work"))


def test_ase_reads_back_what_was_written(crystal_folder: Path) -> None:
    # The CIFs of the fixture are what the tests above take them for.
    volumes = [read(crystal_folder / f"c{i:02d}.cif").get_volume() for i in range(14)]
    np.testing.assert_allclose(volumes, [a.get_volume() for a in real_atoms()], rtol=1e-6)
