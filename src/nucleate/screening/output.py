"""The folder a screening leaves: one row per candidate in two tables, CIFs of the survivors, artefacts, run.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
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
from nucleate.screening.journal import Journal

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
        self._names = FileNames(state.pool.ids())
        self._given = {f"given.{name}": kind for name, kind in sorted(state.pool.given_kinds.items())}

    def write(self, workers: Workers) -> int:
        """Write CIFs, artefacts and tables; the number of survivors.

        Args:
            workers: where CIFs are made, which takes longer than all the rest.
        """
        known = (*BASE_COLUMNS, *self._columns)
        given = [pa.field(name, arrow_type(kind)) for name, kind in self._given.items()]
        schema = pa.schema([pa.field(c.name, c.type) for c in (*known, *CRYSTAL_COLUMNS)] + given)
        hidden = {column.name for column in CRYSTAL_COLUMNS}
        texts = pa.schema([_text_field(field) for field in schema if field.name not in hidden])
        kept: set[str] = set()
        folder = str((self._folder.path / CIF_FOLDER).resolve())
        with (
            self._folder.writing(TABLE_FILE) as table_path,
            self._folder.writing(CSV_FILE) as csv_path,
            pq.ParquetWriter(table_path, schema, compression="zstd") as table,
            pa_csv.CSVWriter(csv_path, texts) as rows_as_text,
        ):
            for _ in workers.map(
                partial(write_cifs, folder), self._parts(table, rows_as_text, schema, texts, kept)
            ):
                pass
        self._remove_others(kept)
        described = {
            c.name: {"unit": c.unit, "description": c.description} for c in (*known, *CRYSTAL_COLUMNS)
        }
        write_json(self._folder, "columns.json", described)
        return len(kept)

    def _parts(
        self,
        table: pq.ParquetWriter,
        rows_as_text: pa_csv.CSVWriter,
        schema: pa.Schema,
        texts: pa.Schema,
        kept: set[str],
    ) -> Iterator[list[tuple[str, str, Crystal]]]:
        """Write the tables part by part; the survivors of each as (file name, id, crystal)."""
        survivors: list[tuple[str, str, Crystal]] = []
        source = self._rows(survivors)
        while rows := list(islice(source, _ROWS)):
            part = self._table([row for row, _ in rows], [given for _, given in rows], schema)
            table.write_table(part)
            rows_as_text.write_table(_as_text(part.select(texts.names), texts))
            kept.update(name for name, _, _ in survivors)
            yield list(survivors)
            survivors.clear()

    def write_run(self, content: dict[str, Any]) -> None:
        """Write ``run.json``."""
        write_json(self._folder, RUN_FILE, content)

    def _rows(
        self, survivors: list[tuple[str, str, Crystal]]
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """(columns, what came along) of every candidate in order; writes its artefacts and notes survivors."""
        state = self._state
        for row in range(len(state.pool)):
            record = state.pool[row]
            verdicts = state.records(row, self._journal)
            crystal = state.final_crystal(record.crystal, verdicts)
            values: dict[str, Any] = {
                "row": row,
                "id": record.id,
                "file": record.file,
                "last_step": state.steps[int(state.last[row])],
                "status": STATUS[int(state.status[row])],
                "reason": record.problem,
            }
            other = int(state.representative[row])
            if other != row:
                values["duplicate_of"] = state.pool[other].id
                values["reason"] = f"a copy of {values['duplicate_of']}"
            stem = self._names.stem(record.id)
            for step, verdict in verdicts:
                values |= verdict["columns"]
                values["reason"] = verdict["reason"]
                for name, path in self._journal.files(state.keys[step][row].decode(), verdict):
                    self._folder.write_bytes(f"{DETAIL_FOLDER}/{stem}/{name}", path.read_bytes())
            if crystal is not None:
                values |= crystal_values(crystal)
                values["given_space_group"] = record.crystal.space_group_number if record.crystal else None
                if state.status[row] == IN:
                    survivors.append((f"{stem}.cif", record.id, crystal))
            yield values, {f"given.{name}": value for name, value in record.given.items()}

    def _table(self, rows: list[dict[str, Any]], given: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
        found = property_columns(given)
        arrays = []
        for field in schema:
            if field.name not in self._given:
                arrays.append(pa.array([row.get(field.name) for row in rows], type=field.type))
            elif field.name in found:
                arrays.append(conform(found[field.name], self._given[field.name]))
            else:
                arrays.append(pa.nulls(len(rows), field.type))
        return pa.table(arrays, schema=schema)

    def _remove_others(self, kept: set[str]) -> None:
        """CIFs of candidates that survived an earlier run with fewer steps are no survivors."""
        for name in self._folder.names(CIF_FOLDER):
            if name.endswith(".cif") and name not in kept:
                self._folder.remove(f"{CIF_FOLDER}/{name}")


def write_cifs(folder: str, survivors: Sequence[tuple[str, str, Crystal]]) -> None:
    """Write the CIFs of some survivors, given as (file name, id, crystal)."""
    place = LocalFolder(Path(folder))
    for name, title, crystal in survivors:
        place.write_bytes(name, crystal.to_cif(title).encode())


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
