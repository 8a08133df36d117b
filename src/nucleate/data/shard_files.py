"""Parquet files of a store: written whole, read by row group, with the way out when one is damaged."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.data.folder import Folder
from nucleate.data.manifest import Manifest, Shard
from nucleate.data.property_values import PROPERTY_PREFIX, arrow_type, conform
from nucleate.data.schema import FRAME_COLUMNS, ROW_GROUP_SIZE, fixed_schema
from nucleate.errors import StoreError
from nucleate.shapes import Int

OPEN_FILES = 16


def write_shard(folder: Folder, name: str, table: pa.Table) -> Shard:
    """Description of the Parquet file (zstd) written for ``table``; the file appears whole or not at all."""
    with folder.writing(name) as path:
        # Floating-point columns hardly repeat: splitting their bytes helps zstd more than a dictionary does.
        floats = [_leaf(field) for field in table.schema if pa.types.is_floating(_value_type(field.type))]
        texts = [_leaf(f) for f in table.schema if _leaf(f) not in floats and f.name not in ("id", "digest")]
        pq.write_table(
            table,
            path,
            row_group_size=ROW_GROUP_SIZE,
            compression="zstd",
            use_dictionary=texts,
            use_byte_stream_split=floats,
        )
        content = path.read_bytes()
    return Shard(name, table.num_rows, len(content), ROW_GROUP_SIZE, checksum(content))


def _value_type(data_type: pa.DataType) -> pa.DataType:
    while pa.types.is_list(data_type):
        data_type = data_type.value_type
    return data_type


def _leaf(field: pa.Field) -> str:
    """Path of the column's values as Parquet names it."""
    path, data_type = field.name, field.type
    while pa.types.is_list(data_type):
        path, data_type = f"{path}.list.element", data_type.value_type
    return path


def checksum(content: bytes) -> str:
    """BLAKE2b-128 of a file's content, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class ShardFiles:
    """The shards of one store as tables; keeps a few files open and a few row groups decoded, never more."""

    def __init__(self, folder: Folder, manifest: Manifest, *, cached_row_groups: int) -> None:
        self.folder = folder
        self.manifest = manifest
        self.starts: Int[np.ndarray, "ends"] = np.cumsum([0, *(s.num_records for s in manifest.shards)])
        self.cached_row_groups = cached_row_groups
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._row_groups: OrderedDict[tuple[int, int, tuple[str, ...]], Any] = OrderedDict()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Open files and decoded row groups stay behind when a store travels to another process."""
        return {**self.__dict__, "_files": OrderedDict(), "_row_groups": OrderedDict(), "_owner": -1}

    def find(self, row: int) -> tuple[int, int, int]:
        """Shard, row group and row inside the group of a row of the store."""
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        group, inside = divmod(row - int(self.starts[shard]), self.manifest.shards[shard].row_group_size)
        return shard, group, inside

    def file(self, shard: int) -> pq.ParquetFile:
        """The opened Parquet file of a shard.

        Raises:
            StoreError: it is missing, damaged or not the one the manifest lists.
        """
        if self._owner != os.getpid():  # after a fork: handles of the parent are not ours
            self._files.clear()
            self._owner = os.getpid()
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        entry = self.manifest.shards[shard]
        size = self.folder.size(entry.file)
        if size < 0:
            raise self.error(shard, "is missing")
        if size != entry.num_bytes:
            raise self.error(shard, f"has {size:,} bytes instead of {entry.num_bytes:,}")
        try:
            opened = pq.ParquetFile(self.folder.open(entry.file), pre_buffer=True)
        except (pa.ArrowException, OSError) as error:
            raise self.error(shard, f"cannot be read ({_first_line(error)})") from error
        if opened.metadata.num_rows != entry.num_records:
            raise self.error(
                shard, f"has {opened.metadata.num_rows:,} records instead of {entry.num_records:,}"
            )
        self._files[shard] = opened
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return opened

    def error(self, shard: int, problem: str) -> StoreError:
        """What to raise about a shard, with the way out."""
        entry = self.manifest.shards[shard]
        return StoreError(
            f"Shard {entry.file} of {self.folder.location} {problem}: it holds {entry.num_records:,} of "
            f"{self.manifest.num_records:,} records; copy the store again, or rebuild it with "
            "`nucleate data build`"
        )

    def problem(self, shard: Shard) -> str | None:
        """What is wrong with the file of a shard, by its size and checksum; None if nothing is."""
        size = self.folder.size(shard.file)
        if size < 0:
            return "missing"
        if size != shard.num_bytes:
            return f"{size:,} bytes instead of {shard.num_bytes:,}"
        found = checksum(self.folder.read_bytes(shard.file))
        return None if found == shard.checksum else f"checksum {found} instead of {shard.checksum}"

    def schema(self, *, frame: bool) -> pa.Schema:
        """Schema of the whole store."""
        properties = {PROPERTY_PREFIX + n: arrow_type(c.kind) for n, c in self.manifest.properties.items()}
        fixed = fixed_schema(frame=frame, version=self.manifest.schema_version)
        return pa.schema([*fixed, *(pa.field(name, data_type) for name, data_type in properties.items())])

    def columns(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """``names``, or all columns of the store.

        Raises:
            StoreError: one of the names is not a column of the store.
        """
        has_frame = bool(self.manifest.encoding.get("keep_frame"))
        known = self.schema(frame=has_frame).names
        for name in names or ():
            if name not in known:
                if name in FRAME_COLUMNS:
                    raise StoreError(
                        f"The store {self.folder.location} was built without the way back to the original "
                        "frames: rebuild it with keep_frame=True (--keep-frame)"
                    )
                raise StoreError(
                    f"The store {self.folder.location} has no column {name!r}; it has {', '.join(known)}"
                )
        return tuple(known if names is None else names)

    def read(self, shard: int, columns: Sequence[str], row_group: int | None = None) -> pa.Table:
        """The named columns of a row group, or of the whole shard; a property that it lacks is null there."""
        file = self.file(shard)
        present = set(file.schema_arrow.names)
        wanted = [name for name in columns if name in present]
        try:
            if row_group is None:
                table = file.read(columns=wanted, use_threads=False)
            else:
                table = file.read_row_group(row_group, columns=wanted, use_threads=False)
        except (pa.ArrowException, OSError, IndexError, ValueError) as error:
            raise self.error(shard, f"cannot be read ({_first_line(error)})") from error
        return self._conformed(table, columns, self._num_rows(file, row_group))

    @staticmethod
    def _num_rows(file: pq.ParquetFile, row_group: int | None) -> int:
        metadata = file.metadata
        return metadata.num_rows if row_group is None else metadata.row_group(row_group).num_rows

    def _conformed(self, table: pa.Table, columns: Sequence[str], num_rows: int) -> pa.Table:
        arrays = []
        for name in columns:
            column = self.manifest.properties.get(name.removeprefix(PROPERTY_PREFIX))
            if not name.startswith(PROPERTY_PREFIX) or column is None:
                arrays.append(table.column(name))
            elif name in table.column_names:
                arrays.append(conform(table.column(name), column.kind))
            else:
                arrays.append(pa.nulls(num_rows, arrow_type(column.kind)))
        return pa.table(arrays, names=list(columns))

    def row_group(self, shard: int, group: int, columns: tuple[str, ...]) -> pa.Table:
        """The named columns of a row group, from the cache where it is there."""
        key = (shard, group, columns)
        if key in self._row_groups:
            self._row_groups.move_to_end(key)
            return self._row_groups[key]
        table = self.read(shard, columns, group)
        self._row_groups[key] = table
        while len(self._row_groups) > self.cached_row_groups:
            self._row_groups.popitem(last=False)
        return table

    @property
    def num_cached(self) -> int:
        """Row groups decoded in memory at the moment."""
        return len(self._row_groups)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
