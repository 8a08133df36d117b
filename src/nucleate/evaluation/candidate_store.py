"""The candidates of an evaluation on disk: written once in parts, read by row, by slice or streamed."""

from __future__ import annotations

import hashlib
import json
import operator
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import gcd
from typing import Any, SupportsIndex

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nucleate.crystal import Crystal, EncodedStructure, UnitCell
from nucleate.crystal.elements import element_symbol, mass_density
from nucleate.data.arrays import CrystalArrays, arrays_from_table
from nucleate.data.folder import Folder, open_folder
from nucleate.data.property_values import property_columns
from nucleate.data.schema import SITE_COLUMN, crystal_row, fixed_schema, frame_row
from nucleate.data.site_values import site_properties_from_text, site_properties_to_text
from nucleate.errors import NucleateError
from nucleate.evaluation.candidate import Candidate
from nucleate.evaluation.column import Column

PART_SIZE = 256
"""Most candidates of one part."""

CANDIDATE_CODE = (
    "nucleate.evaluation.candidate",
    "nucleate.evaluation.candidate_store",
    "nucleate.evaluation.reading",
    "nucleate.crystal.encoding",
    "nucleate.crystal.projection",
    "nucleate.crystal.setting",
    "nucleate.crystal.canonical",
)
"""Modules whose source decides what a candidate is: a change of one of them makes the candidates again."""

INDEX_FILE = "candidates.json"
_CACHED_PARTS = 8
_ENCODED = [
    name
    for name in fixed_schema(frame=True).names
    if name not in ("id", "digest", "split", SITE_COLUMN)
    and not name.startswith(("provenance.", "space_group_number_at"))
]
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "file": pa.string(),
        "problem": pa.string(),
        "given": pa.string(),
        "cell.lattice": pa.list_(pa.float64()),
        "cell.atomic_numbers": pa.list_(pa.uint8()),
        "cell.frac_coords": pa.list_(pa.float64()),
        "cell.site_properties": pa.string(),
        "is_encoded": pa.bool_(),
        "num_elements": pa.int16(),
        "space_group_symbol": pa.string(),
        "crystal_system": pa.string(),
        "wyckoff": pa.string(),
        "num_orbits": pa.int32(),
        "num_free_coords": pa.int32(),
        **{name: fixed_schema(frame=True).field(name).type for name in _ENCODED},
    }
)


BASE_COLUMNS = (
    Column("row", pa.int64(), "Place in the input, from 0."),
    Column("id", pa.string(), "Name, the source's own where it has one."),
    Column("file", pa.string(), "Where it came from."),
    Column("problem", pa.string(), "Why it could not be read or encoded; empty otherwise."),
    Column("is_read", pa.bool_(), "Whether the input could be read as atoms in a cell."),
    Column("is_encoded", pa.bool_(), "Whether it is a crystal with an exact asymmetric unit."),
    Column("formula", pa.string(), "Reduced formula."),
    Column("num_elements", pa.int16(), "Number of different elements."),
    Column("num_atoms_primitive", pa.int32(), "Atoms per primitive cell."),
    Column("space_group_number", pa.int16(), "Space group found at 0.01 Å."),
    Column("space_group_symbol", pa.string(), "Its short Hermann-Mauguin symbol."),
    Column("crystal_system", pa.string(), "Its crystal system."),
    Column("wyckoff", pa.string(), "Element and Wyckoff position of each orbit."),
    Column("num_orbits", pa.int32(), "Orbits, the atoms of the asymmetric unit."),
    Column("num_free_coords", pa.int32(), "Free coordinates of all orbits."),
    Column("prototype_key", pa.string(), "Group, template and stoichiometric pattern."),
    Column("bucket_key", pa.string(), "Prototype with elements: other buckets, other crystals."),
    Column("volume_per_atom", pa.float64(), "Volume per atom.", "Å³"),
    Column("density", pa.float64(), "Mass density.", "g/cm³"),
)
"""What every row says before any family has looked at it; what came along follows as ``given.NAME``."""


@dataclass(frozen=True)
class Part:
    """One file of candidates.

    Attributes:
        file: its name in the folder.
        num: candidates in it.
        digest: hash over all that was given: ids, files, cells, problems and what came along.
    """

    file: str
    num: int
    digest: str


def write_part(folder: Folder, file: str, candidates: Sequence[Candidate]) -> Part:
    """The part of these candidates, written in one step."""
    state = hashlib.blake2b(digest_size=16)
    rows = []
    for candidate in candidates:
        row = _row(candidate)
        given = {name: row[name] for name in ("id", "file", "problem", "given", "cell.site_properties")}
        cell = [row[name] for name in ("cell.lattice", "cell.atomic_numbers", "cell.frac_coords")]
        state.update(json.dumps(given, sort_keys=True).encode())
        for array in cell:
            content = b"-" if array is None else np.ascontiguousarray(array).tobytes()
            state.update(len(content).to_bytes(8, "little") + content)
        rows.append(row)
    arrays = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in _SCHEMA]
    with folder.writing(file) as path:
        pq.write_table(pa.table(arrays, schema=_SCHEMA), path, compression="zstd")
    return Part(file, len(candidates), state.hexdigest())


def _row(candidate: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": _text(candidate.id),
        "file": _text(candidate.file),
        "problem": _text(candidate.problem),
        "given": json.dumps(dict(candidate.given), default=str),
        "cell.site_properties": None,
        "cell.lattice": None,
        "cell.atomic_numbers": None,
        "cell.frac_coords": None,
        "is_encoded": candidate.encoded is not None,
    }
    cell = candidate.unit_cell
    if cell is not None:
        row["cell.lattice"] = np.asarray(cell.lattice, dtype=np.float64).ravel()
        row["cell.atomic_numbers"] = np.asarray(cell.atomic_numbers, dtype=np.uint8)
        row["cell.frac_coords"] = np.asarray(cell.frac_coords, dtype=np.float64).ravel()
        row["cell.site_properties"] = site_properties_to_text(cell.site_properties)
        row.update(_cell_row(cell))
    encoded = candidate.encoded
    if encoded is not None:
        row.update(crystal_row(encoded.crystal))
        row.update(_orbit_row(encoded.crystal))
        row.update({name: value for name, value in frame_row(encoded).items() if name != SITE_COLUMN})
        row["max_displacement"] = float(encoded.max_displacement)
        row["max_strain"] = float(encoded.max_strain)
    return row


def _cell_row(cell: UnitCell) -> dict[str, Any]:
    """What can be said of a cell that may be no crystal; replaced where there is one."""
    counts = Counter(np.asarray(cell.atomic_numbers).tolist())
    divisor = gcd(*counts.values())
    return {
        "formula": "".join(
            f"{symbol}{n if n > 1 else ''}"
            for symbol, n in sorted((element_symbol(z), m // divisor) for z, m in counts.items())
        ),
        "num_elements": len(counts),
        "volume_per_atom": cell.volume / cell.num_atoms,
        "density": mass_density(counts, cell.volume) if cell.volume > 0 else None,
    }


def _orbit_row(crystal: Crystal) -> dict[str, Any]:
    symbols = [element_symbol(int(z)) for z in crystal.atomic_numbers]
    return {
        "space_group_symbol": crystal.group.symbol,
        "crystal_system": crystal.group.crystal_system,
        "wyckoff": " ".join(f"{s}:{p.label}" for s, p in zip(symbols, crystal.positions)),
        "num_orbits": crystal.num_orbits,
        "num_free_coords": crystal.num_free_coords,
    }


def _text(text: str) -> str:
    # File names of other encodings hold surrogates, which neither UTF-8 nor Arrow can.
    return text.encode("utf-8", "backslashreplace").decode()


def write_index(folder: Folder, parts: Sequence[Part]) -> None:
    """Write the list of parts: with it the folder is a complete store of candidates."""
    folder.write_bytes(INDEX_FILE, json.dumps([asdict(part) for part in parts]).encode())


class CandidateStore:
    """Candidates in the order of the input; only a few parts of ``PART_SIZE`` are in memory at a time.

    It can be pickled; a worker opens the files itself.

    Args:
        location: folder of the parts.
        parts: which of them.
        start: row of the first candidate, where these are only some parts of a set.
    """

    def __init__(self, location: str, parts: Sequence[Part], *, start: int = 0) -> None:
        self.location, self.start = location, start
        self.parts = tuple(parts)
        self._starts = np.concatenate([[0], np.cumsum([part.num for part in parts], dtype=np.int64)]).astype(
            np.int64
        )
        self._decoded: OrderedDict[int, list[Candidate]] = OrderedDict()

    @classmethod
    def open(cls, location: str) -> CandidateStore:
        """The candidates in a folder that ``write_index`` has finished.

        Raises:
            NucleateError: the folder holds none, or their list is damaged.
        """
        folder = open_folder(location)
        try:
            content = json.loads(folder.read_bytes(INDEX_FILE))
            return cls(location, [Part(**part) for part in content])
        except (OSError, ValueError, TypeError) as error:
            raise NucleateError(
                f"{location} holds no readable list of candidates ({error}): remove the folder and evaluate again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoded": OrderedDict()}

    def __len__(self) -> int:
        """Number of candidates."""
        return int(self._starts[-1])

    @property
    def digest(self) -> str:
        """Hash over everything that was given."""
        state = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            state.update(part.digest.encode())
        return state.hexdigest()

    def __getitem__(self, row: SupportsIndex) -> Candidate:
        """The candidate at a row, negative from the end.

        Raises:
            IndexError: there is no such row.
        """
        i = operator.index(row)
        i += len(self) if i < 0 else 0
        if not 0 <= i < len(self):
            raise IndexError(f"row {operator.index(row)} is out of range for {len(self):,} candidates")
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._part(part)[i - int(self._starts[part])]

    def __iter__(self) -> Iterator[Candidate]:
        """All candidates in order, streamed."""
        for number in range(len(self.parts)):
            yield from self._decode(number)

    def slice(self, first: int, count: int) -> list[Candidate]:
        """The candidates of rows ``first`` to ``first + count``, fewer at the end."""
        return [self[row] for row in range(first, min(first + count, len(self)))]

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of all candidates as they are stored (``bucket_key``, ``density``, ...), null where missing."""
        tables = [self._read(number, list(names)) for number in range(len(self.parts))]
        schema = pa.schema([_SCHEMA.field(name) for name in names])
        return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()

    def base_table(self) -> pa.Table:
        """``BASE_COLUMNS`` of all candidates, then what came along as ``given.NAME``, one typed column each."""
        names = [c.name for c in BASE_COLUMNS if c.name not in ("row", "is_read")]
        table = self.columns([*names, "given", "cell.lattice"])
        arrays: dict[str, Any] = {
            "row": pa.array(np.arange(len(self)), type=pa.int64()),
            "is_read": pc.is_valid(table.column("cell.lattice")),
            **{name: table.column(name) for name in names},
        }
        columns = {c.name: arrays[c.name] for c in BASE_COLUMNS}
        given = property_columns([json.loads(text) for text in table.column("given").to_pylist()])
        columns.update({f"given.{name}": values for name, values in given.items()})
        return pa.table(columns)

    def iter_columns(self, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """First row and columns as they are stored, part by part: what is too large to hold for all candidates."""
        for number, start in enumerate(self._starts[:-1].tolist()):
            yield start, self._read(number, list(names))

    def iter_arrays(self) -> Iterator[tuple[np.ndarray, CrystalArrays]]:
        """Rows and ragged arrays of the encoded candidates, part by part: vectorised work on large sets."""
        for number, start in enumerate(self._starts[:-1].tolist()):
            table = self._read(number, [*_ENCODED, "is_encoded"])
            inside = np.flatnonzero(table.column("is_encoded").to_numpy())
            if len(inside):
                rows = start + inside
                yield rows, arrays_from_table(table.take(inside), rows, {})

    def _read(self, number: int, columns: list[str] | None) -> pa.Table:
        folder, part = open_folder(self.location), self.parts[number]
        try:
            return pq.read_table(folder.open(part.file), columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise NucleateError(
                f"{part.file} of {self.location} cannot be read ({error}): remove the folder and evaluate again"
            ) from error

    def _part(self, number: int) -> list[Candidate]:
        if number in self._decoded:
            self._decoded.move_to_end(number)
        else:
            self._decoded[number] = self._decode(number)
            while len(self._decoded) > _CACHED_PARTS:
                self._decoded.popitem(last=False)
        return self._decoded[number]

    def _decode(self, number: int) -> list[Candidate]:
        table = self._read(number, None)
        inside = np.flatnonzero(table.column("is_encoded").to_numpy())
        some = table.take(inside)
        arrays = arrays_from_table(some, inside, {}) if len(inside) else None
        frames = some.select([name for name in _ENCODED if name.startswith(("frame.", "max_"))]).to_pylist()
        keys = some.select(["prototype_key", "bucket_key", "handedness"]).to_pylist()
        place = {int(row): k for k, row in enumerate(inside)}
        start = int(self._starts[number])
        candidates = []
        for i, cells in enumerate(table.select(_SCHEMA.names[:9]).to_pylist()):
            cell = _unit_cell(cells)
            encoded = None
            if i in place and arrays is not None and cell is not None:
                k = place[i]
                encoded = _encoded(arrays, k, frames[k], keys[k], cell.site_properties)
            candidates.append(
                Candidate(
                    row=self.start + start + i,
                    id=cells["id"],
                    file=cells["file"],
                    unit_cell=cell,
                    encoded=encoded,
                    problem=cells["problem"],
                    given=json.loads(cells["given"]),
                )
            )
        return candidates


def _unit_cell(cells: Mapping[str, Any]) -> UnitCell | None:
    if cells["cell.lattice"] is None:
        return None
    return UnitCell(
        np.array(cells["cell.lattice"], dtype=np.float64).reshape(3, 3),
        np.array(cells["cell.frac_coords"], dtype=np.float64).reshape(-1, 3),
        np.array(cells["cell.atomic_numbers"], dtype=np.int64),
        site_properties_from_text(cells["cell.site_properties"]),
    )


def _encoded(
    arrays: CrystalArrays,
    index: int,
    frame: Mapping[str, Any],
    keys: Mapping[str, Any],
    site_properties: Mapping[str, Any],
) -> EncodedStructure:
    crystal = arrays.crystal(index)
    # They were computed when the candidate was written; computing them again costs more than all else here.
    vars(crystal).update(keys)
    return EncodedStructure(
        crystal=crystal,
        transformation=np.array(frame["frame.transformation"]).reshape(3, 3),
        origin_shift=np.array(frame["frame.origin_shift"]),
        rotation=np.array(frame["frame.rotation"]).reshape(3, 3),
        atom_to_orbit=np.array(frame["frame.atom_to_orbit"]),
        atom_to_operation=np.array(frame["frame.atom_to_operation"]),
        lattice_shifts=np.array(frame["frame.lattice_shifts"]).reshape(-1, 3),
        max_displacement=frame["max_displacement"],
        max_strain=frame["max_strain"],
        site_properties=site_properties,
    )
