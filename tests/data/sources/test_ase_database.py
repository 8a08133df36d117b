"""ASE databases: against ASE's own reader, read-only, nothing built from what the file names."""

from __future__ import annotations

import json
import os
import sqlite3

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from nucleate.data.sources import ase_database, open_source


def fill(path, count=5):
    rows = []
    with connect(path) as database:
        for i in range(count):
            atoms = bulk("NaCl", "rocksalt", a=5.6 + 0.01 * i)
            atoms.set_initial_magnetic_moments([0.5 * i, 0.0])
            stress = np.arange(6.0) * i
            atoms.calc = SinglePointCalculator(
                atoms, energy=-1.0 * i, forces=np.full((2, 3), float(i)), stress=stress
            )
            database.write(
                atoms, key_value_pairs={"gap": 0.5 * i, "label": f"n{i}", "good": i % 2 == 0}, data={"x": [1]}
            )
            rows.append(atoms)
    return rows


@pytest.mark.parametrize("suffix", [".db", ".json"])
def test_against_ase(tmp_path, read_all, suffix, monkeypatch):
    monkeypatch.setattr(ase_database, "ROWS_PER_TASK", 2)
    path = tmp_path / f"set{suffix}"
    fill(path)
    before = path.read_bytes()
    contents = read_all(open_source(path))
    assert not contents.rejections
    for record, row in zip(contents.records, connect(path).select(), strict=True):
        atoms = row.toatoms()
        assert record.id == f"set-{row.id}"
        np.testing.assert_allclose(record.structure.lattice, atoms.cell[:], atol=1e-12)
        np.testing.assert_allclose(record.structure.cart_coords, atoms.positions, atol=1e-12)
        np.testing.assert_array_equal(record.structure.atomic_numbers, atoms.numbers)
        np.testing.assert_array_equal(record.structure.site_properties["forces"], atoms.get_forces())
        moments = atoms.get_initial_magnetic_moments()
        assert np.array_equal(record.structure.site_properties["magnetic_moment"], moments)
        assert record.properties["energy"] == row.energy
        assert record.properties["stress"] == row.stress.tolist()
        assert {k: record.properties[k] for k in ("gap", "label", "good")} == row.key_value_pairs
        assert record.units == {"energy": "eV", "stress": "eV/Å³"}
    assert path.read_bytes() == before
    assert [name for name in os.listdir(tmp_path) if "lock" in name or "journal" in name] == []


def test_molecules_and_bad_rows_are_named(tmp_path, read_all):
    path = tmp_path / "t.db"
    fill(path, 4)
    with connect(path) as database:
        database.write(molecule("H2O"))
        database.write(Atoms("X", cell=[3, 3, 3], pbc=True))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE systems SET positions = ? WHERE id = 2", (b"123",))
        connection.execute("UPDATE systems SET key_value_pairs = '{broken' WHERE id = 3")
    connection.close()
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["t-1", "t-4"]
    assert [rejection.row for rejection in contents.rejections] == [2, 3, 5, 6]


def test_deleted_rows_leave_gaps(tmp_path, read_all):
    path = tmp_path / "t.db"
    fill(path, 6)
    with connect(path) as database:
        database.delete([2, 3])
    contents = read_all(open_source(path))
    assert [record.provenance.row for record in contents.records] == [1, 4, 5, 6]
    assert contents.announced == 4


@pytest.mark.parametrize(
    "kind", ["empty", "truncated", "text", "other tables", "no rows", "broken json", "old"]
)
def test_damaged_database_has_a_reason(tmp_path, read_all, kind):
    path = tmp_path / ("t.json" if kind == "broken json" else "t.db")
    fill(path, {"no rows": 0, "truncated": 300}.get(kind, 12))
    if kind == "other tables":
        path.unlink()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE a (b)")
        connection.commit()
        connection.close()
    elif kind == "old":
        connection = sqlite3.connect(path)
        connection.execute("UPDATE information SET value = '4' WHERE name = 'version'")
        connection.commit()
        connection.close()
    elif kind != "no rows":
        good = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello"}.get(kind, good[: len(good) // 2]))
    before = path.read_bytes()
    contents = read_all(open_source(path))
    assert contents.rejections
    if kind not in ("truncated", "broken json"):
        assert len(contents.rejections) == 1
        assert not contents.records
    assert path.read_bytes() == before


def test_json_cannot_name_an_object_to_build(tmp_path, read_all):
    """ASE's own reader instantiates what ``__ase_objtype__`` names and allocates any ``__ndarray__``."""
    path = tmp_path / "t.json"
    fill(path, 1)
    content = json.loads(path.read_text())
    content["1"]["key_value_pairs"] = {
        "a": {"__ase_objtype__": "bandstructure", "path": 1},
        "b": {"__ndarray__": [[10**9, 10**9], "float64", []]},
    }
    path.write_text(json.dumps(content))
    contents = read_all(open_source(path))
    assert len(contents.rejections) == 1
    assert "shape" in contents.rejections[0].reason


def test_rows_are_counted_by_why(tmp_path, read_all):
    path = tmp_path / "set.db"
    slab = bulk("NaCl", "rocksalt", a=5.6)
    slab.pbc = (True, True, False)
    with connect(path) as database:
        database.write(slab)
        database.write(Atoms("Na", cell=np.eye(3), pbc=True))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE systems SET cell = ? WHERE id = 2", (np.full(9, np.nan).tobytes(),))
    connection.close()
    contents = read_all(open_source(path))
    assert [rejection.category for rejection in contents.rejections] == ["unreadable", "not a crystal"]
