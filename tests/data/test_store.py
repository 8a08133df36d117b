"""Reading a store: the same crystals by row, by id, streamed and as arrays; damage is named."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from crystal_tables import TableWriter
from pymatgen.analysis.structure_matcher import StructureMatcher

from nucleate.crystal import Crystal, CrystalBatch, UnitCell, encode
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.data import Store, build_store
from nucleate.data.id_index import id_hashes
from nucleate.data.shard_files import ShardFiles
from nucleate.errors import StoreError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, UnitCell]]) -> Path:
    """A store of 130 crystals in several shards, with the way back."""
    from crystal_tables import table_rows, write_rows

    folder = tmp_path_factory.mktemp("store")
    source = write_rows(folder / "source.parquet", table_rows(cells, 130), rows_per_task=50)
    build_store(source, folder / "store", keep_frame=True, pseudo_symmetry=True)
    return folder / "store"


@pytest.fixture
def store(path: Path) -> Store:
    return Store.open(path)


def _same(a: Crystal, b: Crystal) -> bool:
    fields = ("lattice_params", "wyckoff_indices", "atomic_numbers", "free_coords")
    return a.space_group_number == b.space_group_number and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in fields
    )


def test_every_record_is_the_crystal_that_went_in(store: Store, cells: list[tuple[str, UnitCell]]) -> None:
    matcher = StructureMatcher()
    assert len(store) == 130
    for i, record in enumerate(store):
        name, cell = cells[i % len(cells)]
        scaled = UnitCell(
            cell.lattice * (1 + 0.01 * (i // len(cells))), cell.frac_coords, cell.atomic_numbers
        )
        assert record.id == f"{name}-{i}"
        assert record.row == i
        assert _same(record.crystal, encode(scaled).crystal)
        original = unit_cell_to_pymatgen(scaled)
        assert matcher.fit(original, record.crystal.to_structure()), record.id
        assert record.crystal.volume_per_atom == pytest.approx(scaled.volume / scaled.num_atoms)


def test_the_way_back_leads_to_the_cell_of_the_source(
    store: Store, cells: list[tuple[str, UnitCell]]
) -> None:
    for i in range(len(cells)):
        _, cell = cells[i]
        back = store.encoded(i).unit_cell()
        assert np.array_equal(back.atomic_numbers, cell.atomic_numbers)
        assert np.allclose(back.lattice, cell.lattice, atol=1e-2)
        shift = back.frac_coords - cell.frac_coords
        assert np.abs((shift - np.round(shift)) @ cell.lattice).max() < 1e-2


def test_random_access_streaming_and_arrays_agree(store: Store) -> None:
    streamed = list(store.iter_crystals())
    arrays = [a.crystal(i) for a in store.iter_arrays() for i in range(len(a))]
    assert len(streamed) == len(arrays) == len(store)
    for i in np.random.default_rng(0).permutation(len(store)):
        assert _same(store[i].crystal, streamed[i])
        assert _same(store.crystal(int(i)), streamed[i])
        assert _same(arrays[i], streamed[i])
    assert _same(store[-1].crystal, streamed[-1])
    with pytest.raises(IndexError, match="130"):
        store[130]


def test_arrays_are_ragged_with_offsets_and_properties(store: Store) -> None:
    rows = []
    for arrays in store.iter_arrays(["band_gap", "stable", "year"]):
        assert arrays.orbit_offsets[0] == 0
        assert arrays.orbit_offsets[-1] == len(arrays.wyckoff_indices) == len(arrays.free_coords)
        assert arrays.lattice_offsets[-1] == len(arrays.lattice_params)
        expected = np.where(arrays.rows % 7 == 3, np.nan, 0.25 * arrays.rows)
        assert np.array_equal(arrays.properties["band_gap"], expected, equal_nan=True)
        assert np.array_equal(arrays.properties["stable"], arrays.rows % 2 == 0)
        rows.extend(arrays.rows)
    assert rows == list(range(130))
    with pytest.raises(StoreError, match=r"no numeric property 'name'.*band_gap"):
        next(store.iter_arrays(["name"]))


def test_arrays_make_a_training_batch(store: Store) -> None:
    rebuilt = [
        c for a in store.iter_arrays() for c in CrystalBatch.from_arrays(**a.batch_fields()).to_crystals()
    ]
    for crystal, expected in zip(rebuilt, store.iter_crystals(), strict=True):
        assert _same(crystal, expected)


def test_properties_keep_their_types_and_tensors_their_shape(store: Store) -> None:
    record = store[5]
    assert record.properties["band_gap"] == 1.25
    assert record.properties["stable"] is False
    assert record.properties["year"] == 1995
    assert np.array_equal(record.properties["dielectric"], np.eye(3) * 5)
    assert "band_gap" not in store[3].properties
    kinds = {name: column.kind for name, column in store.manifest.properties.items()}
    assert kinds["dielectric"] == "array2"
    assert kinds["stable"] == "flag"
    assert kinds["year"] == "integer"
    assert store.manifest.properties["band_gap"].unit == "eV"
    assert set(record.space_group_numbers) == {0.1, 0.01, 0.001}
    assert record.space_group_numbers[0.01] == record.crystal.space_group_number


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_batches_have_the_size_asked_for(store: Store, batch_size: int) -> None:
    batches = list(store.iter_batches(["id", "property.year"], batch_size))
    assert [b.num_rows for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert [i for b in batches for i in b["id"].to_pylist()] == [r.id for r in store]
    assert batches[0].column_names == ["id", "property.year"]
    with pytest.raises(StoreError, match=r"no column 'nonsense'"):
        next(store.iter_batches(["nonsense"]))


def test_splits_and_selections_count_within_themselves(store: Store) -> None:
    parts = {name: store.split(name) for name in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == len(store)
    for name, part in parts.items():
        assert len(part) == store.manifest.split_counts[name]
        assert {record.split for record in part} == {name}
        assert [record.id for record in store.iter_records(split=name)] == [record.id for record in part]
        assert part[0].row == part.rows[0]
        assert [i for b in part.iter_batches(["id"], 5) for i in b["id"].to_pylist()] == [r.id for r in part]
        assert sum(len(a) for a in store.iter_arrays(split=name)) == len(part)
    some = parts["train"].select(np.array([5, 2, 2]))
    assert [r.id for r in some] == [parts["train"][2].id, parts["train"][5].id]
    with pytest.raises(StoreError, match=r"no split 'holdout'; it has .*train"):
        store.split("holdout")


def test_records_are_found_by_id(store: Store) -> None:
    for i in (0, 77, 129):
        assert store.get(store[i].id).row == i
    with pytest.raises(StoreError, match=r"No record 'nonsense' among the 130 .*rejected\.csv"):
        store.get("nonsense")


def test_the_index_of_ids_is_built_again_when_gone_or_damaged(path: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(path, tmp_path / "copy")
    (index,) = (copy / "index").iterdir()
    good = index.read_bytes()
    for bad in (None, b"", good[:40], np.zeros(3)):
        if bad is None:
            index.unlink()
        elif isinstance(bad, bytes):
            index.write_bytes(bad)
        else:
            np.save(index, bad)
        store = Store.open(copy)
        assert store.get(store[17].id).row == 17
        assert index.read_bytes() == good


def test_ids_of_the_same_hash_are_told_apart(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(path, tmp_path / "copy")
    shutil.rmtree(copy / "index")
    monkeypatch.setattr("nucleate.data.id_index.id_hashes", lambda ids: id_hashes(["same"] * len(ids)))
    store = Store.open(copy)
    assert store.get(store[41].id).row == 41
    with pytest.raises(StoreError):
        store.get("nonsense")


def test_a_store_can_be_pickled_and_survives_a_fork(store: Store) -> None:
    expected = store[3].id
    copy = pickle.loads(pickle.dumps(store.split("train")))
    assert copy[0].id == store.split("train")[0].id
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, store[3].id.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000).decode() == expected
    os.close(read)
    os.close(write)


def test_only_a_few_row_groups_are_ever_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nucleate.data.schema.ROW_GROUP_SIZE", 10)
    alive: list[weakref.ref[object]] = []
    read = ShardFiles.read

    def counting(self: ShardFiles, *arguments: object) -> object:
        table = read(self, *arguments)  # type: ignore[arg-type]
        alive.append(weakref.ref(table))
        return table

    monkeypatch.setattr(ShardFiles, "read", counting)
    store = Store.open(path, cached_row_groups=2)
    for i in range(len(store)):
        store[i], store.crystal(i)
        assert store._files.num_cached <= 2
        assert sum(table() is not None for table in alive) <= 3
    alive.clear()
    most = 0
    for _ in store.iter_crystals():
        most = max(most, sum(table() is not None for table in alive))
    assert len(alive) == 3  # one row group per shard here, each read once
    assert most <= 2


def test_reading_needs_numpy_and_pyarrow_only(path: Path) -> None:
    script = f"""
import sys
class Absent:
    names = set("moyopy pymatgen gemmi ase pydantic typer rich scipy jaxtyping pandas fsspec dask "
                "distributed matplotlib torch beartype filelock".split())
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from nucleate.data import Store
store = Store.open({str(path)!r})
assert store[7].crystal.num_atoms > 0 and store.get(store[7].id).row == 7
assert sum(len(a) for a in store.split("train").iter_arrays(["band_gap"])) > 0
assert len(list(store.iter_batches())) == 1
print(len(list(store.iter_crystals())))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "130", result.stderr


def _first_shard(folder: Path) -> Path:
    return sorted((folder / "shards").iterdir())[0]


def test_damaged_stores_say_what_is_wrong_and_what_to_do(path: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(path, tmp_path / "copy")
    shard = _first_shard(copy)
    good = shard.read_bytes()
    assert Store.open(copy).damaged_shards() == {}
    shard.write_bytes(good[: len(good) // 2])
    with pytest.raises(StoreError, match=rf"{shard.name} .*bytes instead of .*copy the store again"):
        Store.open(copy)[0]
    middle = len(good) // 3
    shard.write_bytes(good[:middle] + bytes(64) + good[middle + 64 :])
    assert list(Store.open(copy).damaged_shards()) == [f"shards/{shard.name}"]
    shard.write_bytes(good[:-8] + b"PAR2" * 2)
    with pytest.raises(StoreError, match="cannot be read"):
        Store.open(copy)[0]
    shard.unlink()
    with pytest.raises(StoreError, match=rf"{shard.name} .*is missing.*50 of 130"):
        list(Store.open(copy).iter_crystals())
    assert Store.open(copy)[60].row == 60  # the other shards are as good as before
    assert Store.open(copy).damaged_shards() == {f"shards/{shard.name}": "missing"}


def test_folders_that_are_no_store_say_so(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*nucleate data build"):
        Store.open(tmp_path / "nowhere")
    copy = shutil.copytree(path, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    for change, message in (
        ({"schema_version": 99}, "schema version 99, this nucleate reads 1 and 2: update nucleate"),
        ({"schema_version": 0}, "schema version 0, this nucleate reads 1 and 2: rebuild"),
        ({"format": "other"}, "not a nucleate store's"),
        ({"shards": 3}, "damaged"),
    ):
        (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(StoreError, match=message):
            Store.open(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json of .* is damaged"):
        Store.open(copy)


def test_a_store_without_frames_says_how_to_get_them(tmp_path: Path, write_source: TableWriter) -> None:
    build_store(write_source(5), tmp_path / "store")
    with pytest.raises(StoreError, match=r"without the way back.*--keep-frame"):
        Store.open(tmp_path / "store").encoded(0)


def test_in_memory_urls_work_like_folders(write_source: TableWriter, tmp_path: Path) -> None:
    source = write_source(30)
    remote = build_store(source, "memory://nucleate-test/store")
    local = build_store(source, tmp_path / "store")
    assert remote.content_hash == local.content_hash
    store = Store.open("memory://nucleate-test/store")
    assert store.get(store[20].id).row == 20
    assert build_store(source, "memory://nucleate-test/store").num_resumed == 30
    with pytest.raises(StoreError, match=r"No driver for nonsense://"):
        Store.open("nonsense://bucket/store")
