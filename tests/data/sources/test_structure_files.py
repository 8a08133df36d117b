"""Structure files, folders and archives: against pymatgen and ASE, with path tricks, bombs and damage."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile

import numpy as np
import pytest

from nucleate.data.record import Record, Rejection
from nucleate.data.sources import archive, extxyz, file_collection, open_source, structure_files
from nucleate.errors import SourceError


@pytest.fixture
def folder(tmp_path, structures, cifs):
    root = tmp_path / "crystals"
    (root / "runs" / "rutile").mkdir(parents=True)
    (root / "a rocksalt.cif").write_text(cifs["rocksalt"])
    (root / "runs" / "rutile" / "CONTCAR").write_text(structures["rutile"].to(fmt="poscar"))
    (root / "runs" / "quartz.vasp").write_text(structures["quartz"].to(fmt="poscar"))
    return root


def test_folder_is_read_sorted_and_named_by_path(folder, structures, read_all, same_crystal):
    (folder / "notes.md").write_text("not a crystal")
    contents = read_all(open_source(folder))
    assert [record.id for record in contents.records] == ["a rocksalt", "runs/quartz", "runs/rutile"]
    for record, name in zip(contents.records, ["rocksalt", "quartz", "rutile"]):
        assert same_crystal(record.structure, structures[name])
    assert [rejection.file for rejection in contents.rejections] == [str(folder / "notes.md")]
    assert contents.announced == 4
    assert contents.records[0].provenance.source == "crystals"


def test_glob_and_single_file(folder, read_all):
    assert [r.id for r in read_all(open_source(folder / "**" / "*.vasp")).records] == ["runs/quartz"]
    assert [r.id for r in read_all(open_source(folder / "a rocksalt.cif")).records] == ["a rocksalt"]
    with pytest.raises(SourceError, match="no file, folder or match"):
        open_source(folder / "*.nothing")
    (folder / "notes.md").write_text("x")
    with pytest.raises(SourceError, match="not one that nucleate reads"):
        open_source(folder / "notes.md")


def test_bundles(folder, cifs, read_all, monkeypatch):
    monkeypatch.setattr(file_collection, "FILES_PER_TASK", 2)
    for i in range(5):
        (folder / f"m{i}.cif").write_text(cifs["rutile"])
    (folder / "m2b.csv").write_text("material_id,cif\nx,\n")
    source = open_source(folder)
    assert [task.count for task in source.tasks()] == [2, 2, 1, 2, 2]
    contents = read_all(source)
    assert len(contents.records) == 8
    assert len(contents.rejections) == 1


def test_extxyz_against_ase(tmp_path, structures, read_all):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import read, write
    from pymatgen.io.ase import AseAtomsAdaptor

    frames = []
    for i, structure in enumerate(structures.values()):
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.info = {"material_id": f"x-{i}", "band_gap": 1.5 * i, "tag": "a b", "virial": np.eye(3) * i}
        atoms.calc = SinglePointCalculator(atoms, energy=-3.0 * i, forces=np.full((len(atoms), 3), 0.1 * i))
        frames.append(atoms)
    path = tmp_path / "frames.extxyz"
    write(path, frames, format="extxyz")
    contents = read_all(open_source(path))
    assert not contents.rejections
    for i, (record, atoms) in enumerate(zip(contents.records, read(path, ":"))):
        assert record.id == f"x-{i}"
        np.testing.assert_allclose(record.structure.cart_coords, atoms.positions, atol=1e-9)
        np.testing.assert_array_equal(record.structure.atomic_numbers, atoms.numbers)
        np.testing.assert_allclose(record.structure.site_properties["forces"], atoms.get_forces())
        assert record.properties["energy"] == atoms.get_potential_energy()
        assert record.units["energy"] == "eV"
        assert record.properties["tag"] == "a b"
        assert np.allclose(record.properties["virial"], np.eye(3) * i)


def test_bad_frame_costs_one_frame(tmp_path, read_all):
    good = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T"\nCu 0 0 0\n'
    molecule = "1\nProperties=species:S:1:pos:R:3\nCu 0 0 0\n"
    wrong = good.replace("Cu 0 0 0", "Cu 0 zero 0")
    path = tmp_path / "f.extxyz"
    path.write_text(good + wrong + molecule + good + "7\nbroken")
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["f-0", "f-3"]
    assert [rejection.row for rejection in contents.rejections] == [1, 2, 4]


def test_large_trajectory_is_cut_into_blocks(tmp_path, read_all, monkeypatch):
    monkeypatch.setattr(file_collection, "_LARGE_EXTXYZ_BYTES", 100)
    monkeypatch.setattr(extxyz, "FRAMES_PER_TASK", 4)
    frame = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T" n={}\nCu 0 0 0\n'
    (tmp_path / "run.xyz").write_text("".join(frame.format(i) for i in range(11)) + "damage\n")
    source = open_source(tmp_path / "run.xyz")
    assert [task.count for task in source.tasks()] == [4, 4, 3, 1]
    contents = read_all(source)
    assert [record.id for record in contents.records] == [f"run-{i}" for i in range(11)]
    assert [record.properties["n"] for record in contents.records] == list(range(11))
    assert [rejection.row for rejection in contents.rejections] == [11]


def test_cif_with_several_blocks(tmp_path, cifs, read_all):
    text = "data_global\n_journal_year 2020\n" + "".join(cifs.values())
    (tmp_path / "all.cif").write_text(text)
    contents = read_all(open_source(tmp_path / "all.cif"))
    assert [record.id for record in contents.records] == ["all-NaCl", "all-TiO2", "all-SiO2"]
    (tmp_path / "all.cif").write_text(text.replace("data_TiO2", "data_TiO2\nloop_ loop_ 'x"))
    contents = read_all(open_source(tmp_path / "all.cif"))
    assert [record.id for record in contents.records] == ["all-NaCl", "all-SiO2"]
    assert [rejection.id for rejection in contents.rejections] == ["all-TiO2"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.cif", b""),
        ("spaces.cif", b"  \n\n"),
        ("binary.cif", bytes(range(256)) * 20),
        ("truncated.cif", b"data_x\n_cell_length_a 4.0\nloop_\n_atom_site_label\n"),
        ("zip.cif", b"PK\x03\x04" + bytes(100)),
        ("POSCAR", b"comment\n1.0\n3 0 0\n0 3 0\n"),
        ("text.vasp", "Å".encode("utf-16")),
        ("nan.vasp", b"c\n1.0\nnan 0 0\n0 3 0\n0 0 3\nCu\n1\nDirect\n0 0 0\n"),
        ("zero.vasp", b"c\n1.0\n3 0 0\n0 3 0\n0 3 0\nCu\n1\nDirect\n0 0 0\n"),
        ("many.vasp", b"c\n1.0\n3 0 0\n0 3 0\n0 0 3\nCu\n100000\nDirect\n0 0 0\n"),
        ("f.xyz", b"-5\nx\n"),
        ("f2.xyz", b"99999999999\nx\n"),
    ],
)
def test_damaged_file_has_one_reason_and_the_rest_goes_on(tmp_path, cifs, read_all, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "zz good.cif").write_text(cifs["rutile"])
    contents = read_all(open_source(tmp_path))
    assert [record.id for record in contents.records] == ["zz good"]
    assert [rejection.file for rejection in contents.rejections] == [str(tmp_path / name)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, cifs, read_all, encoding):
    (tmp_path / "a.cif").write_bytes(("# Groß, Å\n" + cifs["rutile"]).encode(encoding))
    assert len(read_all(open_source(tmp_path)).records) == 1


def test_folders_named_like_files_and_links(tmp_path, cifs, read_all):
    (tmp_path / "x.cif").mkdir()
    (tmp_path / "x.cif" / "y.cif").write_text(cifs["rutile"])
    (tmp_path / "broken.cif").symlink_to(tmp_path / "nowhere.cif")
    (tmp_path / "loop").symlink_to(tmp_path)
    contents = read_all(open_source(tmp_path))
    assert [record.id for record in contents.records] == ["x.cif/y"]
    assert sorted(os.path.basename(rejection.file) for rejection in contents.rejections) == [
        "broken.cif",
        "loop",
        "x.cif",
    ]


def test_empty_folder(tmp_path):
    (tmp_path / "below").mkdir()
    for spec in (tmp_path, tmp_path / "*"):
        with pytest.raises(SourceError, match="holds no files: check the path"):
            list(open_source(spec).tasks())


def tar_bytes(members: dict[str, bytes], extra=()) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return stream.getvalue()


def zip_bytes(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return stream.getvalue()


PACKERS = {
    ".zip": zip_bytes,
    ".tar": tar_bytes,
    ".tar.gz": lambda m: gzip.compress(tar_bytes(m)),
    ".tgz": lambda m: gzip.compress(tar_bytes(m)),
    ".tar.bz2": lambda m: bz2.compress(tar_bytes(m)),
    ".tar.xz": lambda m: lzma.compress(tar_bytes(m)),
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_archives(tmp_path, cifs, structures, read_all, same_crystal, monkeypatch, suffix):
    monkeypatch.setattr(structure_files, "MEMBERS_PER_TASK", 2)
    monkeypatch.setattr(structure_files, "MAX_TASKS_PER_ARCHIVE", 4)
    names = [f"set/{i:02}-{name}.cif" for i in range(4) for name in cifs]
    path = tmp_path / f"all{suffix}"
    path.write_bytes(PACKERS[suffix]({name: cifs[name[7:-4]].encode() for name in names}))
    source = open_source(path)
    assert len(list(source.tasks())) == 4
    contents = read_all(source)
    assert [record.id for record in contents.records] == [name[:-4] for name in names]
    assert contents.announced == 12
    assert contents.records[0].provenance.file == f"{path}!{names[0]}"
    assert all(same_crystal(r.structure, structures[r.id[7:]]) for r in contents.records)
    assert sorted(os.listdir(tmp_path)) == [path.name]


TRICKS = ["/etc/absolute.cif", "../outside.cif", "a/../../outside.cif", "C:\\windows.cif", "..\\outside.cif"]


@pytest.mark.parametrize("suffix", PACKERS)
def test_path_tricks_are_refused_by_name(tmp_path, cifs, read_all, suffix):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / f"tricks{suffix}"
    members = {name: cifs["rutile"].encode() for name in [*TRICKS, "good.cif"]}
    path.write_bytes(PACKERS[suffix](members))
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["good"]
    assert len(contents.rejections) == len(TRICKS)
    assert all("absolute" in reason or "outside" in reason for reason in contents.reasons())
    assert os.listdir(tmp_path) == ["inside"]
    assert os.listdir(inside) == [path.name]


def test_links_and_devices_in_a_tar(tmp_path, cifs, read_all):
    extra = []
    for name, kind in [("s.cif", tarfile.SYMTYPE), ("h.cif", tarfile.LNKTYPE), ("d.cif", tarfile.CHRTYPE),
                       ("f.cif", tarfile.FIFOTYPE)]:  # fmt: skip
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        extra.append(info)
    path = tmp_path / "links.tar"
    path.write_bytes(tar_bytes({"good.cif": cifs["rutile"].encode()}, extra))
    contents = read_all(open_source(path))
    assert len(contents.records) == 1
    assert len(contents.rejections) == 4
    assert all("link or a device" in reason for reason in contents.reasons())


def test_link_in_a_zip(tmp_path, cifs, read_all):
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as packed:
        info = zipfile.ZipInfo("link.cif")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
        packed.writestr("good.cif", cifs["rutile"])
    contents = read_all(open_source(path))
    assert len(contents.records) == 1
    assert "link" in contents.reasons()[0]


def test_bombs(tmp_path, cifs, read_all, monkeypatch):
    path = tmp_path / "bomb.zip"
    path.write_bytes(zip_bytes({"bomb.cif": bytes(20 * 2**20), "good.cif": cifs["rutile"].encode()}))
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["good"]
    assert "bomb" in contents.reasons()[0]
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 2**20)
    path = tmp_path / "large.tar.gz"
    path.write_bytes(
        gzip.compress(tar_bytes({"large.cif": bytes(2**21), "good.cif": cifs["rutile"].encode()}))
    )
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["good"]
    assert "MiB" in contents.reasons()[0]
    monkeypatch.setattr(archive, "_STREAM_RATIO_COUNTS_FROM", 2**20)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(
        gzip.compress(tar_bytes({"good.cif": cifs["rutile"].encode(), "bomb.cif": bytes(2**26)}))
    )
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["good"]
    assert any("bomb" in reason for reason in contents.reasons())


def test_zip_whose_header_lies_about_the_size(tmp_path, cifs, read_all, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 5000)
    content = zip_bytes({"lie.cif": bytes(20_000), "good.cif": cifs["rutile"].encode()})
    lying = content.replace((20_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lying != content
    path = tmp_path / "lie.zip"
    path.write_bytes(lying)
    contents = read_all(open_source(path))
    assert [record.id for record in contents.records] == ["good"]
    assert len(contents.rejections) == 1


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "flipped"])
def test_damaged_archive_never_stops_the_rest(tmp_path, cifs, read_all, suffix, kind):
    members = {f"m{i}.cif": (f"# {os.urandom(3000).hex()}\n" + cifs["rutile"]).encode() for i in range(9)}
    good = PACKERS[suffix](members)
    middle = len(good) // 2
    broken = {
        "empty": b"",
        "truncated": good[:middle],
        "text": b"this is text\n" * 100,
        "flipped": good[:middle] + bytes(255 - b for b in good[middle : middle + 300]) + good[middle + 300 :],
    }[kind]
    (tmp_path / f"a{suffix}").write_bytes(broken)
    (tmp_path / "good.cif").write_text(cifs["rutile"])
    contents = read_all(open_source(tmp_path))
    assert contents.records[-1].id == "good"
    if (kind, suffix) != ("flipped", ".tar"):  # a plain tar has no checksum over its content
        assert contents.rejections
    if kind in {"empty", "text"}:
        assert len(contents.rejections) == 1


def test_encrypted_member_is_named(tmp_path, cifs, read_all):
    path = tmp_path / "e.zip"
    content = bytearray(zip_bytes({"secret.cif": cifs["rutile"].encode()}))
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1  # the directory says "encrypted"
    content[6] |= 1
    path.write_bytes(content)
    contents = read_all(open_source(path))
    assert "encrypted" in contents.reasons()[0]


def test_no_file_is_neither_record_nor_rejection(folder, read_all):
    contents = read_all(open_source(folder))
    assert all(isinstance(item, (Record, Rejection)) for item in [*contents.records, *contents.rejections])
    assert len(contents.records) + len(contents.rejections) == sum(
        len(files) for _, _, files in os.walk(folder)
    )
