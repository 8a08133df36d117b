"""JARVIS entries: streamed from a zip, against json and pymatgen, with damage; and the download."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.data.sources import download, jarvis, json_stream, open_source
from nucleate.data.sources.jarvis_datasets import DATASETS, JarvisDataset
from nucleate.errors import ParseError, SourceError


def entry(i: int, structure, cartesian: bool) -> dict:
    """An entry as jarvis-tools writes it; 'na' stands for everything that was not calculated."""
    return {
        "jid": f"JVASP-{i}",
        "spg_number": "225",
        "formula": structure.composition.reduced_formula,
        "formation_energy_peratom": -0.25 * i,
        "optb88vdw_bandgap": 0.0,
        "mbj_bandgap": "na",
        "elastic_tensor": (100.0 * np.eye(6)).tolist() if i % 2 else "na",
        "effective_masses_300K": {"p": 1.5, "n": "na"},
        "efg": [["Na", "a", 0.1], ["Cl", "b", 0.2]],
        "modes": [0.0, 120.5],
        "icsd": [],
        "atoms": {
            "lattice_mat": structure.lattice.matrix.tolist(),
            "coords": (structure.cart_coords if cartesian else structure.frac_coords).tolist(),
            "elements": [site.specie.symbol for site in structure],
            "abc": list(structure.lattice.abc),
            "angles": list(structure.lattice.angles),
            "cartesian": cartesian,
            "props": [""] * len(structure),
        },
    }


@pytest.fixture
def entries(structures):
    return [entry(i, list(structures.values())[i % 3], cartesian=i % 2 == 0) for i in range(10)]


def pack(path, member, content: str):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)


@pytest.mark.parametrize("zipped", [True, False])
def test_entries(tmp_path, entries, structures, read_all, same_crystal, monkeypatch, zipped):
    monkeypatch.setattr(jarvis, "ENTRIES_PER_TASK", 2)
    monkeypatch.setattr(jarvis, "MAX_TASKS_PER_ZIP", 3)
    member = DATASETS["dft_3d"].member
    path = tmp_path / (f"{member}.zip" if zipped else member)
    if zipped:
        pack(path, member, json.dumps(entries))
    else:
        path.write_text(json.dumps(entries, ensure_ascii=False))
    source = open_source(path)
    assert source.name == "jarvis_dft3d"
    assert len(list(source.tasks())) == (3 if zipped else 5)
    contents = read_all(source)
    assert not contents.rejections
    assert contents.announced == 10
    for i, record in enumerate(contents.records):
        assert record.id == record.provenance.database_id == f"JVASP-{i}"
        assert record.provenance.row == i
        assert "doi.org" in record.provenance.reference
        assert same_crystal(record.structure, list(structures.values())[i % 3])
        assert record.properties["formation_energy_peratom"] == -0.25 * i
        assert record.properties["effective_masses_300K.p"] == 1.5
        assert record.properties["efg"] == json.dumps(entries[i]["efg"])
        assert ("elastic_tensor" in record.properties) == bool(i % 2)
        assert "mbj_bandgap" not in record.properties
        assert "icsd" not in record.properties
        assert record.units["formation_energy_peratom"] == "eV/atom"
    assert contents.records[1].units["elastic_tensor"] == "GPa"
    assert read_all(open_source(f"jarvis:{path}")).announced == 10


def test_bad_entries_are_named(tmp_path, entries, read_all):
    entries[1]["atoms"] = "na"
    del entries[2]["atoms"]["coords"]
    entries[3]["atoms"]["elements"][0] = "Qq"
    entries[4]["atoms"]["lattice_mat"][0][0] = float("nan")
    entries[5] = "not an entry"
    entries[6]["atoms"]["coords"] = entries[6]["atoms"]["coords"][:-1]
    (tmp_path / "x.json").write_text(json.dumps(entries))
    contents = read_all(open_source(tmp_path / "x.json"))
    assert [record.id for record in contents.records] == ["JVASP-0", "JVASP-7", "JVASP-8", "JVASP-9"]
    assert [rejection.row for rejection in contents.rejections] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.95])
def test_truncated_json_gives_what_is_whole(tmp_path, entries, read_all, cut):
    text = json.dumps(entries)
    (tmp_path / "x.json").write_text(text[: int(cut * len(text))])
    contents = read_all(open_source(tmp_path / "x.json"))
    whole = sum(json.dumps(e) in text[: int(cut * len(text))] for e in entries)
    assert len(contents.records) == whole
    assert len(contents.rejections) == 1
    assert contents.rejections[0].row in (None, len(contents.records))


@pytest.mark.parametrize("kind", ["empty list", "truncated zip", "empty zip", "bad crc"])
def test_damaged_zip(tmp_path, entries, read_all, kind):
    path = tmp_path / "x.json.zip"
    pack(path, "x.json", "[]" if kind == "empty list" else json.dumps(entries))
    good = path.read_bytes()
    middle = len(good) // 2
    content = {
        "empty list": good,
        "truncated zip": good[:middle],
        "empty zip": b"",
        "bad crc": good[:middle] + bytes(255 - b for b in good[middle : middle + 40]) + good[middle + 40 :],
    }[kind]
    path.write_bytes(content)
    contents = read_all(open_source(path))
    assert len(contents.rejections) == 1
    if kind in {"truncated zip", "empty zip"}:
        with pytest.raises(SourceError, match="damaged"):
            open_source(f"jarvis:{path}")


def test_unknown_set_is_refused_with_the_nearest():
    with pytest.raises(SourceError, match="did you mean 'dft_3d'"):
        open_source("jarvis:dft_3D")


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**60), 2**60),
        st.floats(allow_nan=False),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    items=st.lists(json_values, max_size=12),
    block=st.integers(1, 40),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_stream_gives_what_json_gives_and_starts_anywhere(items, block, ascii_only, indent):
    text = json.dumps(items, ensure_ascii=ascii_only, indent=indent)
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates exist as escapes only
        content = json.dumps(items).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_BLOCK", block)
        found = list(json_stream.iter_json_items(io.BytesIO(content)))
        assert [item.value for item in found] == items
        for item in found:
            rest = list(json_stream.iter_json_items(io.BytesIO(content), item.offset, first=item.key))
            assert [r.value for r in rest] == items[item.key :]
            assert [r.key for r in rest] == list(range(item.key, len(items)))


def exhaust(items, found: list) -> None:
    for item in items:
        found.append(item.value)


@settings(max_examples=100, deadline=None)
@given(items=st.lists(json_values, min_size=1, max_size=6), at=st.floats(0, 1))
def test_cut_stream_gives_a_prefix_and_an_error(items, at):
    content = json.dumps(items).encode()
    cut = content[: int(at * (len(content) - 1))]
    found = []
    with pytest.raises(ParseError):
        exhaust(json_stream.iter_json_items(io.BytesIO(cut)), found)
    # A number may be cut and still be a number; everything before it is whole.
    assert found[:-1] == items[: max(len(found) - 1, 0)]


def test_download_is_checked_resumed_and_cached(tmp_path, entries, http_server, monkeypatch, read_all):
    name = "dft_3d"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(DATASETS[name].member, json.dumps(entries))
    content = buffer.getvalue()
    listing = [
        {"id": DATASETS[name].file_id, "size": len(content), "computed_md5": hashlib.md5(content).hexdigest()}
    ]
    server = http_server({"/listing": json.dumps(listing).encode(), "/file": content})
    server.break_off["/file"] = [len(content) // 3, len(content) // 3]  # the first two transfers break off
    monkeypatch.setattr(JarvisDataset, "url", property(lambda self: f"{server.url}/file"))
    quick = download.RetryPolicy(attempts=4, first_wait=0.01, timeout=5.0)
    monkeypatch.setattr(download.RetryPolicy, "wait", lambda self, attempt, retry_after: 0.0)
    checksum = download.Checksum(listing[0]["computed_md5"], len(content))
    monkeypatch.setattr(jarvis, "figshare_checksum", lambda *a, **k: checksum)
    contents = read_all(open_source("jarvis:dft_3d", cache_dir=str(tmp_path)))
    assert len(contents.records) == 10
    ranges = [headers.get("Range") for path, headers in server.requests if path == "/file"]
    assert ranges[0] is None
    assert len(ranges) > 1
    assert all(value.startswith("bytes=") for value in ranges[1:])
    before = len(server.requests)
    assert len(read_all(open_source("jarvis:dft_3d", cache_dir=str(tmp_path))).records) == 10
    assert len(server.requests) == before
    # Negative control: another MD5 is refused and nothing stays behind.
    wrong = download.Checksum("0" * 32, len(content))
    with pytest.raises(SourceError, match="MD5"):
        download.download(f"{server.url}/file", tmp_path / "other.zip", checksum=wrong, policy=quick)
    assert not list(tmp_path.glob("other*"))


def test_figshare_listing(http_server, monkeypatch):
    listing = [{"id": 1, "size": 5, "computed_md5": "ab"}, {"id": 2, "size": 7, "computed_md5": ""}]
    server = http_server({"/v2/articles/9/files?page_size=1000": json.dumps(listing).encode()})
    real = download.get_json
    monkeypatch.setattr(
        download, "get_json", lambda url, **k: real(url.replace("https://api.figshare.com", server.url), **k)
    )
    assert download.figshare_checksum(9, 1) == download.Checksum("ab", 5)
    assert download.figshare_checksum(9, 2) is None
    assert download.figshare_checksum(9, 3) is None
