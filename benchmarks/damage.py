"""Damaged structure files and good ones beside them, made from the bundled crystals with a seed."""

from __future__ import annotations

import gzip
import io
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.io import write as ase_write

from nucleate.crystal import Crystal, encode
from nucleate.data.bundled import load_bundled

HUGE = 100_000  # atoms


@dataclass(frozen=True)
class Damaged:
    """One file.

    Attributes:
        kind: what was done to it, ``good: ...`` where nothing was.
        name: its file name.
        content: its bytes.
        num_good: crystals in it that must encode.
        num_bad: damaged inputs in it, each of which must give one reason.
    """

    kind: str
    name: str
    content: bytes
    num_good: int = 0
    num_bad: int = 1


Rng = np.random.Generator
TextDamage = Callable[[str, Rng], str]


def _crystals() -> list[Crystal]:
    crystals = [encode(entry.unit_cell).crystal for entry in load_bundled()]
    return [c for c in crystals if c.num_atoms <= 60 and c.num_atoms_primitive > 1]


def _extxyz(crystal: Crystal) -> str:
    stream = io.StringIO()
    cell = crystal.unit_cell("primitive")
    atoms = Atoms(numbers=cell.atomic_numbers, cell=cell.lattice, scaled_positions=cell.frac_coords, pbc=True)
    ase_write(stream, atoms, format="extxyz")
    return stream.getvalue()


def _lines(text: str) -> list[str]:
    return text.rstrip("\n").split("\n")


def _atom_rows(text: str) -> list[int]:
    """Lines of the atoms of a CIF as nucleate writes it."""
    lines = _lines(text)
    start = lines.index("_atom_site_occupancy") + 1
    return list(range(start, len(lines)))


def _edit_row(text: str, rng: Rng, edit: Callable[[list[str]], list[str]]) -> str:
    lines, rows = _lines(text), _atom_rows(text)
    row = int(rng.choice(rows))
    lines[row] = " ".join(edit(lines[row].split()))
    return "\n".join(lines) + "\n"


def _set(index: int, value: str) -> Callable[[list[str]], list[str]]:
    return lambda tokens: [*tokens[:index], value, *tokens[index + 1 :]]


def _cell(text: str, name: str, value: str | None) -> str:
    line = "" if value is None else f"_cell_{name}    {value}"
    return re.sub(rf"^_cell_{name} .*$", line, text, count=1, flags=re.MULTILINE)


def _huge_cif(text: str, rng: Rng) -> str:
    """100,000 hydrogen atoms without symmetry."""
    cell = "\n".join(
        line for line in _lines(text) if line.startswith(("data_", "_cell_length", "_cell_angle"))
    )
    tags = "\n".join(f"_atom_site_{tag}" for tag in ("label", "type_symbol", "fract_x", "fract_y", "fract_z"))
    rows = (f"H{i} H {x:.6f} {y:.6f} {z:.6f}" for i, (x, y, z) in enumerate(rng.uniform(size=(HUGE, 3))))
    return "\n".join([cell, "loop_", tags, *rows, ""])


def _symop(text: str, rng: Rng, value: str) -> str:
    found = list(re.finditer(r"^\d+ '(.*)'$", text, flags=re.MULTILINE))
    match = found[int(rng.integers(len(found)))]
    return text[: match.start(1)] + value + text[match.end(1) :]


def _one_of(*values: str) -> Callable[[Rng], str]:
    return lambda rng: str(rng.choice(values))


CIF_DAMAGE: dict[str, TextDamage] = {
    "cut inside an atom": lambda t, rng: "\n".join(_lines(t)[: _atom_rows(t)[0]]) + "\nX1 Si 4 a 0.25 0.2",
    "cut before the atoms": lambda t, rng: t[: t.index("loop_\n_atom_site_label")],
    "cut inside the cell": lambda t, rng: t[: t.index("_cell_angle_alpha")],
    "letters in a coordinate": lambda t, rng: _edit_row(t, rng, _set(5, _one_of("abc", "0.1.2", "0,5")(rng))),
    "NaN coordinate": lambda t, rng: _edit_row(t, rng, _set(4, _one_of("nan", "NaN", "inf")(rng))),
    "unknown coordinate": lambda t, rng: _edit_row(t, rng, _set(6, _one_of("?", ".")(rng))),
    "coordinate of 1e300": lambda t, rng: _edit_row(t, rng, _set(4, "1e300")),
    "missing value": lambda t, rng: _edit_row(t, rng, lambda tokens: tokens[:-1]),
    "unknown element": lambda t, rng: _edit_row(
        t, rng, lambda k: ["Xx1", _one_of("Xx", "Qq", "Zz")(rng), *k[2:]]
    ),
    "partial occupancy": lambda t, rng: _edit_row(t, rng, _set(7, _one_of("0.5", "0.25(3)", "0.98")(rng))),
    "occupancy above 1": lambda t, rng: _edit_row(t, rng, _set(7, "1.7")),
    "cell length 0": lambda t, rng: _cell(t, "length_a", "0.0"),
    "cell length negative": lambda t, rng: _cell(t, "length_b", "-5.43"),
    "cell length NaN": lambda t, rng: _cell(t, "length_c", _one_of("nan", "?", "x")(rng)),
    "cell length 1e300": lambda t, rng: _cell(t, "length_a", _one_of("1e300", "1e999", "1e30")(rng)),
    "cell length missing": lambda t, rng: _cell(t, "length_b", None),
    "angle 0": lambda t, rng: _cell(t, "angle_gamma", _one_of("0", "180")(rng)),
    "angles that do not close": lambda t, rng: _cell(_cell(t, "angle_alpha", "20"), "angle_beta", "150"),
    "operation does not parse": lambda t, rng: _symop(
        t, rng, _one_of("x,y,w", "x,y", "x+1/0,y,z", "", "x,y,z,z", "x;y;z", "x+,y,z", "1/2+x y z", "**")(rng)
    ),
    "operation is no symmetry": lambda t, rng: _symop(t, rng, _one_of("2x,y,z", "x,x,z", "0,y,z")(rng)),
    "same place twice": lambda t, rng: (
        t
        + _lines(t)[-1]
        .replace(_lines(t)[-1].split()[0], "Kr9")
        .replace(f" {_lines(t)[-1].split()[1]} ", " Kr ")
        .replace("  ", " ")
        + "\n"
    ),
    "unterminated quote": lambda t, rng: t.replace("'x,y,z'", "'x,y,z", 1),
    "unterminated text": lambda t, rng: t.replace("loop_\n_atom_site_label", ";\nloop_\n_atom_site_label"),
    "loop without values": lambda t, rng: "\n".join(_lines(t)[: _atom_rows(t)[0]]) + "\n",
    "100,000 atoms": _huge_cif,
}


def _poscar_line(text: str, line: int, value: str) -> str:
    lines = _lines(text)
    lines[line] = value
    return "\n".join(lines) + "\n"


def _poscar_coords(text: str, rng: Rng, value: str) -> str:
    lines = _lines(text)
    row = int(rng.integers(8, len(lines)))
    tokens = lines[row].split()
    tokens[int(rng.integers(3))] = value
    return _poscar_line(text, row, " ".join(tokens))


def _huge_poscar(text: str, rng: Rng) -> str:
    head = [*_lines(text)[:5], "H", str(HUGE), "Direct"]
    return "\n".join([*head, *(f"{x:.6f} {y:.6f} {z:.6f}" for x, y, z in rng.uniform(size=(HUGE, 3)))])


POSCAR_DAMAGE: dict[str, TextDamage] = {
    "cut inside the coordinates": lambda t, rng: "\n".join(_lines(t)[:-1]) + "\n  0.25 0.",
    "cut inside the lattice": lambda t, rng: "\n".join(_lines(t)[:4]) + "\n",
    "cut after the counts": lambda t, rng: "\n".join(_lines(t)[:7]) + "\n",
    "more atoms than lines": lambda t, rng: _poscar_line(t, 6, f"{_lines(t)[6]} 3").replace(
        _lines(t)[5], f"{_lines(t)[5]} Kr", 1
    ),
    "negative count": lambda t, rng: _poscar_line(t, 6, "-" + _lines(t)[6]),
    "count of 10^12": lambda t, rng: _poscar_line(_poscar_line(t, 5, "H"), 6, "1000000000000"),
    "count with letters": lambda t, rng: _poscar_line(t, 6, f"{_lines(t)[6]}x"),
    "counts and elements disagree": lambda t, rng: _poscar_line(t, 5, f"{_lines(t)[5]} Kr Xe"),
    "unknown element": lambda t, rng: _poscar_line(
        t, 5, " ".join([_one_of("Xx", "Qz", "123")(rng), *_lines(t)[5].split()[1:]])
    ),
    "no element line": lambda t, rng: "\n".join(_lines(t)[:5] + _lines(t)[6:]).replace(
        _lines(t)[0], "run 7", 1
    ),
    "NaN lattice": lambda t, rng: _poscar_line(t, 2, "nan 0 0"),
    "letters in the lattice": lambda t, rng: _poscar_line(t, 3, "a b c"),
    "two lattice numbers": lambda t, rng: _poscar_line(t, 4, "1.0 2.0"),
    "zero volume": lambda t, rng: _poscar_line(t, 4, _lines(t)[3]),
    "zero scale": lambda t, rng: _poscar_line(t, 1, "0.0"),
    "infinite scale": lambda t, rng: _poscar_line(t, 1, _one_of("inf", "1e300", "nan")(rng)),
    "NaN coordinate": lambda t, rng: _poscar_coords(t, rng, "NaN"),
    "letters in a coordinate": lambda t, rng: _poscar_coords(t, rng, _one_of("xyz", "0.5.5", "--1")(rng)),
    "coordinate overflow": lambda t, rng: _poscar_coords(t, rng, "********"),
    "overlapping atoms": lambda t, rng: _poscar_line(t, len(_lines(t)) - 1, _lines(t)[8]),
    "100,000 atoms": _huge_poscar,
}


def _xyz_atom(text: str, rng: Rng, index: int, value: str) -> str:
    lines = _lines(text)
    row = int(rng.integers(2, len(lines)))
    tokens = lines[row].split()
    tokens[index] = value
    lines[row] = " ".join(tokens)
    return "\n".join(lines) + "\n"


def _huge_xyz(text: str, rng: Rng) -> str:
    rows = (f"H {x:.6f} {y:.6f} {z:.6f}" for x, y, z in rng.uniform(0, 100, size=(HUGE, 3)))
    return (
        f'{HUGE}\nLattice="100 0 0 0 100 0 0 0 100" Properties=species:S:1:pos:R:3 pbc="T T T"\n'
        + "\n".join(rows)
    )


def _xyz_overlap(text: str, rng: Rng) -> str:
    lines = _lines(text)
    place = lines[2].split()[1:]
    lines[-1] = " ".join([lines[-1].split()[0], *place])
    return "\n".join(lines) + "\n"


def _xyz_head(text: str, old: str, new: str) -> str:
    return re.sub(old, new, text, count=1)


XYZ_DAMAGE: dict[str, TextDamage] = {
    "cut inside an atom": lambda t, rng: t.rstrip()[:-12] + "\n",
    "cut before the last atom": lambda t, rng: "\n".join(_lines(t)[:-1]) + "\n",
    "count with letters": lambda t, rng: "seven" + t[t.index("\n") :],
    "count negative": lambda t, rng: "-4" + t[t.index("\n") :],
    "count of 10^9": lambda t, rng: "1000000000" + t[t.index("\n") :],
    "count too small": lambda t, rng: "1" + t[t.index("\n") :],
    "no lattice": lambda t, rng: _xyz_head(t, r'Lattice="[^"]*" ', ""),
    "NaN lattice": lambda t, rng: _xyz_head(t, r'Lattice="\S+', 'Lattice="nan'),
    "eight lattice numbers": lambda t, rng: _xyz_head(t, r'Lattice="\S+ ', 'Lattice="'),
    "zero volume": lambda t, rng: _xyz_head(t, r'Lattice="[^"]*"', 'Lattice="3 0 0 3 0 0 0 0 3"'),
    "not periodic": lambda t, rng: _xyz_head(t, 'pbc="T T T"', 'pbc="T T F"'),
    "columns that are not there": lambda t, rng: _xyz_head(t, "pos:R:3", "pos:R:3:forces:R:3"),
    "NaN coordinate": lambda t, rng: _xyz_atom(t, rng, 2, "nan"),
    "letters in a coordinate": lambda t, rng: _xyz_atom(t, rng, 1, "abc"),
    "unknown element": lambda t, rng: _xyz_atom(t, rng, 0, "Qq"),
    "overlapping atoms": _xyz_overlap,
    "100,000 atoms": _huge_xyz,
}

BYTE_DAMAGE: dict[str, Callable[[bytes, Rng], bytes]] = {
    "empty": lambda b, rng: b"",
    "only blanks": lambda b, rng: b" \n\t\n" * int(rng.integers(1, 9)),
    "random bytes": lambda b, rng: rng.bytes(len(b)),
    "gzip under another name": lambda b, rng: gzip.compress(b, mtime=0),
    "zip under another name": lambda b, rng: zip_of([("a.cif", b)]),
    "NUL bytes inside": lambda b, rng: b[: len(b) // 2] + b"\x00" * 40 + b[len(b) // 2 :],
    "UTF-16 cut in half a character": lambda b, rng: b.decode().encode("utf-16")[: len(b) | 1],
    "EBCDIC": lambda b, rng: b.decode().encode("cp500", errors="replace"),
    "web page": lambda b, rng: b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head>\n</html>\n",
    "notes": lambda b, rng: b"# to do\nask about the sample\n",
}


def zip_of(members: list[tuple[str, bytes]]) -> bytes:
    """A zip archive of members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def tar_of(members: list[tuple[str, bytes]], mode: str = "w:gz") -> bytes:
    """A tar archive of members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _zip_with_link(good: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in good:
            archive.writestr(name, content)
        info = zipfile.ZipInfo("link.cif")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return stream.getvalue()


def _zip_encrypted(good: list[tuple[str, bytes]]) -> bytes:
    content = bytearray(zip_of([*good, ("secret.cif", b"data_x\n")]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.rfind(signature)
        struct.pack_into("<H", content, at + offset, 1)
    return bytes(content)


def _zip_bad_checksum(good: list[tuple[str, bytes]]) -> bytes:
    content = bytearray(zip_of([*good, ("damaged.cif", good[0][1])]))
    at = content.rfind(b"PK\x03\x04")
    content[at + 60] ^= 0xFF
    return bytes(content)


def _tar_with_link(good: list[tuple[str, bytes]], kind: bytes, target: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in good:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("link.cif")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return stream.getvalue()


def archives(good: list[tuple[str, bytes]], broken: bytes, rng: Rng) -> Iterator[Damaged]:
    """Archives with good members and one trick or one damage each."""
    n = len(good)
    tricks = {
        "path that climbs": str(rng.choice(["../../evil.cif", "a/../../evil.cif", "..\\evil.cif"])),
        "absolute path": str(rng.choice(["/etc/evil.cif", "C:\\evil.cif", "C:/evil.cif"])),
    }
    for kind, name in tricks.items():
        yield Damaged(f"zip: {kind}", "tricks.zip", zip_of([*good, (name, good[0][1])]), n)
        yield Damaged(f"tar: {kind}", "tricks.tar.gz", tar_of([(name, good[0][1]), *good]), n)
    yield Damaged("zip: link", "link.zip", _zip_with_link(good), n)
    yield Damaged("tar: link", "link.tar.gz", _tar_with_link(good, tarfile.SYMTYPE, "/etc/passwd"), n)
    yield Damaged("tar: hard link", "link.tar.gz", _tar_with_link(good, tarfile.LNKTYPE, "../../x"), n)
    yield Damaged("tar: device", "link.tar.gz", _tar_with_link(good, tarfile.CHRTYPE, ""), n)
    yield Damaged("zip: encrypted", "encrypted.zip", _zip_encrypted(good), n)
    yield Damaged("zip: wrong checksum", "checksum.zip", _zip_bad_checksum(good), n)
    yield Damaged("zip: bomb", "bomb.zip", zip_of([*good, ("bomb.cif", b"0" * (1 << 23))]), n)
    yield Damaged("zip: damaged CIF", "mixed.zip", zip_of([good[0], ("bad.cif", broken), *good[1:]]), n)
    yield Damaged("tar: damaged CIF", "mixed.tar", tar_of([good[0], ("bad.cif", broken), *good[1:]], "w"), n)
    yield Damaged("zip: foreign file", "notes.zip", zip_of([*good, ("notes.docx", b"PK\x03\x04")]), n)
    whole = zip_of(good)
    yield Damaged("zip: cut", "cut.zip", whole[: len(whole) * 2 // 3])
    yield Damaged("zip: not a zip", "text.zip", b"this is not an archive\n" * 9)
    yield Damaged("zip: empty file", "empty.zip", b"")
    yield Damaged("tar: not a tar", "text.tar.gz", gzip.compress(b"this is not an archive\n" * 40, mtime=0))
    yield Damaged("tar: not gzip", "plain.tar.gz", b"this is not an archive\n" * 40)
    yield Damaged("tar: empty file", "empty.tar", b"")
    plain = tar_of(good, "w")
    second = plain.index(good[1][0].encode())
    yield Damaged("tar: cut", "cut.tar", plain[: second + 512 + 100], 1)


def tables(texts: list[str], cells: list[Crystal], rng: Rng) -> Iterator[Damaged]:
    """CSV and Parquet tables with damaged rows among good ones, and damaged as a whole."""
    quoted = [f'id-{i},"{t.replace(chr(34), chr(34) * 2)}",{i}' for i, t in enumerate(texts)]
    head = "material_id,cif,band_gap"
    n = len(texts)

    def csv(rows: list[str]) -> bytes:
        return "\n".join([head, *rows, ""]).encode()

    bad_cif = texts[0][: texts[0].index("loop_\n_atom_site_label")].replace('"', "'")
    yield Damaged("csv: empty cell", "t.csv", csv([*quoted, "bad,,1.0"]), n)
    yield Damaged("csv: damaged CIF", "t.csv", csv([quoted[0], f'bad,"{bad_cif}",1', *quoted[1:]]), n)
    yield Damaged("csv: text for CIF", "t.csv", csv([*quoted, "bad,hello,1.0"]), n)
    yield Damaged("csv: no structure column", "t.csv", b"a,b\n1,2\n")
    yield Damaged("csv: empty", "t.csv", b"")
    packed = gzip.compress(csv(quoted * 8), mtime=0)
    yield Damaged("csv.gz: cut", "t.csv.gz", packed[: len(packed) // 3], -1)
    yield Damaged("csv.gz: not gzip", "t.csv.gz", csv(quoted))
    units = [c.unit_cell("primitive") for c in cells]
    good = {
        "material_id": [f"id-{i}" for i in range(len(units))],
        "numbers": [u.atomic_numbers.tolist() for u in units],
        "lattice": [u.lattice.ravel().tolist() for u in units],
        "frac_coords": [u.frac_coords.ravel().tolist() for u in units],
    }
    nan = float("nan")
    changes = {
        "NaN lattice": ("lattice", [nan] * 9),
        "eight lattice numbers": ("lattice", [1.0] * 8),
        "no lattice": ("lattice", None),
        "zero volume": ("lattice", [1.0, 0, 0, 1, 0, 0, 0, 0, 1]),
        "atomic number 0": ("numbers", [0] * len(good["numbers"][-1])),
        "atomic number 250": ("numbers", [250] * len(good["numbers"][-1])),
        "no atoms": ("numbers", []),
        "too few coordinates": ("frac_coords", [0.1, 0.2]),
        "infinite coordinate": ("frac_coords", [float("inf")] * len(good["frac_coords"][-1])),
        "all atoms at one place": ("frac_coords", [0.5] * len(good["frac_coords"][-1])),
    }
    for kind, (column, value) in changes.items():
        row = {k: [*v, value if k == column else v[-1]] for k, v in good.items()}
        row["material_id"][-1] = "bad"
        yield Damaged(f"parquet: {kind}", "t.parquet", parquet_of(row), len(units))
    whole = parquet_of(good)
    yield Damaged("parquet: cut", "t.parquet", whole[: len(whole) // 2])
    footer = len(whole) - 8 - struct.unpack("<I", whole[-8:-4])[0]
    torn = whole[:footer] + rng.bytes(64) + whole[footer + 64 :]
    yield Damaged("parquet: footer damaged", "t.parquet", torn)
    damaged = bytearray(whole)
    damaged[8:200] = rng.bytes(192)
    yield Damaged("parquet: pages damaged", "t.parquet", bytes(damaged))
    yield Damaged("parquet: no structure column", "t.parquet", parquet_of({"a": [1, 2]}))
    yield Damaged("parquet: no rows", "t.parquet", parquet_of({k: v[:0] for k, v in good.items()}, good))
    yield Damaged("parquet: text", "t.parquet", b"PAR1 is all that is right here\n")
    yield Damaged("ase database: random bytes", "t.db", rng.bytes(4096))
    yield Damaged("json: cut", "t.json", b'[{"jid": "JVASP-1", "atoms": {"lattice_mat": [[3, 0, 0], [0')
    yield Damaged("json: nothing of use", "t.json", b'{"hello": "world"}')
    yield Damaged("unknown suffix", "t.docx", b"PK\x03\x04 words")


def parquet_of(columns: dict[str, list], like: dict[str, list] | None = None) -> bytes:
    """A Parquet table, with page checksums as good writers set them."""
    schema = pa.table(like).schema if like else None
    stream = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), stream, compression="zstd", write_page_checksum=True)
    return stream.getvalue()


def good_files(crystal: Crystal, name: str) -> Iterator[Damaged]:
    """Files that look odd and are good."""
    cif = crystal.to_cif(name)
    yield Damaged("good: CIF", f"{name}.cif", cif.encode(), 1, 0)
    latin = "# Ångström 20 °C\n".encode("latin-1") + cif.encode()
    yield Damaged("good: CIF, Latin-1 comment", f"{name}.cif", latin, 1, 0)
    yield Damaged("good: CIF, Windows line ends", f"{name}.cif", cif.replace("\n", "\r\n").encode(), 1, 0)
    yield Damaged("good: CIF, UTF-8 with mark", f"{name}.cif", cif.encode("utf-8-sig"), 1, 0)
    yield Damaged("good: CIF, UTF-16 with mark", f"{name}.cif", cif.encode("utf-16"), 1, 0)
    yield Damaged("good: POSCAR", f"{name}.vasp", crystal.to_poscar().encode(), 1, 0)
    yield Damaged("good: POSCAR, no line end", f"{name}.vasp", crystal.to_poscar().rstrip().encode(), 1, 0)
    yield Damaged("good: extxyz", f"{name}.extxyz", _extxyz(crystal).encode(), 1, 0)
    two = _extxyz(crystal) * 2
    yield Damaged("good: extxyz, two frames", f"{name}.xyz", two.encode(), 2, 0)


def damaged_files(count: int, *, seed: int) -> Iterator[Damaged]:
    """About ``count`` damaged inputs in files of their own, and a good file after every few of them.

    Every kind of damage comes up once before any comes up twice; the big ones (100,000 atoms) stay at three.
    """
    rng = np.random.default_rng(seed)
    crystals = _crystals()
    made = turn = 0
    while made < count:
        crystal = crystals[int(rng.integers(len(crystals)))]
        others = [crystals[int(i)] for i in rng.choice(len(crystals), 3, replace=False)]
        found: list[Damaged] = []
        for suffix, text, damages in (
            ("cif", crystal.to_cif("x"), CIF_DAMAGE),
            ("vasp", crystal.to_poscar(), POSCAR_DAMAGE),
            ("extxyz", _extxyz(crystal), XYZ_DAMAGE),
        ):
            for kind, damage in damages.items():
                if turn < 3 or not kind.startswith("100,000"):
                    # One atom may well be a frame of its own; what follows it is not.
                    num_good = 1 if kind == "count too small" else 0
                    damaged = damage(text, rng).encode()
                    found.append(Damaged(f"{suffix}: {kind}", f"x.{suffix}", damaged, num_good))
            for kind, change in BYTE_DAMAGE.items():
                found.append(Damaged(f"{suffix}: {kind}", f"x.{suffix}", change(text.encode(), rng)))
        members = [(f"m{i}.cif", c.to_cif(f"m{i}").encode()) for i, c in enumerate(others)]
        broken = CIF_DAMAGE["cut before the atoms"](crystal.to_cif("x"), rng).encode()
        found += archives(members, broken, rng)
        found += tables([c.to_cif("x") for c in others], others, rng)
        good = list(good_files(crystal, "g"))
        for number, item in enumerate(found):
            if made >= count:
                return
            made += 1
            yield item
            if number % 10 == 9:
                yield good[(number // 10) % len(good)]
        turn += 1
