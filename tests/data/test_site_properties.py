"""What sites carry (moments, charges, isotopes, labels, forces) is kept with the frame, or said to be lost."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pymatgen.core import Structure

from nucleate.crystal import UnitCell, encode
from nucleate.crystal.cif import unit_cell_from_cif
from nucleate.crystal.convert import to_unit_cell
from nucleate.crystal.poscar import unit_cell_from_poscar
from nucleate.data import Store, build_store, export_store
from nucleate.data.p1_cif import p1_cif
from nucleate.data.schema import SITE_COLUMN
from nucleate.data.site_values import site_properties_from_text, site_properties_to_text
from nucleate.errors import StoreError


def _same(found: object, expected: object) -> bool:
    found, expected = np.asarray(found), np.asarray(expected)
    if found.dtype.kind != expected.dtype.kind or found.shape != expected.shape:
        return False
    return np.array_equal(found, expected, equal_nan=expected.dtype.kind in "fc")


@given(
    st.one_of(
        arrays.arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(1, 3))),
        arrays.arrays(np.int64, st.integers(0, 5)),
        arrays.arrays(np.bool_, st.tuples(st.integers(1, 4), st.just(3))),
        arrays.arrays(np.complex128, st.integers(1, 3)),
        arrays.arrays("U6", st.integers(1, 4)),
    )
)
@example(np.array([complex(0, math.inf), complex(math.nan, -0.0)]))
def test_every_array_comes_back_to_the_last_bit(array: np.ndarray) -> None:
    text = site_properties_to_text({"anything": array})
    assert text is not None
    json.loads(text, parse_constant=pytest.fail)  # strict JSON: NaN is a word
    assert _same(site_properties_from_text(text)["anything"], array)


def test_mixed_values_come_back_too() -> None:
    values = np.empty(4, dtype=object)
    values[:] = [None, math.inf, {"spin": [1, math.nan]}, "text"]
    back = site_properties_from_text(site_properties_to_text({"mixed": values}))["mixed"]
    assert back[:2].tolist() == [None, math.inf]
    assert math.isnan(back[2]["spin"][1])
    assert back[3] == "text"
    assert site_properties_to_text({}) is None
    assert site_properties_from_text(None) == {}
    with pytest.raises(StoreError, match="site properties of a record are damaged"):
        site_properties_from_text('{"a": {"type": "int64"}}')


def _magnetic() -> Atoms:
    """Antiferromagnetic NiO with forces, a heavy nickel, a number that one site lacks and mixed entries."""
    atoms = bulk("NiO", "rocksalt", a=4.17, cubic=True)
    rng = np.random.default_rng(0)
    masses = atoms.get_masses()
    masses[0] = 61.928345
    atoms.set_masses(masses)
    atoms.set_array("bader", np.array([*rng.random(7), np.nan]))
    atoms.set_array("labels", np.array([f"{s}{i}" for i, s in enumerate(atoms.get_chemical_symbols())]))
    atoms.set_initial_magnetic_moments([2.0 if n == 28 else 0.0 for n in atoms.numbers] * np.tile([1, -1], 4))
    atoms.calc = SinglePointCalculator(atoms, forces=rng.normal(size=(8, 3)))
    atoms.rotate(37, (1, 2, 3), rotate_cell=True)
    return atoms


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of structures whose sites carry something, and one whose sites do not."""
    folder = tmp_path / "structures"
    folder.mkdir()
    write(folder / "magnetic.extxyz", _magnetic())
    write(folder / "plain.extxyz", bulk("W", cubic=True))
    ice = "ice\n1.0\n3 0 0\n0 3.5 0\n0 0 4\nD O\n2 1\nSelective dynamics\nDirect\n"
    ice += "0.2 0 0 T F T\n0.8 0 0 F F F\n0 0 0.1 T T T\n"
    (folder / "heavy.vasp").write_text(ice)
    salt = Structure.from_spacegroup("Fm-3m", np.eye(3) * 5.64, ["Na+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    salt.to(str(folder / "salt.cif"))
    return folder


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> Store:
    build_store(folder, tmp_path / "store", keep_frame=True)
    return Store.open(tmp_path / "store")


def _encoded(store: Store, record_id: str):
    return store.encoded(store.get(record_id).row)


def test_the_frame_keeps_what_sites_carry(store: Store, folder: Path) -> None:
    expected = {
        "magnetic": encode(to_unit_cell(read(folder / "magnetic.extxyz"))),
        "heavy": encode(unit_cell_from_poscar((folder / "heavy.vasp").read_text())),
        "salt": encode(unit_cell_from_cif((folder / "salt.cif").read_text())),
        "plain": encode(to_unit_cell(read(folder / "plain.extxyz"))),
    }
    for record_id, encoded in expected.items():
        found = _encoded(store, record_id).site_properties
        assert found.keys() == encoded.site_properties.keys(), record_id
        for name, values in encoded.site_properties.items():
            assert _same(found[name], values), (record_id, name)
    assert {"magnetic_moment", "mass_number", "forces", "label", "bader"} <= set(
        expected["magnetic"].site_properties
    )
    assert set(expected["salt"].site_properties) == {"label", "oxidation_state"}
    assert store.manifest.site_properties["stored"]
    assert store.manifest.site_properties["by_name"]["mass_number"] == 2


def test_what_is_left_behind_is_counted_and_named(folder: Path, tmp_path: Path) -> None:
    report = build_store(folder, tmp_path / "bare")
    counted = report.manifest.site_properties
    assert not counted["stored"]
    assert counted["records"] == 3
    assert counted["by_name"]["magnetic_moment"] == 1
    assert counted["by_name"]["label"] == 2
    (remark,) = report.remarks()
    assert remark.startswith("Site properties of 3 records (bader, ")
    assert "mass_number" in remark
    assert "label" not in remark
    assert "--keep-frame" in remark
    assert Store.open(tmp_path / "bare").manifest.site_properties == counted
    assert build_store(folder, tmp_path / "kept", keep_frame=True).remarks() == []


def test_labels_alone_are_nothing_to_announce(folder: Path, tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    structure = Structure.from_file(folder / "salt.cif")
    structure.remove_oxidation_states()
    structure.to(str(only / "salt.cif"))
    report = build_store(only, tmp_path / "labels")
    assert report.remarks() == []
    assert report.manifest.site_properties == {"stored": False, "records": 0, "by_name": {"label": 1}}


def test_duplicates_are_not_counted(folder: Path, tmp_path: Path) -> None:
    frames = [_magnetic(), _magnetic()]
    for atoms in frames:
        atoms.info["material_id"] = "same"
    twice = tmp_path / "twice.extxyz"
    write(twice, frames)
    report = build_store(twice, tmp_path / "twice")
    assert (report.num_records, report.num_rejected) == (1, 1)
    assert report.manifest.site_properties["records"] == 1


def _is_image(found: UnitCell, expected: UnitCell, tolerance: float) -> bool:
    shift = found.frac_coords - expected.frac_coords
    return bool(np.abs((shift - np.round(shift)) @ expected.lattice).max() < tolerance)


def test_the_original_cell_is_exported_with_what_it_carries(store: Store, tmp_path: Path) -> None:
    for file_format in ("extxyz", "poscar", "cif"):
        export_store(store, tmp_path / file_format, format=file_format, cell="original")
    for record in store:
        cell = store.encoded(record.row).unit_cell()
        found = to_unit_cell(read(tmp_path / "extxyz" / f"{record.id}.extxyz"))
        assert np.allclose(found.lattice, cell.lattice, atol=1e-6)
        assert np.allclose(found.frac_coords, cell.frac_coords, atol=1e-6)
        for name, values in cell.site_properties.items():
            if np.asarray(values).dtype.kind == "f":
                assert np.allclose(found.site_properties[name], values, atol=1e-7, equal_nan=True), name
            else:
                assert found.site_properties[name].tolist() == values.tolist(), (record.id, name)
        poscar = unit_cell_from_poscar((tmp_path / "poscar" / f"{record.id}.vasp").read_text())
        assert np.allclose(poscar.lattice, cell.lattice, atol=1e-9)
        assert np.allclose(poscar.frac_coords, cell.frac_coords, atol=1e-9)
        cif = unit_cell_from_cif((tmp_path / "cif" / f"{record.id}.cif").read_text())
        assert np.array_equal(cif.atomic_numbers, cell.atomic_numbers)
        assert _is_image(cif, cell, 1e-6)
        if record.id == "heavy":
            assert _same(poscar.site_properties["mass_number"], cell.site_properties["mass_number"])
            assert _same(
                poscar.site_properties["selective_dynamics"], cell.site_properties["selective_dynamics"]
            )
            assert _same(cif.site_properties["mass_number"], cell.site_properties["mass_number"])
        if record.id == "salt":
            assert _same(cif.site_properties["oxidation_state"], cell.site_properties["oxidation_state"])
        if record.id == "magnetic":
            moments = np.linalg.norm(cif.site_properties["magnetic_moment"], axis=-1)
            assert np.allclose(moments, np.abs(cell.site_properties["magnetic_moment"]), atol=1e-6)


@pytest.mark.parametrize("axes", [(1, 1, 1), (-1, 1, 1)])
def test_a_left_handed_cell_is_not_mirrored_in_cif(axes: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    lattice = (np.eye(3) * 6 + rng.normal(size=(3, 3)) * 0.3) * np.array(axes)[:, None]
    moments = rng.normal(size=(4, 3))
    cell = UnitCell(lattice, rng.random((4, 3)), np.array([3, 8, 9, 26]), {"magnetic_moment": moments})
    found = unit_cell_from_cif(p1_cif(cell, name="chiral"))
    # The rotation between the frames is proper: the crystal was turned, not mirrored.
    turn = np.linalg.inv(np.prod(axes) * cell.lattice) @ found.lattice
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-7)
    assert np.linalg.det(turn) == pytest.approx(1)
    shift = found.frac_coords - np.prod(axes) * cell.frac_coords
    assert np.allclose(shift, np.round(shift), atol=1e-9)
    assert np.allclose(found.site_properties["magnetic_moment"], moments @ turn, atol=1e-6)


def test_values_that_are_no_column_stand_in_the_comment_line(tmp_path: Path, store: Store) -> None:
    from nucleate.data.export_formats import as_extxyz

    record = store.get("plain")
    cell = store.encoded(record.row).unit_cell()
    odd = {
        "label": np.array(["Fe 1", ""]),
        "mixed": np.array([None, 2], dtype=object),
        "tag": np.array([1, 2]),
    }
    path = tmp_path / "odd.extxyz"
    path.write_text(as_extxyz(record, UnitCell(cell.lattice, cell.frac_coords, cell.atomic_numbers, odd)))
    atoms = read(path)
    assert atoms.arrays["tag"].tolist() == [1, 2]
    kept = site_properties_from_text(json.dumps(atoms.info["site_properties"]))
    assert kept["label"].tolist() == ["Fe 1", ""]
    assert kept["mixed"].tolist() == [None, 2]


def test_other_cells_have_their_number_of_atoms(store: Store, tmp_path: Path) -> None:
    for cell in ("conventional", "primitive"):
        for file_format, ending in (("cif", "cif"), ("poscar", "vasp"), ("extxyz", "extxyz")):
            out = tmp_path / f"{cell}-{file_format}"
            export_store(store, out, format=file_format, cell=cell)
            found = read(out / f"salt.{ending}", format="vasp" if ending == "vasp" else ending)
            assert len(found) == (8 if cell == "conventional" else 2)
    with pytest.raises(StoreError, match="another store, format or cell"):
        export_store(store, tmp_path / "primitive-cif")
    with pytest.raises(
        StoreError, match="no cell 'reduced': choose one of conventional, primitive, original"
    ):
        export_store(store, tmp_path / "new", cell="reduced")


def test_a_store_without_frames_has_no_original_cell(folder: Path, tmp_path: Path) -> None:
    build_store(folder, tmp_path / "bare")
    with pytest.raises(
        StoreError, match="does not keep the original cells: build it again with --keep-frame"
    ):
        export_store(Store.open(tmp_path / "bare"), tmp_path / "out", cell="original")
    assert not (tmp_path / "out").exists()


def test_a_store_of_the_first_version_is_still_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nucleate.data import schema

    with monkeypatch.context() as first:
        first.setattr(schema, "_SITE", {})
        build_store(folder, tmp_path / "old", keep_frame=True)
    manifest = tmp_path / "old" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["site_properties"]
    del content["settings"]["schema_version"]
    manifest.write_text(json.dumps({**content, "schema_version": 1}))
    old = Store.open(tmp_path / "old")
    assert SITE_COLUMN not in next(old.iter_batches()).column_names
    assert len(list(old)) == 4
    assert old.encoded(0).site_properties == {}
    assert old.encoded(0).unit_cell().num_atoms
    with pytest.raises(StoreError, match="schema version 1, which does not keep site properties"):
        export_store(old, tmp_path / "out", cell="original")
    with pytest.raises(StoreError, match="schema_version None there, 2 asked"):
        build_store(folder, tmp_path / "old", keep_frame=True)
