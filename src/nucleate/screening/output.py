"""The folder a screening leaves: one row per candidate in two tables, CIFs of the survivors, artefacts, run.json."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from nucleate.crystal import Crystal
from nucleate.data.file_names import FileNames
from nucleate.data.folder import LocalFolder
from nucleate.data.property_values import arrow_type, conform, property_columns
from nucleate.evaluation.column import Column
from nucleate.evaluation.report import write_json
from nucleate.evaluation.workers import Workers
from nucleate.screening.funnel_state import IN, STATUS, FunnelState
from nucleate.screening.journal import Journal, artefacts
from nucleate.screening.parcels import map_in_parcels
from nucleate.screening.stored_item import StoredItem

TABLE_FILE, CSV_FILE, RUN_FILE, CIF_FOLDER, DETAIL_FOLDER = (
    "crystals.parquet",
    "crystals.csv",
    "run.json",
    "crystals",
    "details",
)
_ROWS = 1024

BASE_COLUMNS = (
    Column("row", pa.int64(), "Place in the input, from 0."),
    Column("id", pa.string(), "Name, the source's own where it has one."),
    Column("file", pa.string(), "Where it came from."),
    Column("last_step", pa.string(), "Last step that saw the candidate; 'read' where it is no crystal."),
    Column("status", pa.string(), "passed (all steps), left (judged, out) or failed (not computed)."),
    Column("reason", pa.string(), "Why it left or failed; empty for a survivor."),
    Column("duplicate_of", pa.string(), "The candidate of which it is a copy or mirror image."),
    Column("formula", pa.string(), "Reduced formula."),
    Column("num_atoms", pa.int32(), "Atoms per primitive cell."),
    Column("given_space_group", pa.int16(), "Space group found in the crystal as given."),
    Column("space_group", pa.int16(), "Space group of the crystal after its last step."),
    Column("volume_per_atom", pa.float64(), "Volume per atom after the last step.", "Å³"),
    Column("density", pa.float64(), "Mass density after the last step.", "g/cm³"),
)
CRYSTAL_COLUMNS = (
    # The names of a folder of ``nucleate generate``, so that this folder can be read like one.
    Column("space_group_asked", pa.int16(), "Space group the following numbers are given in."),
    Column("wyckoff_indices", pa.list_(pa.uint8()), "Wyckoff position of each orbit, 0 for letter a."),
    Column("atomic_numbers", pa.list_(pa.uint8()), "Element of each orbit."),
    Column("free_coords", pa.list_(pa.float64()), "Three free coordinates of each orbit, 0 where not free."),
    Column("lattice_params", pa.list_(pa.float64()), "Free parameters of the lattice."),
)
"""The crystal after its last step, to the last bit."""


@dataclass(frozen=True)
class RowSource:
    """What a row of the table is made of.

    Attributes:
        row: place in the input.
        stored: the candidate and the verdicts on it.
        steps: (step, key) of these verdicts.
        last_step: last step that saw it.
        status: what became of it.
        duplicate_of: candidate of which it is a copy; empty where it is none.
        copy_reason: why it left, where it did as a copy.
    """

    row: int
    stored: StoredItem
    steps: tuple[tuple[str, str], ...]
    last_step: str
    status: str
    duplicate_of: str = ""
    copy_reason: str = ""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of the results, as a worker makes them.

    Attributes:
        table: for ``crystals.parquet``.
        text: for ``crystals.csv``, without a header.
        cifs: names of the CIFs of survivors, which are written.
    """

    table: pa.Table
    text: bytes
    cifs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RowMaker:
    """Makes rows of the results and writes CIFs and artefacts; sent to workers.

    Attributes:
        folder: of the results.
        journal: folder of the journal.
        schema: of the Parquet table.
        texts: of the CSV.
        given: kind of each ``given.NAME``.
        names: file names of the candidates.
    """

    folder: str
    journal: str
    schema: pa.Schema
    texts: pa.Schema
    given: Mapping[str, str]
    names: FileNames

    def __call__(self, sources: Sequence[RowSource]) -> Rows:
        """The rows of some candidates."""
        place = LocalFolder(Path(self.folder))
        rows, cifs = [], []
        for source in sources:
            stem = self.names.stem(source.stored.given["id"])
            crystal = source.stored.crystal()
            rows.append(self._values(source, crystal, stem, place))
            if source.status == STATUS[IN] and crystal is not None:
                cifs.append(f"{stem}.cif")
                place.write_bytes(
                    f"{CIF_FOLDER}/{cifs[-1]}", crystal.to_cif(source.stored.given["id"]).encode()
                )
        table = self._table(rows, [source.stored.given["given"] for source in sources])
        text = io.BytesIO()
        without = pa_csv.WriteOptions(include_header=False)
        pa_csv.write_csv(_as_text(table.select(self.texts.names), self.texts), text, without)
        return Rows(table, text.getvalue(), tuple(cifs))

    def _values(
        self, source: RowSource, crystal: Crystal | None, stem: str, place: LocalFolder
    ) -> dict[str, Any]:
        """Columns of a candidate; its artefacts are written."""
        given = source.stored.given
        values: dict[str, Any] = {
            "row": source.row,
            "id": given["id"],
            "file": given["file"],
            "last_step": source.last_step,
            "status": source.status,
            "reason": given["problem"],
        }
        for (_, key), verdict in zip(source.steps, source.stored.records):
            values |= verdict["columns"]
            values["reason"] = verdict["reason"]
            for name, path in artefacts(Path(self.journal), key, verdict):
                place.write_bytes(f"{DETAIL_FOLDER}/{stem}/{name}", path.read_bytes())
        if source.duplicate_of:
            values["duplicate_of"], values["reason"] = source.duplicate_of, source.copy_reason
        if crystal is not None:
            values |= crystal_values(crystal)
            values["given_space_group"] = given["crystal"]["space_group_number"]
        return values

    def _table(self, rows: Sequence[dict[str, Any]], given: Sequence[dict[str, Any]]) -> pa.Table:
        found = property_columns([{f"given.{name}": value for name, value in row.items()} for row in given])
        arrays = []
        for field in self.schema:
            if field.name not in self.given:
                arrays.append(pa.array([row.get(field.name) for row in rows], type=field.type))
            elif field.name in found:
                arrays.append(conform(found[field.name], self.given[field.name]))
            else:
                arrays.append(pa.nulls(len(rows), field.type))
        return pa.table(arrays, schema=self.schema)


class ScreeningFolder:
    """Writes the results of a screening; every file is complete or absent.

    Args:
        path: the folder.
        state: how far every candidate came.
        journal: all verdicts.
        columns: columns of the steps that were done.
    """

    def __init__(self, path: Path, state: FunnelState, journal: Journal, columns: Sequence[Column]) -> None:
        self._folder, self._state, self._journal = LocalFolder(path), state, journal
        self._columns = tuple(columns)

    def write(self, workers: Workers) -> int:
        """Write CIFs, artefacts and tables; the number of survivors.

        Args:
            workers: where rows and CIFs are made.
        """
        known = (*BASE_COLUMNS, *self._columns)
        kinds = {f"given.{name}": kind for name, kind in sorted(self._state.pool.given_kinds.items())}
        given = [pa.field(name, arrow_type(kind)) for name, kind in kinds.items()]
        schema = pa.schema([pa.field(c.name, c.type) for c in (*known, *CRYSTAL_COLUMNS)] + given)
        hidden = {column.name for column in CRYSTAL_COLUMNS}
        texts = pa.schema([_text_field(field) for field in schema if field.name not in hidden])
        maker = RowMaker(
            str(self._folder.path.resolve()),
            str(self._journal.folder.resolve()),
            schema,
            texts,
            kinds,
            FileNames(self._state.pool.ids()),
        )
        kept: set[str] = set()
        with (
            self._folder.writing(TABLE_FILE) as table_path,
            self._folder.writing(CSV_FILE) as csv_path,
            pq.ParquetWriter(table_path, schema, compression="zstd") as table,
            csv_path.open("wb") as rows_as_text,
        ):
            pa_csv.write_csv(texts.empty_table(), rows_as_text)
            for rows in map_in_parcels(workers, maker, self._sources()):
                table.write_table(rows.table)
                rows_as_text.write(rows.text)
                kept.update(rows.cifs)
        self._remove_others(kept)
        described = {
            c.name: {"unit": c.unit, "description": c.description} for c in (*known, *CRYSTAL_COLUMNS)
        }
        write_json(self._folder, "columns.json", described)
        return len(kept)

    def write_run(self, content: dict[str, Any]) -> None:
        """Write ``run.json``."""
        write_json(self._folder, RUN_FILE, content)

    def _sources(self) -> Iterator[list[RowSource]]:
        """What the rows are made of, part by part."""
        stored = self._state.stored(range(len(self._state.pool)), self._journal)
        representative = self._state.representative
        while part := list(islice(stored, _ROWS)):
            others = [int(representative[row]) for row, _ in part if representative[row] != row]
            names = dict(zip(others, self._state.pool.names(others)))
            yield [self._source(row, item, names) for row, item in part]

    def _source(self, row: int, stored: StoredItem, names: Mapping[int, str]) -> RowSource:
        state = self._state
        other = int(state.representative[row])
        step = state.steps[int(state.last[row])]
        source = RowSource(row, stored, tuple(state.seen_keys(row)), step, STATUS[int(state.status[row])])
        if other == row:
            return source
        before = state.steps[int(state.last[row]) - 1]
        after = f"after {before} " if source.steps else ""
        return replace(source, duplicate_of=names[other], copy_reason=f"{after}a copy of {names[other]}")

    def _remove_others(self, kept: set[str]) -> None:
        """CIFs of candidates that survived an earlier run with fewer steps are no survivors."""
        for name in self._folder.names(CIF_FOLDER):
            if name.endswith(".cif") and name not in kept:
                self._folder.remove(f"{CIF_FOLDER}/{name}")


def crystal_values(crystal: Crystal) -> dict[str, Any]:
    """Columns that describe a crystal, and those that hold it."""
    return {
        "formula": crystal.formula,
        "num_atoms": crystal.num_atoms_primitive,
        "space_group": crystal.space_group_number,
        "volume_per_atom": crystal.volume_per_atom,
        "density": crystal.density,
        "space_group_asked": crystal.space_group_number,
        "wyckoff_indices": np.asarray(crystal.wyckoff_indices).astype(np.uint8),
        "atomic_numbers": np.asarray(crystal.atomic_numbers).astype(np.uint8),
        "free_coords": crystal.free_coords.ravel(),
        "lattice_params": crystal.lattice_params,
    }


def _text_field(field: pa.Field) -> pa.Field:
    """A column as it stands in a CSV, which has no lists."""
    return pa.field(field.name, pa.string()) if pa.types.is_nested(field.type) else field


def _as_text(table: pa.Table, schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        column = table.column(field.name)
        if column.type != field.type:
            texts = [None if value is None else json.dumps(value) for value in column.to_pylist()]
            column = pa.array(texts, type=field.type)
        arrays.append(column)
    return pa.table(arrays, schema=schema)
