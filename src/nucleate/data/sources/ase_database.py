"""ASE databases (SQLite and JSON), read without ASE's own opener, which writes to what it opens.

``ase.db.connect`` creates tables in an empty file and takes lock files. Here SQLite is opened read-only,
blobs are plain arrays of numbers and JSON is plain JSON: nothing in the file can name a Python object to
build.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from nucleate.data.categories import category_of
from nucleate.data.record import Record, Rejection, Task
from nucleate.data.sources.dataset import Dataset, reason_of, unit_cell_from_arrays
from nucleate.data.sources.json_stream import JsonItem, iter_json_items
from nucleate.errors import NucleateError, ParseError

SUFFIXES = (".db",)
ROWS_PER_TASK = 1000
#: Version 5 (2016) is the first that ASE itself still reads.
_OLDEST_VERSION = 5
_BIT_PBC = 7
_SCALARS = ("energy", "free_energy", "magmom")
_SITE_BLOBS = {"forces": 3, "initial_magmoms": 0, "magmoms": 0, "charges": 1, "initial_charges": 1, "tags": 1}
UNITS: Mapping[str, str] = {"energy": "eV", "free_energy": "eV", "magmom": "μB", "stress": "eV/Å³"}


@dataclass(frozen=True)
class AseDatabase:
    """An ASE database in SQLite (``.db``) or JSON.

    Key-value pairs become properties, together with energy, stress and total magnetic moment where they are
    stored; forces, moments, charges and tags go with the sites. The free-form ``data`` of a row is not read.

    Attributes:
        path: the file.
        dataset: name, units, terms and citation.
    """

    path: str
    dataset: Dataset

    @property
    def name(self) -> str:
        """Short name of the data set."""
        return self.dataset.name

    @property
    def units(self) -> Mapping[str, str]:
        """Units of the properties as far as known."""
        return {**UNITS, **self.dataset.units}

    @property
    def licence(self) -> str | None:
        """Terms of use as given when the database was opened."""
        return self.dataset.licence

    def tasks(self) -> Iterator[Task]:
        """Ranges of row ids (SQLite), or the whole of a JSON database, which ASE rewrites at each change."""
        try:
            if _is_sqlite(self.path):
                yield from self._sqlite_tasks()
            else:
                yield Task(key="all", file=self.path)
        except (NucleateError, sqlite3.Error, OSError) as error:
            yield Task(key="database", file=self.path, count=1, problem=_database_reason(error))

    def _sqlite_tasks(self) -> Iterator[Task]:
        with closing(_connect(self.path)) as connection:
            _check_version(connection)
            ids = (row[0] for row in connection.execute("SELECT id FROM systems ORDER BY id"))
            block: list[int] = []
            done = 0
            for row_id in ids:
                block.append(row_id)
                if len(block) == ROWS_PER_TASK:
                    yield self._task(block)
                    done += len(block)
                    block = []
            if block:
                yield self._task(block)
            elif done == 0:
                yield Task(key="database", file=self.path, count=1, problem="The database has no rows.")

    def _task(self, ids: list[int]) -> Task:
        return Task(
            key=f"ids-{ids[0]}", file=self.path, first=ids[0], count=len(ids), details={"last": ids[-1]}
        )

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one range of rows."""
        if task.problem is not None:
            yield Rejection(self.path, None, None, task.problem)
            return
        try:
            rows = _sqlite_rows(self.path, task) if "last" in task.details else _json_rows(self.path)
            num_rows = 0
            for num_rows, (row_id, row) in enumerate(rows, 1):  # noqa: B007
                yield self._record(row_id, row)
            if num_rows == 0:
                yield Rejection(self.path, None, None, "The database has no rows.")
        except (NucleateError, sqlite3.Error, OSError) as error:
            yield Rejection(self.path, None, None, _database_reason(error), category_of(error))

    def _record(self, row_id: int, row: Mapping[str, Any]) -> Record | Rejection:
        record_id = f"{PurePath(self.path).stem}-{row_id}"
        try:
            pairs = _plain_json(row.get("key_value_pairs") or "{}")
            if not isinstance(pairs, dict):
                raise ParseError("The row's key-value pairs are not a mapping.")
            own_id = next(
                (str(pairs.pop(k)) for k in ("material_id", "structure_id", "mp_id") if k in pairs), None
            )
            numbers = _array(row.get("numbers"), np.int32)
            if row.get("pbc") != _BIT_PBC:
                raise ParseError(
                    "The row is not periodic in three directions; it is a molecule, a chain or a slab."
                )
            structure = unit_cell_from_arrays(
                numbers, _array(row.get("cell")), cart=_array(row.get("positions")), name=own_id or record_id
            )
            properties = {**{name: row.get(name) for name in _SCALARS}, **pairs}
            if row.get("stress") is not None:
                properties["stress"] = _array(row["stress"])
            site_properties = {}
            for name, width in _SITE_BLOBS.items():
                if row.get(name) is not None:
                    values = _array(row[name], np.int32 if name == "tags" else np.float64)
                    site_properties[_SITE_NAMES.get(name, name)] = _per_site(
                        values, len(numbers), width, name
                    )
            structure = type(structure)(
                structure.lattice, structure.frac_coords, structure.atomic_numbers, site_properties
            )
        except Exception as error:
            # a foreign blob: whatever goes wrong is this row's reason, not the end
            return Rejection(self.path, row_id, None, reason_of(error), category_of(error))
        return self.dataset.record(
            own_id or record_id,
            structure,
            properties=properties,
            file=self.path,
            row=row_id,
            database_id=own_id,
            units={**UNITS, **self.dataset.units},
        )


#: The calculated moments stand behind the initial ones in the table, so they win where both are there.
_SITE_NAMES = {"initial_magmoms": "magnetic_moment", "magmoms": "magnetic_moment"}


def _is_sqlite(path: str) -> bool:
    with open(path, "rb") as stream:
        head = stream.read(16)
    if not head:
        raise ParseError("The file is empty.")
    if head.startswith(b"SQLite format 3\x00"):
        return True
    if head.lstrip()[:1] == b"{":
        return False
    raise ParseError("The file is neither an SQLite nor a JSON database.")


def _connect(path: str) -> sqlite3.Connection:
    # The file's URI: a '?' or '#' in its name must not be taken for options.
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
    return connection


def _check_version(connection: sqlite3.Connection) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "systems" not in tables:
        raise ParseError(
            f"The SQLite file is no ASE database: it has no table 'systems' but {sorted(tables)}."
        )
    found = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchone()
    if found is None or int(found[0]) < _OLDEST_VERSION:
        raise ParseError(
            "The ASE database is older than version 5; convert it with 'python -m ase.db.convert'."
        )


def _sqlite_rows(path: str, task: Task) -> Iterator[tuple[int, Mapping[str, Any]]]:
    wanted = (
        "id",
        "numbers",
        "positions",
        "cell",
        "pbc",
        "key_value_pairs",
        "stress",
        *_SCALARS,
        *_SITE_BLOBS,
    )
    with closing(_connect(path)) as connection:
        query = f"SELECT {', '.join(wanted)} FROM systems WHERE id BETWEEN ? AND ? ORDER BY id"
        for values in connection.execute(query, (task.first, task.details["last"])):
            yield values[0], dict(zip(wanted, values))


def _json_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open(path, "rb") as stream:
        for item in iter_json_items(stream):
            if isinstance(item.key, str) and item.key.isdigit() and isinstance(item.value, dict):
                yield int(item.key), _json_row(item)


def _json_row(item: JsonItem) -> Mapping[str, Any]:
    row = dict(item.value)
    cell = row.get("cell")
    if isinstance(cell, dict) and "array" in cell:  # ASE 3.18 on: the cell is an object of its own
        row["cell"] = cell["array"]
    pbc = row.get("pbc")
    if isinstance(pbc, dict):
        pbc = pbc.get("__ndarray__", (None, None, pbc))[2]
    row["pbc"] = sum(bool(flag) << axis for axis, flag in enumerate(pbc or ()))
    return row


def _array(value: Any, dtype: Any = np.float64) -> np.ndarray:
    """Numbers of a blob (little-endian, as ASE writes on every machine) or of ASE's JSON arrays, flat."""
    if isinstance(value, bytes):
        kind = np.dtype(dtype).newbyteorder("<")
        if len(value) % kind.itemsize:
            raise ParseError(
                f"A column of {len(value)} bytes does not hold whole numbers of {kind.itemsize} bytes."
            )
        return np.frombuffer(value, kind).astype(dtype)
    if isinstance(value, dict) and "__ndarray__" in value:
        value = value["__ndarray__"][2]
    if value is None:
        raise ParseError("The row has no numbers, positions or cell.")
    return np.asarray(value, dtype=np.float64).reshape(-1)


def _per_site(values: np.ndarray, num_sites: int, width: int, name: str) -> np.ndarray:
    """Values with one row per site; ``width`` 0 takes one number or a vector."""
    per_site = width or (3 if len(values) == 3 * num_sites else 1)
    if len(values) != per_site * num_sites:
        raise ParseError(f"Column {name!r} has {len(values)} numbers for {num_sites} atoms.")
    return values.reshape(num_sites, per_site) if per_site > 1 else values


def _plain_json(value: Any) -> Any:
    """JSON text as plain values, ASE's arrays as lists; a mapping that is already read passes through."""

    def plain(mapping: dict[str, Any]) -> Any:
        if "__ndarray__" in mapping:
            shape, _, flat = mapping["__ndarray__"]
            if math.prod(shape) != len(flat):
                raise ParseError("An array's shape does not fit its numbers.")
            return np.asarray(flat).reshape(shape).tolist()
        return mapping

    text = value if isinstance(value, (str, bytes)) else json.dumps(value)
    return json.loads(text, object_hook=plain)


def _database_reason(error: BaseException) -> str:
    if isinstance(error, sqlite3.Error):
        return f"The SQLite database is damaged or cut short ({error})."
    return reason_of(error)
