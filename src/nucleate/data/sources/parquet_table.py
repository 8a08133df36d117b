"""Parquet tables of crystals: ``numbers``, ``lattice``, ``frac_coords`` columns, or a ``cif`` column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.crystal.convert import unit_cell_from_cif
from nucleate.crystal.unit_cell import UnitCell
from nucleate.data.categories import category_of
from nucleate.data.record import Record, Rejection, Task
from nucleate.data.sources.dataset import Dataset, DatasetSource, reason_of, unit_cell_from_arrays
from nucleate.data.sources.foreign_values import find_id_column
from nucleate.errors import NucleateError, ParseError

SUFFIXES = (".parquet", ".pq")
ARRAY_COLUMNS = ("numbers", "lattice", "frac_coords")
#: Sometimes beside the arrays; part of the structure, so neither becomes a property.
DERIVED_COLUMNS = ("num_atoms",)
ROWS_PER_TASK = 1000
#: A row group is decoded from its start for each task inside it, so a large one is cut into few of them.
MAX_TASKS_PER_ROW_GROUP = 32
_ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class ParquetTable(DatasetSource):
    """A Parquet table whose rows are crystals; see ``docs/sources.md`` for the columns.

    Attributes:
        path: the file.
        dataset: name, units, terms and citation.
        id_column: column that names the records, found by itself when None.
        cif_column: column with CIF text to read the structures from, even where the arrays are there.
        max_atoms: largest number of atoms per cell that is read from CIF text.
    """

    path: str
    dataset: Dataset
    id_column: str | None = None
    cif_column: str | None = None
    max_atoms: int = 1000

    def tasks(self) -> Iterator[Task]:
        """Slices of row groups, from the file's footer alone."""
        try:
            with pq.ParquetFile(self.path) as table:
                columns = _StructureColumns.of(
                    table.schema_arrow, self.id_column, self.cif_column, self.dataset.source_column
                )
                sizes = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
        except (NucleateError, pa.ArrowException, OSError) as error:
            yield Task(key="footer", file=self.path, count=1, problem=_file_reason(error))
            return
        if sum(sizes) == 0:
            yield Task(key="footer", file=self.path, count=1, problem="The table has no rows.")
        before = 0
        for group, size in enumerate(sizes):
            block = max(ROWS_PER_TASK, -(-size // MAX_TASKS_PER_ROW_GROUP))
            for skip in range(0, size, block):
                yield Task(
                    key=f"rows-{before + skip}",
                    file=self.path,
                    first=before + skip,
                    count=min(block, size - skip),
                    details={"row_group": group, "skip": skip, "columns": columns},
                )
            before += size

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one slice of a row group, read in small batches."""
        if task.problem is not None:
            yield Rejection(self.path, None, None, task.problem)
            return
        columns: _StructureColumns = task.details["columns"]
        row = task.first
        try:
            for batch in _slice(self.path, task.details["row_group"], task.details["skip"], task.count or 0):
                for cells in batch.to_pylist():
                    yield self._record(columns, row, cells)
                    row += 1
        except (pa.ArrowException, OSError) as error:
            end = task.first + (task.count or 0) - 1
            yield Rejection(
                self.path, row, None, f"Rows {row} to {end} cannot be read: {_file_reason(error)}"
            )

    def _record(self, columns: _StructureColumns, row: int, cells: dict[str, Any]) -> Record | Rejection:
        given_id = cells.get(columns.id_column) if columns.id_column else None
        record_id = str(given_id) if given_id not in (None, "") else f"{PurePath(self.path).stem}-{row}"
        database_id = None if given_id in (None, "") else str(given_id)
        try:
            structure = columns.structure(cells, record_id, self.max_atoms)
        except Exception as error:
            # foreign values: whatever goes wrong is this row's reason, not the end
            return Rejection(self.path, row, database_id, reason_of(error), category_of(error))
        properties = {name: value for name, value in cells.items() if name not in columns.left_out}
        return self.dataset.record(
            record_id, structure, properties=properties, file=self.path, row=row, database_id=database_id
        )


@dataclass(frozen=True)
class _StructureColumns:
    """Which columns hold the structure and the id; travels inside each task."""

    cif_column: str | None
    id_column: str | None
    left_out: frozenset[str]

    @classmethod
    def of(
        cls, schema: pa.Schema, id_column: str | None, cif_column: str | None, source_column: str | None
    ) -> _StructureColumns:
        names = schema.names
        for wanted in (cif_column, id_column, source_column):
            if wanted is not None and wanted not in names:
                raise ParseError(f"The table has no column {wanted!r}; it has {', '.join(names)[:300]}.")
        has_arrays = set(ARRAY_COLUMNS) <= set(names)
        if cif_column is None and not has_arrays:
            cif_column = next((name for name in names if name.lower() == "cif"), None)
            if cif_column is None:
                raise ParseError(
                    "The table has no structures: it needs the columns numbers, lattice and frac_coords, "
                    f"or cif; it has {', '.join(names)[:300]}."
                )
        key = id_column or find_id_column(names)
        structural = {"cif", cif_column, key, *DERIVED_COLUMNS, *(ARRAY_COLUMNS if has_arrays else ())}
        return cls(cif_column, key, frozenset(name for name in structural if name))

    def structure(self, cells: Mapping[str, Any], record_id: str, max_atoms: int) -> UnitCell:
        if self.cif_column is not None:
            text = cells[self.cif_column]
            if not isinstance(text, str) or not text.strip():
                raise ParseError(f"The row has no structure: column {self.cif_column!r} is empty.")
            return unit_cell_from_cif(text, name=record_id, max_atoms=max_atoms)
        numbers, lattice, frac_coords = (cells[name] for name in ARRAY_COLUMNS)
        empty = [name for name in ARRAY_COLUMNS if cells[name] is None]
        if empty:
            raise ParseError(f"The row has no structure: {', '.join(empty)} is empty.")
        return unit_cell_from_arrays(numbers, lattice, frac=frac_coords, name=record_id)


def _slice(path: str, row_group: int, skip: int, count: int) -> Iterator[pa.RecordBatch]:
    """Rows ``skip`` to ``skip + count`` of a row group, never more than one batch decoded at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as table:
        for batch in table.iter_batches(_ROWS_PER_BATCH, row_groups=[row_group]):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            part = batch.slice(skip, count)
            skip = 0
            count -= part.num_rows
            yield part
            if count == 0:
                return


def _file_reason(error: BaseException) -> str:
    if isinstance(error, NucleateError):
        return reason_of(error)
    return f"The file is not a readable Parquet file ({' '.join(str(error).split())[:200]})."
