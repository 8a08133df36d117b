"""A table of properties joined to the records by id: CSV (also .gz) or Parquet, one row per id."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq

from nucleate.data.id_index import IdIndex, build_index
from nucleate.errors import SourceError

ID_COLUMNS = ("material_id", "id", "mp_id", "mpid", "jid", "structure_id", "entry_id", "name")

_UNIT = re.compile(r"^(?P<name>.*\S)\s*[\(\[](?P<unit>[^()\[\]]+)[\)\]]$")


@dataclass(frozen=True, eq=False)
class PropertyTable:
    """Properties by id.

    Attributes:
        file: path of the table.
        id_column: column that holds the ids.
        table: the other columns, names without their units.
        ids: id of each row.
        units: units found in the headers, ``band_gap (eV)`` or ``band_gap [eV]``.
        index: where each id is.
    """

    file: str
    id_column: str
    table: pa.Table
    ids: pa.Array
    units: dict[str, str]
    index: IdIndex

    def row(self, record_id: str) -> int | None:
        """Row of an id, None where the table does not have it."""
        for row in self.index.candidates(record_id):
            if self.ids[int(row)].as_py() == record_id:
                return int(row)
        return None

    def properties(self, record_id: str) -> dict[str, Any] | None:
        """Values the table has for an id, None where it does not have the id."""
        row = self.row(record_id)
        if row is None:
            return None
        cells = {name: self.table.column(name)[row].as_py() for name in self.table.column_names}
        return {name: value for name, value in cells.items() if value is not None and value == value}


def table_fingerprint(path: str) -> str:
    """Hash of the file, so that a build does not go on with a table that has changed."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"The property table {path} cannot be read: {error.strerror or error}") from error


@functools.lru_cache(maxsize=1)
def read_property_table(path: str, id_column: str | None, fingerprint: str) -> PropertyTable:
    """The table at ``path``; read once per process, again when its ``fingerprint`` differs.

    Raises:
        SourceError: it cannot be read, no column holds the ids, or an id stands in it twice.
    """
    table = _read(path, id_column)
    column = _id_column(table, path, id_column)
    ids = table.column(column).cast(pa.string()).combine_chunks()
    if isinstance(ids, pa.ChunkedArray):
        ids = pa.array([], pa.string())
    index = build_index([[i if i is not None else "" for i in ids.to_pylist()]])
    _refuse_repeated(ids, index, path, column)
    units, names = {}, []
    for name in table.column_names:
        match = _UNIT.match(name)
        if match and name != column:
            units[match["name"]] = match["unit"].strip()
        names.append(match["name"] if match and name != column else name)
    if len(set(names)) < len(names):
        raise SourceError(f"The property table {path} has two columns of one name: {', '.join(names)}")
    rest = table.rename_columns(names).drop_columns([column])
    return PropertyTable(path, column, _plain_types(rest), ids, units, index)


def _read(path: str, id_column: str | None) -> pa.Table:
    try:
        if path.endswith((".parquet", ".pq")):
            return pq.read_table(path, use_threads=False)
        with pv.open_csv(path) as reader:
            names = reader.schema.names
        # Ids that look like numbers stay text: 0012 and 12 are two ids.
        text = {
            name: pa.string() for name in names if name in (*ID_COLUMNS, id_column) or name.endswith("_id")
        }
        return pv.read_csv(
            path, convert_options=pv.ConvertOptions(column_types=text, strings_can_be_null=True)
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"The property table {path} cannot be read as CSV or Parquet: {message}") from error


def _id_column(table: pa.Table, path: str, id_column: str | None) -> str:
    names = table.column_names
    if id_column is not None:
        if id_column not in names:
            raise SourceError(
                f"The property table {path} has no column {id_column!r}; it has {', '.join(names)}"
            )
        return id_column
    found = next((name for name in ID_COLUMNS if name in names), None)
    found = found or next((name for name in names if name.endswith("_id")), None)
    if found is None:
        raise SourceError(
            f"The property table {path} has no column of ids ({', '.join(ID_COLUMNS)}); it has "
            f"{', '.join(names)}: name the column that holds them (--properties-id)"
        )
    return found


def _refuse_repeated(ids: pa.Array, index: IdIndex, path: str, column: str) -> None:
    seen: set[str] = set()
    repeated = []
    for row in index.repeated():
        record_id = ids[int(row)].as_py()
        if record_id in seen and record_id is not None:
            repeated.append(record_id)
        seen.add(record_id)
    if repeated:
        named = ", ".join(sorted(set(repeated))[:5])
        raise SourceError(
            f"The property table {path} has {len(set(repeated))} ids more than once in column {column!r} "
            f"({named}): keep one row per id"
        )


def _plain_types(table: pa.Table) -> pa.Table:
    """Dates become ISO text, decimals and small numbers the types a store has."""
    columns = []
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
            target = pa.string() if pa.types.is_temporal(column.type) else pa.float64()
            column = column.cast(target)
        elif pa.types.is_null(column.type):
            column = pa.nulls(len(column), pa.string())
        columns.append(column)
    return pa.table(columns, names=table.column_names)
