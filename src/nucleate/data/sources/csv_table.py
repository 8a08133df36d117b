"""CSV tables with a ``cif`` column, plain or compressed: the layout of CDVAE and DiffCSP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath
from typing import Any

from nucleate.crystal.convert import unit_cell_from_cif
from nucleate.data.categories import category_of
from nucleate.data.record import Record, Rejection, Task
from nucleate.data.sources.byte_stream import ByteStream
from nucleate.data.sources.csv_rows import (
    DAMAGED_STREAM,
    TableRow,
    iter_rows,
    open_table,
    read_header,
)
from nucleate.data.sources.dataset import Dataset, DatasetSource, reason_of
from nucleate.data.sources.foreign_values import column_kind, find_id_column, parse_cell
from nucleate.errors import NucleateError, ParseError

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.bz2", ".csv.xz")
CIF_COLUMNS = ("cif", "cif.conv", "structure_cif", "cif_structure")
ROWS_PER_TASK = 1000
#: A compressed table is decompressed from its start for each task, so it is cut into few of them.
MAX_COMPRESSED_TASKS = 32
SAMPLED_ROWS = 1000
_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class CsvTable(DatasetSource):
    """A CSV table whose rows are crystals; see ``docs/sources.md`` for the columns.

    Attributes:
        path: the file.
        dataset: name, units, terms and citation.
        id_column: column that names the records, found by itself when None.
        cif_column: column with the CIF text, found by itself when None.
        max_atoms: largest number of atoms per cell that is read.
    """

    path: str
    dataset: Dataset
    id_column: str | None = None
    cif_column: str | None = None
    max_atoms: int = 1000

    def tasks(self) -> Iterator[Task]:
        """Blocks of rows; the whole table is streamed through once to find where they begin."""
        try:
            with closing(open_table(self.path)) as stream:
                layout = _Layout.of(
                    stream, self.path, self.id_column, self.cif_column, self.dataset.source_column
                )
        except (NucleateError, *DAMAGED_STREAM) as error:
            yield Task(key="header", file=self.path, count=1, problem=reason_of(error))
            return
        block = ROWS_PER_TASK
        if not self.path.lower().endswith((".csv", ".tsv")):
            total = sum(task.count or 0 for task in self._blocks(layout, ROWS_PER_TASK))
            block = max(ROWS_PER_TASK, -(-total // MAX_COMPRESSED_TASKS))
        yield from self._blocks(layout, block)

    def _blocks(self, layout: _Layout, block: int) -> Iterator[Task]:
        row, begin, problem = 0, layout.first_row_at, None

        def task(first: int, offset: int) -> Task:
            details = {"offset": offset, "layout": layout}
            return Task(key=f"rows-{first}", file=self.path, first=first, count=row - first, details=details)

        first = 0
        try:
            with closing(open_table(self.path)) as stream:
                for table_row in layout.rows(stream, layout.first_row_at):
                    if row - first == block:
                        yield task(first, begin)
                        first, begin = row, table_row.offset
                    row += 1
        except (NucleateError, *DAMAGED_STREAM) as error:
            problem = reason_of(error)
        if row > first:
            yield task(first, begin)
        if problem is not None:
            yield Task(key=f"damage-{row}", file=self.path, first=row, count=1, problem=problem)
        elif row == 0:
            yield Task(key="empty", file=self.path, count=1, problem="The table has a header but no rows.")

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one block of rows."""
        if task.problem is not None:
            yield Rejection(self.path, task.first if task.first else None, None, task.problem)
            return
        layout: _Layout = task.details["layout"]
        row = task.first
        try:
            with closing(open_table(self.path)) as stream:
                # islice asks for no row beyond its last: what follows is another task's to name.
                rows = islice(layout.rows(stream, task.details["offset"]), task.count)
                for row, table_row in enumerate(rows, task.first):
                    yield self._record(layout, row, table_row)
        except (NucleateError, *DAMAGED_STREAM) as error:
            # The index had read these rows, so the file has changed since; say so instead of stopping the
            # build.
            yield Rejection(self.path, row, None, f"The table changed while it was read: {reason_of(error)}")

    def _record(self, layout: _Layout, row: int, table_row: TableRow) -> Record | Rejection:
        if table_row.problem is not None:
            return Rejection(self.path, row, None, table_row.problem)
        cells = {name: _decode(cell) for name, cell in zip(layout.columns, table_row.cells)}
        given_id = cells[layout.id_column].strip() if layout.id_column else ""
        record_id = given_id or f"{layout.stem}-{row}"
        try:
            properties: dict[str, Any] = {}
            for name, kind in layout.kinds.items():
                try:
                    properties[name] = parse_cell(cells[name], kind)
                except ValueError as error:
                    raise ParseError(f"Column {name!r} {error}.") from error
            if layout.stem in {"train", "val", "test"}:
                properties.setdefault("split", layout.stem)
            cif = cells[layout.cif_column]
            if not cif.strip():
                raise ParseError(f"The row has no structure: column {layout.cif_column!r} is empty.")
            structure = unit_cell_from_cif(cif, name=record_id, max_atoms=self.max_atoms)
        except Exception as error:
            # foreign text: whatever a parser trips over is this row's reason, not the end
            return Rejection(self.path, row, given_id or None, reason_of(error), category_of(error))
        return self.dataset.record(
            record_id, structure, properties=properties, file=self.path, row=row, database_id=given_id or None
        )


@dataclass(frozen=True)
class _Layout:
    """Where the columns of a table are and what they hold; travels inside each task."""

    stem: str
    delimiter: str
    columns: tuple[str, ...]
    cif_column: str
    id_column: str | None
    kinds: Mapping[str, str]
    first_row_at: int

    @classmethod
    def of(
        cls,
        stream: ByteStream,
        path: str,
        id_column: str | None,
        cif_column: str | None,
        source_column: str | None,
    ) -> _Layout:
        start = stream.read(4)
        if not start:
            raise ParseError("The file is empty.")
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ParseError("The table is UTF-16; save it as UTF-8 (its rows cannot be found in UTF-16).")
        if start.startswith((b"PK\x03\x04", b"PAR1", b"\x1f\x8b")):
            raise ParseError(
                "The file is an archive or a Parquet file with the name of a CSV table; rename it."
            )
        at = 3 if start.startswith(b"\xef\xbb\xbf") else 0
        stream.seek(at)
        line = stream.readline(_HEADER_BYTES)
        delimiter = max(",;\t", key=lambda mark: line.count(mark.encode()))
        columns, first_row_at = read_header(stream, at, delimiter)
        cif = cif_column or next((name for name in columns if name.strip().lower() in CIF_COLUMNS), None)
        for wanted in (cif_column, id_column, source_column):
            if wanted is not None and wanted not in columns:
                raise ParseError(f"The table has no column {wanted!r}; it has {', '.join(columns)[:300]}.")
        if cif is None:
            raise ParseError(f"The table has no column 'cif'; its columns are {', '.join(columns)[:300]}.")
        stem = PurePath(path).name.split(".")[0]
        key = id_column or find_id_column(columns)
        layout = cls(stem, delimiter, columns, cif, key, {}, first_row_at)
        return layout._with_kinds(stream)

    def _with_kinds(self, stream: ByteStream) -> _Layout:
        """The same with what each column holds, from a sample; damage there shows up when rows are read."""
        names = [
            name for name in self.columns if name not in {self.cif_column, self.id_column} and name.strip()
        ]
        sample: dict[str, list[str]] = {name: [] for name in names}
        try:
            for count, row in enumerate(self.rows(stream, self.first_row_at)):
                if count >= SAMPLED_ROWS:
                    break
                for name, cell in zip(self.columns, row.cells):
                    if name in sample:
                        sample[name].append(cell)
        except (NucleateError, *DAMAGED_STREAM):
            pass
        kinds = {name: column_kind(cells) for name, cells in sample.items()}
        return _Layout(**{**vars(self), "kinds": kinds})

    def rows(self, stream: ByteStream, offset: int) -> Iterator[TableRow]:
        cif_at = self.columns.index(self.cif_column)

        def is_row(cells: tuple[str, ...]) -> bool:
            return "_cell" in cells[cif_at] or "\n" in cells[cif_at] or not cells[cif_at].strip()

        return iter_rows(stream, offset, delimiter=self.delimiter, num_cells=len(self.columns), is_row=is_row)


def _decode(cell: str) -> str:
    """The cell's true text: its bytes were kept as Latin-1 while rows were searched."""
    if cell.isascii():
        return cell
    try:
        return cell.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return cell  # Latin-1 indeed, as the rows of tables pasted together can be
