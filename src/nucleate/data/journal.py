"""The journal of an unfinished build: its entries in order, and the shards they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.data.build_job import PART_FOLDER, Job, Part, read_part
from nucleate.data.folder import Folder
from nucleate.data.manifest import Shard
from nucleate.data.record import Task
from nucleate.errors import StoreError


@dataclass(frozen=True)
class StoredRows:
    """A part that has a shard, and the row of the whole build its shard starts at."""

    part: Part
    shard: Shard
    start: int

    @property
    def end(self) -> int:
        """First row after the shard."""
        return self.start + self.shard.num_records


@dataclass(frozen=True)
class Journal:
    """Parts of a build that are on disk; entries are read when needed, never all at once.

    Attributes:
        folder: where the build is.
        names: names of the entries, in the order of tasks and parts.
    """

    folder: Folder
    names: tuple[str, ...]

    @classmethod
    def open(cls, folder: Folder) -> Journal:
        """The journal as it stands."""
        return cls(folder, tuple(folder.names(PART_FOLDER)))

    def parts(self) -> Iterator[Part]:
        """All parts, in the order of the source."""
        for name in self.names:
            yield read_part(self.folder, name)

    def stored_rows(self) -> Iterator[StoredRows]:
        """Parts that have a shard, in the order of the source."""
        start = 0
        for part in self.parts():
            if part.shard is not None:
                yield StoredRows(part, part.shard, start)
                start += part.shard.num_records

    def read(self, shard: Shard, columns: list[str] | None = None) -> pa.Table:
        """A shard, or those of the named columns that it has.

        Raises:
            StoreError: it is gone or damaged.
        """
        try:
            with pq.ParquetFile(self.folder.open(shard.file)) as file:
                present = set(file.schema_arrow.names)
                return file.read(columns and [name for name in columns if name in present], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{shard.file} of the unfinished store {self.folder.location} is gone or damaged ({error}): "
                "remove the folder and build again"
            ) from error

    def ids(self) -> Iterator[list[str]]:
        """Ids of the records, shard by shard."""
        for rows in self.stored_rows():
            yield self.read(rows.shard, ["id"]).column("id").to_pylist()

    def remaining(self, tasks: list[Task]) -> tuple[list[Job], int, int]:
        """Jobs still to do, and how many records and left-out inputs are on disk already."""
        first_part: dict[int, int] = {}
        consumed: dict[int, int] = {}
        finished: set[int] = set()
        num_records = num_left_out = 0
        for part in self.parts():
            # A gap cannot come from an interruption: parts of a task are written one after the other.
            if part.task >= len(tasks) or part.part != first_part.get(part.task, 0):
                raise StoreError(
                    f"The journal of the unfinished store {self.folder.location} does not fit its source "
                    f"(entry {part.file}): remove the folder and build again"
                )
            first_part[part.task] = part.part + 1
            consumed[part.task] = consumed.get(part.task, 0) + part.consumed
            num_records += part.shard.num_records if part.shard else 0
            num_left_out += len(part.left_out)
            if part.last:
                finished.add(part.task)
        jobs = [
            Job(number, task, first_part.get(number, 0), consumed.get(number, 0))
            for number, task in enumerate(tasks)
            if number not in finished
        ]
        return jobs, num_records, num_left_out
