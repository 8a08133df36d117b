"""Building a store: what is left out and why, the hash, resuming after SIGKILL, refusals, joined tables."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crystal_tables import TableWriter, table_rows, write_rows

from nucleate.crystal import UnitCell
from nucleate.data import Store, build_store
from nucleate.data.build import BuildProgress
from nucleate.data.schema import SCHEMA_VERSION
from nucleate.errors import SourceError, StoreError


def _left_out(store: Path) -> list[dict[str, str]]:
    with (store / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _contents(store: Path) -> dict[str, tuple[Any, ...]]:
    return {r.id: (r.crystal.bucket_key, r.split, dict(r.properties)) for r in Store.open(store)}


def _damage(rows: list[dict[str, Any]]) -> None:
    rows[3]["frac_coords"][0] = float("nan")
    rows[8]["lattice"] = [0.0] * 9
    rows[21]["frac_coords"] = rows[21]["frac_coords"][:-1]
    rows[22]["numbers"] = [200] * len(rows[22]["numbers"])
    rows[35].update(numbers=[11, 17], frac_coords=[0.0] * 6)
    rows[44].update(numbers=[1] * 1001, frac_coords=np.random.default_rng(0).random(3003).tolist())
    rows[50]["material_id"] = rows[10]["material_id"]


def test_damaged_rows_are_named_and_all_others_stored(tmp_path: Path, write_source: TableWriter) -> None:
    source = write_source(60, change=_damage)
    report = build_store(source, tmp_path / "store")
    assert report.num_records == 53
    assert report.num_rejected == 7
    lines = _left_out(tmp_path / "store")
    assert {int(line["row"]) for line in lines} == {3, 8, 21, 22, 35, 44, 50}
    by_row = {int(line["row"]): line for line in lines}
    assert all(line["file"] == str(source) and line["reason"] for line in lines)
    assert by_row[50]["category"] == "duplicate id"
    assert by_row[50]["id"] == by_row[50]["reason"].split("'")[1]
    assert f"{source}, row 10" in by_row[50]["reason"]
    assert "1001" in by_row[44]["reason"]
    assert sum(report.manifest.reasons.values()) == 7
    kept = _contents(tmp_path / "store")
    clean = build_store(write_source(60, name="clean.parquet"), tmp_path / "clean")
    whole = _contents(tmp_path / "clean")
    assert clean.num_rejected == 0
    assert kept.items() <= whole.items()
    missing = {Store.open(tmp_path / "clean")[i].id for i in (3, 8, 21, 22, 35, 44, 50)}
    assert whole.keys() - kept.keys() == missing
    store = Store.open(tmp_path / "store")
    assert all(store.get(record_id).id == record_id for record_id in kept)


def test_a_library_that_fails_on_one_structure_costs_this_record_only(
    tmp_path: Path, write_source: TableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nucleate.data import cleaning

    encode, calls = cleaning.encode, iter(range(1000))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 4:
            raise ZeroDivisionError("inside a library")
        return encode(*arguments, **options)

    monkeypatch.setattr(cleaning, "encode", failing)
    report = build_store(write_source(10), tmp_path / "store")
    assert report.manifest.reasons == {"unexpected error": 1}
    assert _left_out(tmp_path / "store")[0]["reason"] == "ZeroDivisionError: inside a library"


def test_the_hash_knows_neither_workers_nor_tasks_nor_order(
    tmp_path: Path, write_source: TableWriter, cells: list[tuple[str, UnitCell]]
) -> None:
    rows = table_rows(cells, 60)
    expected = build_store(write_source(60), tmp_path / "a")
    finer = build_store(write_source(60, name="finer.parquet", rows_per_task=7), tmp_path / "b")
    turned = build_store(write_rows(tmp_path / "turned.parquet", rows[::-1]), tmp_path / "c")
    assert finer.content_hash == turned.content_hash == expected.content_hash
    assert len(finer.manifest.shards) > len(expected.manifest.shards)
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b") == _contents(tmp_path / "c")


def test_the_hash_sees_every_change_of_content(tmp_path: Path, write_source: TableWriter) -> None:
    hashes = {build_store(write_source(20), tmp_path / "store").content_hash}

    def coordinates(rows: list[dict[str, Any]]) -> None:
        rows[7]["lattice"] = [x * (1 + 1e-9) for x in rows[7]["lattice"]]

    def properties(rows: list[dict[str, Any]]) -> None:
        rows[7]["band_gap"] += 1e-9

    def ids(rows: list[dict[str, Any]]) -> None:
        rows[7]["material_id"] += "x"

    def fewer(rows: list[dict[str, Any]]) -> None:
        del rows[-1]

    for number, change in enumerate((coordinates, properties, ids, fewer)):
        source = write_source(20, name=f"{number}.parquet", change=change)
        hashes.add(build_store(source, tmp_path / f"store{number}").content_hash)
    hashes.add(build_store(write_source(20), tmp_path / "seed", seed=1).content_hash)
    assert len(hashes) == 6


_KILLED = """
import os, signal
from pathlib import Path
from nucleate.data import assembly, build_job
from nucleate.data.build import build_store
from nucleate.data.folder import LocalFolder

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

moment, on_progress = {moment!r}, None
build_job.PART_RECORDS = 8
write_bytes = LocalFolder.write_bytes
if moment == "while encoding":
    on_progress = lambda state: state.done == 47 and die()
elif moment == "between a shard and its journal entry":
    def writing(self, name, content):
        if name.endswith("000002-0000.json"):
            assert (self.path / "shards" / "000002-0000.parquet").exists()
            die()
        write_bytes(self, name, content)
    LocalFolder.write_bytes = writing
elif moment == "before the manifest":
    assembly.write_index = die
elif moment == "after the manifest":
    def writing(self, name, content):
        write_bytes(self, name, content)
        if name == "manifest.json":
            die()
    LocalFolder.write_bytes = writing
build_store({source!r}, {out!r}, on_progress=on_progress, split={split!r}, split_column="year")
"""


@pytest.mark.parametrize(
    ("moment", "split"),
    [
        ("while encoding", "random"),
        ("between a shard and its journal entry", "random"),
        ("before the manifest", "time"),  # shards are written again under other names
        ("after the manifest", "time"),
    ],
)
def test_a_killed_build_goes_on_and_gives_the_same_store(
    tmp_path: Path, write_source: TableWriter, monkeypatch: pytest.MonkeyPatch, moment: str, split: str
) -> None:
    source, out = write_source(60, change=_damage), tmp_path / "store"
    monkeypatch.setattr("nucleate.data.build_job.PART_RECORDS", 8)
    settings = {"split": split, "split_column": "year"}
    expected = build_store(source, tmp_path / "whole", **settings)
    script = _KILLED.format(moment=moment, source=str(source), out=str(out), split=split)
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if moment != "after the manifest":
        with pytest.raises(StoreError, match="not finished: repeat the command"):
            Store.open(out)
    done = {p.name: p.stat().st_mtime_ns for p in (out / "shards").glob("0*.parquet")}
    report = build_store(source, out, **settings)
    assert report.num_resumed == (60 if "manifest" in moment else 40)
    assert report.manifest.content_hash == expected.content_hash
    assert report.manifest.shards == expected.manifest.shards
    assert report.manifest.split_counts == expected.manifest.split_counts
    assert _contents(out) == _contents(tmp_path / "whole")
    assert _left_out(out) == _left_out(tmp_path / "whole")
    assert Store.open(out).damaged_shards() == {}
    rest = {p.name for p in (out / "shards").iterdir()}
    assert rest == {shard.file.removeprefix("shards/") for shard in report.manifest.shards}
    assert sorted(p.name for p in out.iterdir()) == ["index", "manifest.json", "rejected.csv", "shards"]
    if moment == "while encoding":
        assert all((out / "shards" / n).stat().st_mtime_ns == time for n, time in done.items() if n in rest)


def test_an_interrupted_task_is_taken_up_in_its_middle(
    tmp_path: Path, write_source: TableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucleate.data.build_job.PART_RECORDS", 8)
    source, encoded = write_source(30, rows_per_task=30), []

    def stop(state: BuildProgress) -> None:
        encoded.append(state.done)
        if state.done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(source, tmp_path / "store", on_progress=stop)
    states: list[BuildProgress] = []
    report = build_store(source, tmp_path / "store", on_progress=states.append)
    assert report.num_resumed == 16
    assert (states[0].done, states[0].resumed, states[-1].done, states[-1].total) == (16, 16, 30, 30)
    assert len(states) == 1 + 14
    assert report.content_hash == build_store(source, tmp_path / "whole").content_hash


def test_a_complete_store_is_left_as_it_is(tmp_path: Path, write_source: TableWriter) -> None:
    source = write_source(20)
    first = build_store(source, tmp_path / "store")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    again = build_store(source, tmp_path / "store")
    assert again.num_resumed == 20
    assert again.manifest == first.manifest
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()} == before


def test_other_settings_are_refused_with_what_differs(tmp_path: Path, write_source: TableWriter) -> None:
    source, out = write_source(20), tmp_path / "store"
    build_store(source, out)
    for settings, message in (
        ({"symprec": 0.1}, "encoding symprec 0.01 there, 0.1 asked"),
        ({"seed": 3}, "split seed 0 there, 3 asked"),
        ({"split": "formula"}, "split method 'random' there, 'formula' asked"),
        ({"max_atoms": 7}, "encoding max_atoms 1000 there, 7 asked"),
    ):
        with pytest.raises(StoreError, match=message):
            build_store(source, out, **settings)
    write_source(21)
    with pytest.raises(StoreError, match="the files or rows of the source changed since"):
        build_store(source, out)
    with pytest.raises(StoreError, match=r"source '.*source\.parquet' there, '.*other\.parquet' asked"):
        build_store(write_source(20, name="other.parquet"), out)


def _stop(after: int) -> Callable[[BuildProgress], None]:
    def stop(state: BuildProgress) -> None:
        if state.done == after:
            raise KeyboardInterrupt

    return stop


def test_an_unfinished_store_refuses_other_settings_too(tmp_path: Path, write_source: TableWriter) -> None:
    source, out = write_source(40), tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        build_store(source, out, on_progress=_stop(30))
    with pytest.raises(StoreError, match=r"unfinished store .*symprec 0\.01 there, 0\.05 asked"):
        build_store(source, out, symprec=0.05)
    assert build_store(source, out).num_resumed == 20


def test_a_build_that_has_nothing_yet_makes_room(tmp_path: Path, write_source: TableWriter) -> None:
    source, out = write_source(40), tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        build_store(source, out, on_progress=_stop(10))
    assert build_store(source, out, symprec=0.05).manifest.encoding["symprec"] == 0.05


def test_folders_of_something_else_are_not_touched(tmp_path: Path, write_source: TableWriter) -> None:
    source = write_source(5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("five years")
    with pytest.raises(StoreError, match=r"not empty and holds no store \(thesis\.tex\)"):
        build_store(source, tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    with pytest.raises(StoreError, match="is a file"):
        build_store(source, source)


def test_two_builds_of_one_store_at_a_time_are_refused(tmp_path: Path, write_source: TableWriter) -> None:
    source, out = write_source(20), tmp_path / "store"

    def build_again(state: BuildProgress) -> None:
        with pytest.raises(StoreError, match="Another process is building"):
            build_store(source, out)

    build_store(source, out, on_progress=build_again)


def test_settings_that_make_no_sense_are_refused_before_anything_is_written(
    tmp_path: Path, write_source: TableWriter
) -> None:
    source, out = write_source(5), tmp_path / "store"
    for settings, message in (
        ({"split": "astrology"}, "no split 'astrology': choose one of random, formula"),
        ({"split": "time"}, "needs the property that holds the date"),
        ({"fractions": (0.5, 0.1, 0.1)}, "add up to 1"),
        ({"fractions": (1.0,)}, "three numbers"),
        ({"symprec": -1.0}, "symprec must lie between"),
        ({"symprec": float("nan")}, "symprec must lie between"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"max_atoms": 0}, "max_atoms must be at least 1"),
    ):
        with pytest.raises(StoreError, match=message):
            build_store(source, out, **settings)
    with pytest.raises(SourceError):
        build_store(tmp_path / "nowhere.csv", out)
    assert not out.exists()


def test_a_source_without_a_single_crystal_gives_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.cif").write_text("this is no CIF")
    report = build_store(tmp_path / "bad", tmp_path / "store")
    assert (report.num_records, report.num_rejected) == (0, 1)
    store = Store.open(tmp_path / "store")
    assert len(store) == 0
    assert list(store) == list(store.iter_batches()) == list(store.iter_arrays()) == []
    with pytest.raises(StoreError, match="No record 'x' among the 0"):
        store.get("x")


def test_properties_of_different_kinds_in_different_shards_read_as_one(
    tmp_path: Path, cells: list[tuple[str, UnitCell]]
) -> None:
    rows = table_rows(cells, 4)
    folder = tmp_path / "tables"
    folder.mkdir()
    kinds: list[tuple[Any, Any]] = [(1, "dark"), (2.5, 7), (None, None), (4, [1.0, 2.0])]
    for i, (row, (gap, label)) in enumerate(zip(rows, kinds, strict=True)):
        core = {k: row[k] for k in ("material_id", "numbers", "lattice", "frac_coords")}
        given = {k: v for k, v in (("gap", gap), ("label", label)) if v is not None}
        write_rows(folder / f"{i}.parquet", [{**core, **given}])
    build_store(folder, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert {n: (c.kind, c.count) for n, c in store.manifest.properties.items()} == {
        "gap": ("number", 3),
        "label": ("text", 3),
    }
    assert [r.properties.get("gap") for r in store] == [1.0, 2.5, None, 4.0]
    assert [r.properties.get("label") for r in store] == ["dark", "7", None, "[1.0, 2.0]"]
    gaps = np.concatenate([a.properties["gap"] for a in store.iter_arrays(["gap"])])
    assert np.array_equal(gaps, [1.0, 2.5, np.nan, 4.0], equal_nan=True)
    assert store.get(store[2].id).properties == {}


def _table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_property_table_is_joined_by_id_and_what_has_no_partner_is_named(
    tmp_path: Path, write_source: TableWriter
) -> None:
    source = write_source(10, change=lambda rows: rows[4].update(lattice=[0.0] * 9))
    ids = [line["material_id"] for line in _rows(source)]
    cells = [f"{i},{n}.5,a,2020-01-0{n + 1}" for n, i in enumerate(ids[:6])]
    lines = ["material_id,bulk_modulus (GPa),grade,measured", *cells, "ghost,1,b,"]
    table = _table(tmp_path / "table.csv", lines)
    report = build_store(source, tmp_path / "store", properties_table=table)
    store = Store.open(tmp_path / "store")
    assert store.get(ids[3]).properties["bulk_modulus"] == 3.5
    assert store.get(ids[3]).properties["measured"] == "2020-01-04"
    assert store.manifest.properties["bulk_modulus"].unit == "GPa"
    assert "bulk_modulus" not in store.get(ids[8]).properties
    joined = report.manifest.tables[str(table)]
    assert joined["records_without_row"] == 4
    assert joined["ids_without_row"] == ids[6:]
    assert joined["rows_without_record"] == 2
    assert joined["ids_without_record"] == [ids[4], "ghost"]
    assert joined["rows_of_left_out_records"] == 1
    remarks = " ".join(report.remarks())
    assert "4 records have no row" in remarks
    assert "ghost" in remarks
    with (tmp_path / "store" / "unmatched.csv").open(newline="") as file:
        unmatched = {line["id"]: line["missing in"] for line in csv.DictReader(file)}
    assert unmatched == dict.fromkeys(ids[6:], "property table") | {
        ids[4]: "store (left out)",
        "ghost": "source",
    }
    table.write_text(table.read_text().replace("3.5", "9.5"))
    with pytest.raises(StoreError, match="the content of the property table changed since"):
        build_store(source, tmp_path / "store", properties_table=table)


def _rows(source: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(source).to_pylist()


def test_property_tables_that_cannot_be_joined_say_why(tmp_path: Path, write_source: TableWriter) -> None:
    source = write_source(4)
    for lines, message in (
        (["material_id,x", "a,1", "a,2", "b,3"], "1 ids more than once in column 'material_id' \\(a\\)"),
        (["x,y", "1,2"], "no column of ids .*it has x, y"),
        (["material_id,x (eV),x [K]", "a,1,2"], "two columns of one name"),
        (["material_id,x", "a,1", "b,2,3"], "cannot be read as CSV"),
        ([""], "cannot be read as CSV"),
    ):
        with pytest.raises(SourceError, match=message):
            build_store(source, tmp_path / "out", properties_table=_table(tmp_path / "t.csv", lines))
    with pytest.raises(SourceError, match=r"nowhere\.csv cannot be read: No such file"):
        build_store(source, tmp_path / "out", properties_table=tmp_path / "nowhere.csv")
    good = _table(tmp_path / "t.csv", ["material_id,x", "a,1"])
    with pytest.raises(SourceError, match="no column 'key'; it has material_id, x"):
        build_store(source, tmp_path / "out", properties_table=good, properties_id_column="key")


def test_a_table_that_contradicts_the_source_is_not_believed(
    tmp_path: Path, write_source: TableWriter
) -> None:
    source = write_source(4)
    ids = [line["material_id"] for line in _rows(source)]
    table = _table(tmp_path / "t.csv", ["material_id,year", f"{ids[0]},1990", f"{ids[1]},1066"])
    report = build_store(source, tmp_path / "store", properties_table=table)
    assert report.manifest.reasons == {"property conflict": 1}
    assert _left_out(tmp_path / "store")[0]["id"] == ids[1]
    assert "year (1991 and 1066)" in _left_out(tmp_path / "store")[0]["reason"]


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path, write_source: TableWriter) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row, name in zip(rows, ("0012", "12", "1e3"), strict=True):
            row["material_id"] = name

    table = _table(tmp_path / "t.csv", ["material_id,x", "0012,1", "12,2", "1e3,3"])
    build_store(write_source(3, change=change), tmp_path / "store", properties_table=table)
    store = Store.open(tmp_path / "store")
    assert [store.get(i).properties["x"] for i in ("0012", "12", "1e3")] == [1, 2, 3]


def test_the_manifest_says_where_everything_came_from(tmp_path: Path, write_source: TableWriter) -> None:
    source = write_source(6)
    build_store(
        source, tmp_path / "store", source_options={"licence": "CC-BY-4.0", "reference": "A. Author, 2020"}
    )
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["source"]["licences"] == ["CC-BY-4.0"]
    assert manifest["source"]["references"] == ["A. Author, 2020"]
    assert manifest["encoding"]["symprec"] == 0.01
    assert manifest["schema_version"] == SCHEMA_VERSION
    assert manifest["properties"]["band_gap"] == {
        "kind": "number",
        "unit": "eV",
        "count": 5,
        "units_seen": [],
    }
    record = Store.open(tmp_path / "store")[4]
    assert record.provenance.file == str(source)
    assert (record.provenance.row, record.provenance.licence) == ("4", "CC-BY-4.0")


def test_a_build_holds_one_part_at_a_time(
    tmp_path: Path, write_source: TableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nucleate.data import build_job

    monkeypatch.setattr(build_job, "PART_RECORDS", 10)
    sizes: list[int] = []
    add = build_job._PartWriter.add

    def watched(self: Any, item: Any) -> bool:
        stored = add(self, item)
        sizes.append(len(self.rows))
        return stored

    monkeypatch.setattr(build_job._PartWriter, "add", watched)
    report = build_store(write_source(95, rows_per_task=95), tmp_path / "store")
    assert max(sizes) == 10
    assert len(report.manifest.shards) == 10
    assert sum(s.num_records for s in report.manifest.shards) == 95


def test_leftovers_of_a_killed_writer_are_swept_up(tmp_path: Path, write_source: TableWriter) -> None:
    source, out = write_source(20), tmp_path / "store"

    with pytest.raises(KeyboardInterrupt):
        build_store(source, out, on_progress=_stop(0))
    (out / "shards").mkdir(exist_ok=True)
    (out / "shards" / ".writing-0123").write_bytes(b"half a shard")
    (out / "shards" / "000009-0000.parquet").write_bytes(b"of a task that no longer exists")
    build_store(source, out)
    assert [p.name for p in (out / "shards").iterdir()] == ["000000-0000.parquet"]
    shutil.rmtree(out)
