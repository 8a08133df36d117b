"""CSV tables: the CDVAE layout against pymatgen and csv, broken rows, damaged files."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucleate.data.sources import csv_table, open_source

HEADER = ["", "material_id", "formation_energy_per_atom", "band_gap", "spacegroup.number", "stable", "cif"]


def table(rows, header=HEADER) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def good_rows(cifs, count=12):
    names = list(cifs)
    return [
        [i, f"mp-{i}", -0.5 * i, "" if i % 3 else "nan", 225, "True", cifs[names[i % len(names)]]]
        for i in range(count)
    ]


def test_cdvae_layout(tmp_path, cifs, structures, read_all, same_crystal):
    path = tmp_path / "mp20.csv"
    path.write_text(table(good_rows(cifs)))
    source = open_source(path, licence="CC-BY-4.0")
    contents = read_all(source)
    assert contents.announced == 12
    assert not contents.rejections
    assert [record.id for record in contents.records] == [f"mp-{i}" for i in range(12)]
    for i, record in enumerate(contents.records):
        assert same_crystal(record.structure, list(structures.values())[i % 3])
        assert record.properties == {
            "formation_energy_per_atom": -0.5 * i,
            "spacegroup.number": 225,
            "stable": True,
        }
        assert record.units == {"formation_energy_per_atom": "eV/atom"}
        assert record.provenance.row == i
        assert record.provenance.file == str(path)
        assert record.provenance.licence == "CC-BY-4.0"


def test_official_split_files_say_their_split(tmp_path, cifs, read_all):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.csv").write_text(table(good_rows(cifs, 2)))
    contents = read_all(open_source(tmp_path))
    assert [record.properties["split"] for record in contents.records] == ["test"] * 2 + ["train"] * 2 + [
        "val"
    ] * 2


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.bz2", ".csv.xz"])
def test_many_tasks_give_each_row_once(tmp_path, cifs, read_all, monkeypatch, suffix):
    import bz2
    import lzma

    monkeypatch.setattr(csv_table, "ROWS_PER_TASK", 5)
    monkeypatch.setattr(csv_table, "MAX_COMPRESSED_TASKS", 3)
    path = tmp_path / f"table{suffix}"
    pack = {".csv": bytes, ".csv.gz": gzip.compress, ".csv.bz2": bz2.compress, ".csv.xz": lzma.compress}[
        suffix
    ]
    path.write_bytes(pack(table(good_rows(cifs, 23)).encode()))
    source = open_source(path)
    assert len(list(source.tasks())) == (5 if suffix == ".csv" else 3)
    contents = read_all(source)
    assert [record.provenance.row for record in contents.records] == list(range(23))
    assert contents.announced == 23


@pytest.mark.parametrize("lost", ["opening", "closing"])
def test_lost_quotation_mark_costs_one_row(tmp_path, cifs, read_all, lost):
    rows = [table([row]).split("\n", 1)[1] for row in good_rows(cifs, 9)]
    first, last = rows[4].index('"'), rows[4].rindex('"')
    at = first if lost == "opening" else last
    rows[4] = rows[4][:at] + rows[4][at + 1 :]
    path = tmp_path / "broken.csv"
    path.write_text(table([]) + "".join(rows))
    contents = read_all(open_source(path))
    survivors = [record.id for record in contents.records]
    # A closing mark that is lost makes the row end at the opening mark of the next one: both are gone, no
    # third.
    assert set(survivors) >= {f"mp-{i}" for i in range(9)} - {"mp-4", "mp-5"}
    assert 1 <= len(contents.rejections) <= 2
    assert any("cells" in reason or "CSV" in reason for reason in contents.reasons())


def test_bad_rows_are_named_and_the_rest_goes_on(tmp_path, cifs, read_all):
    rows = good_rows(cifs, 8)
    rows[1][-1] = cifs["rutile"][:150]
    rows[2][-1] = ""
    rows[3][2] = "not a number"
    rows[4] = rows[4][:-2]
    rows[5][-1] = cifs["rutile"].replace("4.594", "nan")
    path = tmp_path / "t.csv"
    path.write_text(table(rows))
    # The sample sees the text too and makes the column text, so the kinds are fixed by more numbers than it
    # samples.
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["mp-0", "mp-3", "mp-6", "mp-7"]
    assert [rejection.row for rejection in contents.rejections] == [1, 2, 4, 5]
    assert [rejection.id for rejection in contents.rejections] == ["mp-1", "mp-2", None, "mp-5"]


def test_cell_of_the_wrong_kind_behind_the_sample(tmp_path, cifs, read_all, monkeypatch):
    monkeypatch.setattr(csv_table, "SAMPLED_ROWS", 3)
    rows = good_rows(cifs, 6)
    rows[4][2] = "broken"
    path = tmp_path / "t.csv"
    path.write_text(table(rows))
    contents = read_all(open_source(path))
    assert [rejection.row for rejection in contents.rejections] == [4]
    assert "'formation_energy_per_atom' holds 'broken'" in contents.rejections[0].reason


def test_latin1_row_in_a_utf8_table(tmp_path, cifs, read_all):
    rows = [
        [0, "mp-0", 1, 1, 1, True, "# Å ü\n" + cifs["rutile"]],
        [1, "mp-ü", 1, 1, 1, True, cifs["rutile"]],
    ]
    text = table(rows)
    path = tmp_path / "t.csv"
    at = text.index("1,mp-ü")
    path.write_bytes(b"\xef\xbb\xbf" + text[:at].encode("utf-8") + text[at:].encode("latin-1"))
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["mp-0", "mp-ü"]


def damaged(kind: str, good: bytes) -> tuple[str, bytes]:
    packed = gzip.compress(good)
    return {
        "empty": ("t.csv", b""),
        "header only": ("t.csv", good.split(b"\n")[0] + b"\n"),
        "no cif column": ("t.csv", b"material_id,band_gap\nmp-1,2\n"),
        "utf-16": ("t.csv", good.decode().encode("utf-16")),
        "parquet inside": ("t.csv", b"PAR1" + good),
        "not gzip": ("t.csv.gz", good),
        "empty gzip": ("t.csv.gz", b""),
        "one long line": ("t.csv", good + b"x" * (17 * 2**20)),
        "two equal columns": ("t.csv", b"cif,a,a\nx,1,2\n"),
        "nul bytes": ("t.csv", b"\x00" * 5000),
        "flipped gzip": ("t.csv.gz", packed[:30] + bytes(255 - b for b in packed[30:60]) + packed[60:]),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["empty", "header only", "no cif column", "utf-16", "parquet inside", "not gzip", "empty gzip",
     "one long line", "two equal columns", "nul bytes", "flipped gzip"],
)  # fmt: skip
def test_damaged_file_has_one_reason(tmp_path, cifs, read_all, kind):
    name, content = damaged(kind, table(good_rows(cifs, 3)).encode())
    (tmp_path / name).write_bytes(content)
    contents = read_all(open_source(tmp_path / name))
    assert len(contents.rejections) == 1
    assert len(contents.records) == (3 if kind == "one long line" else 0)


def test_truncated_gzip_gives_the_rows_before_the_damage(tmp_path, cifs, read_all):
    packed = gzip.compress(table(good_rows(cifs, 400)).encode(), compresslevel=1)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(packed[: len(packed) // 2])
    contents = read_all(open_source(path))
    assert 50 < len(contents.records) < 400
    assert len(contents.rejections) == 1
    assert contents.rejections[0].row == len(contents.records)


def test_unknown_option_is_refused_with_the_nearest(tmp_path):
    from nucleate.errors import SourceError

    (tmp_path / "t.csv").write_text("a\n")
    with pytest.raises(SourceError, match="did you mean 'id_column'"):
        open_source(tmp_path / "t.csv", id_colum="x")


# A bare carriage return outside quotes is a line end to csv itself.
cells = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00\r"), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=6), cut=st.integers(0, 400))
def test_any_cells_come_back_as_csv_reads_them(tmp_path, cifs, read_all, rows, cut):
    """Whatever stands in the other cells, each row's structure is found; a cut costs only rows."""
    text = table([[f"r{i}", a, b, cifs["rutile"]] for i, (a, b) in enumerate(rows)], ["id", "a", "b", "cif"])
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("utf-8"))
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == [f"r{i}" for i in range(len(rows))]
    path.write_bytes(text.encode("utf-8")[: len(text.encode("utf-8")) - cut])
    after = read_all(open_source(path))
    assert {record.id for record in after.records} <= {record.id for record in contents.records} | {"t-0"}
    assert len(after.records) + len(after.rejections) >= 1
