"""A store of encoded crystals on disk or behind a URL: random access and streaming, never all in memory."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import pyarrow as pa

from nucleate.crystal import Crystal, EncodedStructure
from nucleate.data.arrays import CrystalArrays, arrays_from_table
from nucleate.data.folder import open_folder
from nucleate.data.id_index import IdIndex, build_index, read_index, unknown_id, write_index
from nucleate.data.manifest import Manifest, read_manifest
from nucleate.data.property_values import PROPERTY_PREFIX, as_numbers
from nucleate.data.record import Provenance
from nucleate.data.schema import CRYSTAL_COLUMNS, FRAME_COLUMNS, SITE_COLUMN, TOLERANCE_PREFIX
from nucleate.data.shard_files import ShardFiles
from nucleate.data.site_values import site_properties_from_text
from nucleate.errors import StoreError
from nucleate.shapes import Int

CACHED_ROW_GROUPS = 8


@dataclass(frozen=True, eq=False)
class StoredRecord:
    """One row of a store.

    Attributes:
        row: its index in the store.
        id: name of the record.
        crystal: the encoded crystal.
        split: name of its split.
        properties: values it has; tensors are nested lists. Units stand in the manifest.
        provenance: where it came from.
        max_displacement: largest distance an atom moved onto its ideal place, Å.
        max_strain: largest strain of the lattice onto its ideal shape.
        space_group_numbers: group found at each tolerance (Å) that was tried.
    """

    row: int
    id: str
    crystal: Crystal
    split: str
    properties: Mapping[str, Any]
    provenance: Provenance
    max_displacement: float
    max_strain: float
    space_group_numbers: Mapping[float, int]


class Store:
    """Records of a store, or a selection of them (``store.split("train")``); indices count within it.

    A shard is opened when a row of it is asked for, ``CACHED_ROW_GROUPS`` row groups (512 records each) stay
    decoded. A store can be pickled and survives a fork, so data-loader workers can share one.
    """

    def __init__(self, files: ShardFiles, rows: Int[np.ndarray, "rows"] | None = None) -> None:
        self._files = files
        self._rows = rows
        self._splits: np.ndarray | None = None
        self._index: IdIndex | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, cached_row_groups: int = CACHED_ROW_GROUPS) -> Store:
        """The store at a path or fsspec URL; reads the manifest only.

        Raises:
            StoreError: there is no store, its build did not finish, or another schema version wrote it.
        """
        folder = open_folder(path)
        return cls(ShardFiles(folder, read_manifest(folder), cached_row_groups=cached_row_groups))

    @property
    def manifest(self) -> Manifest:
        """What is in the whole store, where it came from and how it was made."""
        return self._files.manifest

    @property
    def location(self) -> str:
        """Path or URL of the store."""
        return self._files.folder.location

    @property
    def content_hash(self) -> str:
        """Hash over all records of the store and the rule of its split."""
        return self.manifest.content_hash

    @property
    def rows(self) -> Int[np.ndarray, "rows"]:
        """Index in the store of each record of this selection, ascending."""
        return np.arange(self.manifest.num_records) if self._rows is None else self._rows

    def __len__(self) -> int:
        """Number of records in this selection."""
        return self.manifest.num_records if self._rows is None else len(self._rows)

    def __getitem__(self, index: SupportsIndex) -> StoredRecord:
        """The record at an index of this selection, negative from the end.

        Raises:
            IndexError: the index is out of range.
            StoreError: the shard is missing or damaged.
        """
        return self._record(self._row(index))

    def __iter__(self) -> Iterator[StoredRecord]:
        """Records of this selection one after the other; each shard is read once."""
        return self.iter_records()

    def _row(self, index: SupportsIndex) -> int:
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is out of range for {len(self):,} records of {self.location}")
        i += len(self) if i < 0 else 0
        return i if self._rows is None else int(self._rows[i])

    def _record(self, row: int) -> StoredRecord:
        shard, group, inside = self._files.find(row)
        columns = self._record_columns()
        return record_from_row(self._files.row_group(shard, group, columns), inside, row)

    def _record_columns(self) -> tuple[str, ...]:
        return tuple(c for c in self._files.columns(None) if c not in FRAME_COLUMNS and c != "digest")

    def crystal(self, index: SupportsIndex) -> Crystal:
        """The crystal at an index of this selection: touches only the columns a crystal is built from."""
        shard, group, inside = self._files.find(self._row(index))
        table = self._files.row_group(shard, group, CRYSTAL_COLUMNS)
        return arrays_from_table(table.slice(inside, 1), np.array([0]), {}).crystal(0)

    def get(self, record_id: str) -> StoredRecord:
        """The record with this id, wherever in the store it is.

        The index of ids is a file beside the shards; where it is missing it is built by one pass over the
        ids.

        Raises:
            StoreError: no record has this id.
        """
        for row in self.index().candidates(record_id):
            record = self._record(int(row))
            if record.id == record_id:
                return record
        raise unknown_id(record_id, self.location, self.manifest.num_records)

    def index(self) -> IdIndex:
        """Hashes of all ids of the store with their rows; a missing sidecar is built and kept if possible."""
        if self._index is None:
            manifest, folder = self.manifest, self._files.folder
            self._index = read_index(folder, manifest.content_hash, manifest.num_records)
            if self._index is None:
                whole = self.whole()
                self._index = build_index(b.column(0).to_pylist() for b in whole.iter_batches(["id"]))
                with suppress(OSError, StoreError):  # on read-only media the index stays in memory
                    write_index(folder, manifest.content_hash, self._index)
        return self._index

    def encoded(self, index: SupportsIndex) -> EncodedStructure:
        """The crystal with its way back to the cell, frame and site properties of the source.

        A store of schema version 1 has the way back, but no site properties.

        Raises:
            StoreError: the store was built without ``keep_frame``.
        """
        frame = [name for name in FRAME_COLUMNS if name != SITE_COLUMN or self.manifest.schema_version > 1]
        columns = self._files.columns([*CRYSTAL_COLUMNS, "max_displacement", "max_strain", *frame])
        shard, group, inside = self._files.find(self._row(index))
        table = self._files.row_group(shard, group, columns).slice(inside, 1)
        return encoded_from_row(table)

    def split(self, name: str) -> Store:
        """The records of one split.

        Raises:
            StoreError: the store has no split of this name.
        """
        counts = self.manifest.split_counts
        if name not in counts:
            raise StoreError(f"{self.location} has no split {name!r}; it has {', '.join(counts) or 'none'}")
        if self._splits is None:
            whole = self.whole()
            parts = [np.asarray(b.column(0).to_pylist(), dtype=str) for b in whole.iter_batches(["split"])]
            self._splits = np.concatenate(parts) if parts else np.empty(0, dtype=str)
        rows = self.rows
        return self._selected(rows[self._splits[rows] == name])

    def whole(self) -> Store:
        """All records of the store this is a selection of."""
        return self if self._rows is None else Store(self._files)

    def select(self, indices: Int[np.ndarray, "selected"]) -> Store:
        """The records at these indices of this selection, in ascending order of row."""
        return self._selected(np.unique(self.rows[indices]))

    def _selected(self, rows: Int[np.ndarray, "rows"]) -> Store:
        selection = Store(self._files, rows)
        selection._splits, selection._index = self._splits, self._index
        return selection

    def _pieces(self, columns: Sequence[str]) -> Iterator[tuple[pa.Table, Int[np.ndarray, "rows"]]]:
        """Tables of one row group each, in order, cut to this selection, with the rows they hold."""
        for number, shard in enumerate(self.manifest.shards):
            start = int(self._files.starts[number])
            for group, first in enumerate(range(0, shard.num_records, shard.row_group_size)):
                low = start + first
                high = min(low + shard.row_group_size, start + shard.num_records)
                if self._rows is None:
                    yield self._files.read(number, columns, group), np.arange(low, high)
                    continue
                mine = self._rows[np.searchsorted(self._rows, low) : np.searchsorted(self._rows, high)]
                if len(mine):
                    yield self._files.read(number, columns, group).take(mine - low), mine

    def iter_batches(
        self, columns: Sequence[str] | None = None, batch_size: int = 1024, *, split: str | None = None
    ) -> Iterator[pa.Table]:
        """Tables of ``batch_size`` records (the last may be smaller), in order, each row group read once.

        Args:
            columns: names of columns, all by default.
            batch_size: records per table.
            split: only this split.
        """
        if batch_size < 1:
            raise StoreError(f"batch_size must be at least 1, got {batch_size}")
        if split is not None:
            yield from self.split(split).iter_batches(columns, batch_size)
            return
        names = self._files.columns(columns)
        waiting: list[pa.Table] = []
        count = 0
        for table, _ in self._pieces(names):
            waiting.append(table)
            count += table.num_rows
            if count >= batch_size:
                joined, first = pa.concat_tables(waiting), 0
                while count >= batch_size:
                    yield joined.slice(first, batch_size).combine_chunks()
                    first, count = first + batch_size, count - batch_size
                waiting = [joined.slice(first)]
        if count:
            yield pa.concat_tables(waiting).combine_chunks()

    def iter_records(self, *, split: str | None = None) -> Iterator[StoredRecord]:
        """Records one after the other, each row group read once."""
        chosen = self if split is None else self.split(split)
        for table, rows in chosen._pieces(self._record_columns()):
            for inside, row in enumerate(rows):
                yield record_from_row(table, inside, int(row))

    def iter_crystals(self, *, split: str | None = None) -> Iterator[Crystal]:
        """Crystals one after the other; reads only the columns a crystal is built from."""
        chosen = self if split is None else self.split(split)
        for table, rows in chosen._pieces(CRYSTAL_COLUMNS):
            arrays = arrays_from_table(table, rows, {})
            yield from map(arrays.crystal, range(len(arrays)))

    def iter_arrays(
        self, properties: Sequence[str] = (), *, split: str | None = None
    ) -> Iterator[CrystalArrays]:
        """Ragged arrays, one set per shard that has records of the selection.

        Args:
            properties: names (without ``property.``) of numeric properties to come along, NaN where missing.
            split: only this split.

        Raises:
            StoreError: the store has no such property, or it is not numeric.
        """
        chosen = self if split is None else self.split(split)
        for name in properties:
            column = self.manifest.properties.get(name)
            if column is None or column.kind not in ("flag", "integer", "number"):
                numeric = [
                    n for n, c in self.manifest.properties.items() if c.kind in ("flag", "integer", "number")
                ]
                raise StoreError(
                    f"{self.location} has no numeric property {name!r}; it has {', '.join(numeric) or 'none'}"
                )
        columns = (*CRYSTAL_COLUMNS, *(PROPERTY_PREFIX + name for name in properties))
        for number in range(len(self.manifest.shards)):
            low, high = (int(end) for end in self._files.starts[number : number + 2])
            rows = np.arange(low, high)
            if chosen._rows is not None:
                rows = chosen._rows[np.searchsorted(chosen._rows, low) : np.searchsorted(chosen._rows, high)]
            if len(rows):
                table = self._files.read(number, columns)
                if len(rows) < high - low:
                    table = table.take(rows - low)
                values = {name: as_numbers(table.column(PROPERTY_PREFIX + name)) for name in properties}
                yield arrays_from_table(table, rows, values)

    def damaged_shards(self) -> dict[str, str]:
        """Problem of each shard whose content is not what the manifest says; reads the whole store once."""
        problems = {shard.file: self._files.problem(shard) for shard in self.manifest.shards}
        return {file: problem for file, problem in problems.items() if problem is not None}


def record_from_row(table: pa.Table, inside: int, row: int) -> StoredRecord:
    """The record at one row of a table that has all columns but those of the way back."""
    cells = {
        name: table.column(name)[inside].as_py() for name in table.column_names if name not in CRYSTAL_COLUMNS
    }
    provenance = {n.removeprefix("provenance."): v for n, v in cells.items() if n.startswith("provenance.")}
    tolerances = {
        n.removeprefix(TOLERANCE_PREFIX): v for n, v in cells.items() if n.startswith(TOLERANCE_PREFIX)
    }
    properties = {
        n.removeprefix(PROPERTY_PREFIX): v for n, v in cells.items() if n.startswith(PROPERTY_PREFIX)
    }
    return StoredRecord(
        row=row,
        id=cells["id"],
        crystal=arrays_from_table(table.slice(inside, 1), np.array([row]), {}).crystal(0),
        split=cells["split"],
        properties={name: value for name, value in properties.items() if value is not None},
        provenance=Provenance(**provenance),
        max_displacement=cells["max_displacement"],
        max_strain=cells["max_strain"],
        space_group_numbers={float(t): number for t, number in tolerances.items() if number is not None},
    )


def encoded_from_row(table: pa.Table) -> EncodedStructure:
    """The encoded structure of a table of one row that has the columns of the way back."""
    cells = {
        n.removeprefix("frame."): np.asarray(table.column(n)[0].as_py())
        for n in FRAME_COLUMNS
        if n != SITE_COLUMN
    }
    sites = table.column(SITE_COLUMN)[0].as_py() if SITE_COLUMN in table.column_names else None
    return EncodedStructure(
        crystal=arrays_from_table(table, np.array([0]), {}).crystal(0),
        transformation=cells["transformation"].reshape(3, 3),
        origin_shift=cells["origin_shift"],
        rotation=cells["rotation"].reshape(3, 3),
        atom_to_orbit=cells["atom_to_orbit"],
        atom_to_operation=cells["atom_to_operation"],
        lattice_shifts=cells["lattice_shifts"].reshape(-1, 3),
        max_displacement=table.column("max_displacement")[0].as_py(),
        max_strain=table.column("max_strain")[0].as_py(),
        site_properties=site_properties_from_text(sites),
    )
