"""Parquet tables: our own layout, CIF columns, row groups, damage, and every real set."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucleate.data.sources import open_source, parquet_table


def columns_of(structures) -> dict:
    return {
        "material_id": list(structures),
        "numbers": [[site.specie.Z for site in s] for s in structures.values()],
        "lattice": [s.lattice.matrix.ravel().tolist() for s in structures.values()],
        "frac_coords": [s.frac_coords.ravel().tolist() for s in structures.values()],
        "num_atoms": [len(s) for s in structures.values()],
    }


@pytest.mark.parametrize("nested", [False, True])
def test_array_columns(tmp_path, structures, read_all, same_crystal, nested):
    columns = columns_of(structures)
    tensor = np.arange(27.0).reshape(3, 3, 3)
    columns["eps"] = [np.eye(3).tolist(), None, np.diag([1.0, 2.0, 3.0]).tolist()]
    columns["piezo"] = [tensor.tolist()] * 3
    columns["band_gap"] = [1.5, float("nan"), None]
    columns["metal"] = [True, False, None]
    columns["elements"] = [["Na", "Cl"], ["Ti", "O"], []]
    columns["cif"] = ["not read"] * 3
    if nested:
        columns["lattice"] = [s.lattice.matrix.tolist() for s in structures.values()]
        columns["frac_coords"] = [s.frac_coords.tolist() for s in structures.values()]
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    contents = read_all(open_source(tmp_path / "t.parquet", units={"eps": "1"}))
    assert contents.announced == 3
    assert not contents.rejections
    for record, structure in zip(contents.records, structures.values()):
        assert same_crystal(record.structure, structure)
        np.testing.assert_array_equal(record.structure.frac_coords, structure.frac_coords)
    first, second, third = contents.records
    assert first.properties == {
        "eps": np.eye(3).tolist(),
        "piezo": tensor.tolist(),
        "band_gap": 1.5,
        "metal": True,
        "elements": ["Na", "Cl"],
    }
    assert first.units == {"eps": "1", "band_gap": "eV"}
    assert set(second.properties) == {"piezo", "metal", "elements"}
    assert set(third.properties) == {"eps", "piezo"}


def test_cif_column(tmp_path, cifs, structures, read_all, same_crystal):
    table = pa.table({"jid": ["a", None, "c"], "cif": [*cifs.values()], "x": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet")
    contents = read_all(open_source(tmp_path / "t.parquet"))
    assert [record.id for record in contents.records] == ["a", "t-1", "c"]
    assert [record.provenance.database_id for record in contents.records] == ["a", None, "c"]
    assert all(same_crystal(r.structure, s) for r, s in zip(contents.records, structures.values()))


def test_cif_column_can_be_chosen_before_the_arrays(tmp_path, cifs, structures, read_all):
    table = pa.table({**columns_of(structures), "original": ["broken", *list(cifs.values())[1:]]})
    pq.write_table(table, tmp_path / "t.parquet")
    contents = read_all(open_source(tmp_path / "t.parquet", cif_column="original"))
    assert len(contents.records) == 2
    assert contents.rejections[0].id == "rocksalt"


def test_row_groups_and_tasks(tmp_path, structures, read_all, monkeypatch):
    monkeypatch.setattr(parquet_table, "ROWS_PER_TASK", 7)
    monkeypatch.setattr(parquet_table, "_ROWS_PER_BATCH", 3)
    count = 50
    columns = {name: (values * count)[:count] for name, values in columns_of(structures).items()}
    columns["material_id"] = [f"m{i}" for i in range(count)]
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=20)
    source = open_source(tmp_path / "t.parquet")
    assert [task.count for task in source.tasks()] == [7, 7, 6, 7, 7, 6, 7, 3]
    contents = read_all(source)
    assert [record.id for record in contents.records] == columns["material_id"]
    assert [record.provenance.row for record in contents.records] == list(range(count))


def test_bad_rows_are_named(tmp_path, structures, read_all):
    columns = {name: values[:1] * 9 for name, values in columns_of(structures).items()}
    columns["material_id"] = [f"m{i}" for i in range(9)]
    good = columns["numbers"][0]
    columns["numbers"] = [good, None, [], good, [200, *good[1:]], good, good, good, good]
    columns["lattice"] = [*columns["lattice"][:3], [1.0] * 8, *columns["lattice"][4:]]
    columns["lattice"][5] = [float("nan"), *columns["lattice"][5][1:]]
    columns["frac_coords"][6] = columns["frac_coords"][6][:-1]
    columns["frac_coords"][7] = [None, *columns["frac_coords"][7][1:]]
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    contents = read_all(open_source(tmp_path / "t.parquet"))
    assert [record.id for record in contents.records] == ["m0", "m8"]
    assert [rejection.row for rejection in contents.rejections] == [1, 2, 3, 4, 5, 6, 7]
    for expected, reason in zip(
        ["empty", "no atoms", "9 numbers", "200", "NaN", "coordinates", "NaN"], contents.reasons()
    ):
        assert expected in reason


@pytest.mark.parametrize("kind", ["empty", "truncated", "footer only", "text", "no rows", "no structure"])
def test_damaged_file_has_one_reason(tmp_path, structures, read_all, kind):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns_of(structures)), path)
    good = path.read_bytes()
    if kind == "no rows":
        pq.write_table(pa.table(columns_of(structures)).slice(0, 0), path)
    elif kind == "no structure":
        pq.write_table(pa.table({"jid": ["a"], "value": [1.0]}), path)
    else:
        path.write_bytes(
            {"empty": b"", "truncated": good[:-30], "footer only": b"PAR1", "text": b"a,b\n" * 9}[kind]
        )
    contents = read_all(open_source(path))
    assert not contents.records
    assert len(contents.rejections) == 1


def test_damaged_page_is_named_by_its_rows(tmp_path, structures, read_all):
    path = tmp_path / "t.parquet"
    columns = {name: values * 200 for name, values in columns_of(structures).items()}
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=300)
    content = bytearray(path.read_bytes())
    content[100:700] = bytes(600)  # inside the first row group
    path.write_bytes(content)
    contents = read_all(open_source(path))
    assert len(contents.records) == 300
    assert [rejection.row for rejection in contents.rejections] == [0]
    assert "Rows 0 to 299" in contents.rejections[0].reason


numbers = st.lists(st.integers(-3, 130), max_size=4)
floats = st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=12)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(numbers, floats, floats), min_size=1, max_size=5))
def test_any_row_is_a_record_or_a_rejection(tmp_path, read_all, rows):
    z, lattice, coords = zip(*rows)
    schema = pa.schema(
        {
            "numbers": pa.list_(pa.int16()),
            "lattice": pa.list_(pa.float64()),
            "frac_coords": pa.list_(pa.float64()),
        }
    )
    table = pa.table({"numbers": z, "lattice": lattice, "frac_coords": coords}, schema=schema)
    pq.write_table(table, tmp_path / "t.parquet")
    contents = read_all(open_source(tmp_path / "t.parquet"))
    assert len(contents.records) + len(contents.rejections) == len(rows)
    for record in contents.records:
        cell = record.structure
        assert np.isfinite(cell.lattice).all()
        assert np.isfinite(cell.frac_coords).all()
        assert ((cell.atomic_numbers >= 1) & (cell.atomic_numbers <= 118)).all()


#: Rows with a structure, and rows in all, as the data's README counts them.
REAL = {
    "aflow_thermal_elastic": (4905, 4905),
    "carbon_24": (10153, 10153),
    "jarvis_dfpt": (58, 128),
    "jarvis_dft3d": (17335, 17335),
    "jarvis_spillage": (2315, 11375),
    "materials_2d": (1027, 1027),
    "mp_20": (17181, 17181),
    "mp_40": (954, 954),
    "mp_dielectric": (1004, 1004),
    "mp_elastic_cubic": (92, 92),
    "mp_piezo": (887, 887),
    "mpts_52": (12439, 12439),
    "ocp_bulks": (1478, 1478),
    "peer_samples": (2766, 2766),
    "perov_5": (18928, 18928),
    "porous": (184, 184),
    "wbm": (9521, 9521),
}


@pytest.mark.parametrize("name", REAL)
def test_real_set_opens_with_the_right_count_per_row_group(shared_data, name):
    path = shared_data / f"{name}.parquet"
    source = open_source(path)
    tasks = list(source.tasks())
    with pq.ParquetFile(path) as table:
        for group in range(table.num_row_groups):
            announced = sum(task.count for task in tasks if task.details["row_group"] == group)
            assert announced == table.metadata.row_group(group).num_rows
    with_structure, total = REAL[name]
    assert sum(task.count for task in tasks) == total
    items = list(source.read(tasks[0]))
    assert len(items) == tasks[0].count
    if with_structure == total:
        assert not [item for item in items if hasattr(item, "reason")]


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")
@pytest.mark.parametrize("name", ["mp_20"])
def test_real_arrays_and_real_cif_text_are_the_same_crystals(shared_data, same_crystal, name):
    from pymatgen.core import Structure

    path = shared_data / f"{name}.parquet"
    arrays, texts = open_source(path), open_source(path, cif_column="cif")
    task = next(iter(arrays.tasks()))
    with pq.ParquetFile(path) as table:
        original = next(table.iter_batches(40, columns=["cif"])).column("cif").to_pylist()
    text_task = next(iter(texts.tasks()))
    for a, b, cif in zip(arrays.read(task), texts.read(text_task), original):
        structure = Structure.from_str(cif, fmt="cif")
        assert a.id == b.id
        assert same_crystal(a.structure, structure)
        assert same_crystal(b.structure, structure)


@pytest.mark.parametrize("name", ["jarvis_labels_long", "jarvis_piezo", "topogivity_labels"])
def test_real_table_without_structures_says_so(shared_data, read_all, name):
    contents = read_all(open_source(shared_data / f"{name}.parquet"))
    assert not contents.records
    assert "has no structures" in contents.rejections[0].reason


def test_a_column_names_the_data_set_of_each_record(tmp_path, structures, read_all):
    columns = columns_of(structures)
    columns["origin"] = ["mp", None, "wbm"]
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    records = read_all(open_source(tmp_path / "t.parquet", source_column="origin")).records
    assert [record.provenance.source for record in records] == ["mp", "t", "wbm"]
    assert not any("origin" in record.properties for record in records)
    records = read_all(open_source(tmp_path / "t.parquet")).records
    assert [record.provenance.source for record in records] == ["t"] * 3
    assert records[0].properties["origin"] == "mp"
    (rejection,) = read_all(open_source(tmp_path / "t.parquet", source_column="orign")).rejections
    assert "no column 'orign'" in rejection.reason
