"""Exported structures: other programs read the crystal that was stored; nothing lands outside the folder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gemmi
import pytest
from ase.io import read
from crystal_tables import TableWriter
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from nucleate.data import Store, build_store, export_store
from nucleate.errors import StoreError

STRANGE = (
    "../../escape",
    "con",
    "NaCl",
    "nacl",
    "a/b",
    "a?b",
    "",
    "x" * 300,
    "Ångström",
    "-rf",
    ".hidden",
    "a\nb",
)


@pytest.fixture
def store(tmp_path: Path, write_source: TableWriter) -> Store:
    build_store(write_source(24), tmp_path / "store")
    return Store.open(tmp_path / "store")


def _read(path: Path) -> Structure:
    if path.suffix == ".extxyz":
        return AseAtomsAdaptor.get_structure(read(path))
    return (
        Structure.from_file(path) if path.suffix == ".cif" else Structure.from_str(path.read_text(), "poscar")
    )


@pytest.mark.parametrize("file_format", ["cif", "poscar", "extxyz"])
def test_other_programs_read_the_crystal(store: Store, tmp_path: Path, file_format: str) -> None:
    report = export_store(store, tmp_path / "out", format=file_format)
    assert (report.num_written, report.num_kept) == (24, 0)
    with (tmp_path / "out" / "index.csv").open(newline="", encoding="utf-8") as file:
        names = {line["id"]: line["file"] for line in csv.DictReader(file)}
    matcher = StructureMatcher(primitive_cell=True)
    for record in store:
        path = tmp_path / "out" / names[record.id]
        assert path.stem == record.id
        found = _read(path)
        assert matcher.fit(found, record.crystal.to_structure()), record.id
        assert len(found) == record.crystal.num_atoms
        if file_format == "cif":
            group = gemmi.read_small_structure(str(path)).spacegroup
            assert group.number == record.crystal.space_group_number
        if file_format == "extxyz":
            atoms = read(path)
            assert atoms.info["id"] == record.id
            assert atoms.info["year"] == record.properties["year"]
    assert len(list((tmp_path / "out").glob("[!.]*"))) == 25


def test_an_interrupted_export_goes_on(store: Store, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 24
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_store(store, tmp_path / "out", on_progress=stop)
    assert not (tmp_path / "out" / "index.csv").exists()
    report = export_store(store, tmp_path / "out")
    assert (report.num_written, report.num_kept) == (14, 10)
    assert not list((tmp_path / "out").glob(".writing-*"))


def test_strange_ids_stay_inside_the_folder_and_apart(tmp_path: Path, write_source: TableWriter) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row, name in zip(rows, STRANGE, strict=True):
            row["material_id"] = name

    build_store(write_source(len(STRANGE), change=change), tmp_path / "store")
    store = Store.open(tmp_path / "store")
    before = set(tmp_path.rglob("*"))
    report = export_store(store, tmp_path / "deep" / "out")
    written = [p for p in tmp_path.rglob("*") if p not in before and p.is_file()]
    assert all(p.parent == tmp_path / "deep" / "out" for p in written)
    assert report.num_written == len(store)
    cifs = [p.name for p in written if p.suffix == ".cif"]
    assert len({name.casefold() for name in cifs}) == len(store)
    # A selection gets the names it has in the whole.
    part = export_store(store.split("train"), tmp_path / "part")
    assert {p.name for p in part.folder.glob("[!.]*.cif")} <= set(cifs)
    assert all(store.get(record.id).row == record.row for record in store)


def test_folders_of_something_else_are_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("five years")
    with pytest.raises(StoreError, match="is not empty: name a new folder"):
        export_store(store, tmp_path / "mine")
    export_store(store.split("test"), tmp_path / "out")
    with pytest.raises(StoreError, match="another store, format or cell"):
        export_store(store, tmp_path / "out", format="poscar")
    with pytest.raises(StoreError, match="no export format 'pdf': choose one of cif, poscar, extxyz"):
        export_store(store, tmp_path / "new", format="pdf")
    with pytest.raises(StoreError, match="is a file"):
        export_store(store, tmp_path / "mine" / "thesis.tex")
    with pytest.raises(StoreError, match="is a URL"):
        export_store(store, "s3://bucket/out")
