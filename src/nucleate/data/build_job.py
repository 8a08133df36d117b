"""One job of a build: read a task of the source, encode its records, write its shards, report on each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from nucleate.data.cleaning import EncodingSettings, LeftOut, clean, left_out, one_line
from nucleate.data.digest import add_digests, record_digest
from nucleate.data.folder import Folder, open_folder
from nucleate.data.manifest import BUILD_FOLDER, SHARD_FOLDER, Shard
from nucleate.data.property_table import PropertyTable, read_property_table
from nucleate.data.property_values import PROPERTY_PREFIX, kind_of_type
from nucleate.data.record import Record, Rejection, Source, Task
from nucleate.data.schema import crystal_row, frame_row, rows_to_table, tolerance_row
from nucleate.data.shard_files import write_shard
from nucleate.data.split import SplitRule
from nucleate.errors import StoreError

# A worker holds the rows of one part, a few MB, whatever the size of the task.
PART_RECORDS = 4096
PART_FOLDER = f"{BUILD_FOLDER}/parts"


@dataclass(frozen=True)
class JoinedTable:
    """A property table to join by id; each worker process reads it once."""

    path: str
    id_column: str | None
    fingerprint: str

    def read(self) -> PropertyTable:
        """The table."""
        return read_property_table(self.path, self.id_column, self.fingerprint)


@dataclass(frozen=True)
class BuildPlan:
    """What every job of a build needs to know.

    Attributes:
        out: path or URL of the store.
        source: where the records come from.
        encoding: how structures are encoded.
        split: how records are divided.
        table: property table to join, if any.
    """

    out: str
    source: Source
    encoding: EncodingSettings
    split: SplitRule
    table: JoinedTable | None = None


@dataclass(frozen=True)
class Job:
    """A task of the source, and how much of it an interrupted build already has.

    Attributes:
        number: place of the task in the source; shards and journal entries are named by it.
        task: what to read.
        first_part: number of parts that are done.
        skip: records and rejections those parts took from the task.
    """

    number: int
    task: Task
    first_part: int = 0
    skip: int = 0


@dataclass(frozen=True)
class Part:
    """What one part of a job left behind: an entry of the journal, written after its shard.

    Attributes:
        task: place of the task in the source.
        part: place of the part in the task.
        last: whether the task ended with it.
        consumed: records and rejections it took from the task.
        shard: its shard, None where no record survived.
        digest_sum: sum of the digests of its records.
        left_out: inputs that gave no record.
        kinds: kind of each property column of the shard.
        counts: records that have a value, by property.
        units: units of each property.
        splits: records in each split.
        licences: licences of its records.
        references: what to cite for its records.
        site_rows: rows of the shard whose record has it, for each site property.
    """

    task: int
    part: int
    last: bool
    consumed: int
    shard: Shard | None
    digest_sum: int
    left_out: tuple[LeftOut, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    units: Mapping[str, list[str]] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    licences: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    site_rows: Mapping[str, list[int]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the journal entry."""
        return part_file(self.task, self.part)

    def to_json(self) -> str:
        """The entry as it is written."""
        return json.dumps({**asdict(self), "digest_sum": f"{self.digest_sum:032x}"})


def part_file(task: int, part: int) -> str:
    """Name of the journal entry of a part."""
    return f"{PART_FOLDER}/{task:06d}-{part:04d}.json"


def shard_file(task: int, part: int, *, suffix: str = "") -> str:
    """Name of the shard of a part."""
    return f"{SHARD_FOLDER}/{task:06d}-{part:04d}{suffix}.parquet"


def read_part(folder: Folder, name: str) -> Part:
    """The journal entry called ``name`` (without its folder).

    Raises:
        StoreError: it is damaged.
    """
    try:
        content = json.loads(folder.read_bytes(f"{PART_FOLDER}/{name}"))
        return Part(
            **{
                **content,
                "shard": Shard(**content["shard"]) if content["shard"] else None,
                "digest_sum": int(content["digest_sum"], 16),
                "left_out": tuple(LeftOut(**line) for line in content["left_out"]),
                "licences": tuple(content["licences"]),
                "references": tuple(content["references"]),
            }
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"The journal entry {PART_FOLDER}/{name} of {folder.location} is damaged ({error}): "
            "remove the folder and build again"
        ) from error


@dataclass(frozen=True)
class JobResult:
    """How many records a job stored and how many inputs it left out."""

    num_records: int
    num_left_out: int


def run_job(plan: BuildPlan, job: Job, on_input: Callable[[bool], None] | None = None) -> JobResult:
    """What became of the job's inputs; its shards and journal entries are on disk when it returns.

    Each part writes its shard first and its journal entry last, both in one step: a part without an entry is
    done again and writes the same shard under the same name.

    Args:
        plan: what the whole build shares.
        job: what to read.
        on_input: called after each input with whether it became a record.
    """
    folder = open_folder(plan.out)
    writer = _PartWriter(folder, plan, job)
    num_records = num_left_out = 0
    for item in _remaining(plan.source.read(job.task), job.skip):
        stored = writer.add(item)
        num_records, num_left_out = num_records + stored, num_left_out + (not stored)
        if on_input is not None:
            on_input(stored)
    writer.flush(last=True)
    return JobResult(num_records, num_left_out)


def _remaining(items: Iterator[Record | Rejection], skip: int) -> Iterator[Record | Rejection]:
    for _ in range(skip):
        next(items, None)
    return items


class _PartWriter:
    """Collects the rows of one part and writes it when it is full."""

    def __init__(self, folder: Folder, plan: BuildPlan, job: Job) -> None:
        self.folder, self.plan, self.job = folder, plan, job
        self.table = plan.table.read() if plan.table else None
        self.part = job.first_part
        self._begin()

    def _begin(self) -> None:
        self.consumed = 0
        self.rows: list[dict[str, Any]] = []
        self.properties: list[dict[str, Any]] = []
        self.left_out: list[LeftOut] = []
        self.units: dict[str, set[str]] = {}
        self.licences: set[str] = set()
        self.references: set[str] = set()
        self.site_rows: dict[str, list[int]] = {}

    def add(self, item: Record | Rejection) -> bool:
        """Whether the input became a record."""
        if self.consumed >= PART_RECORDS:
            self.flush(last=False)
        self.consumed += 1
        if isinstance(item, Rejection):
            row = "" if item.row is None else str(item.row)
            self.left_out.append(LeftOut(item.file, row, item.id or "", item.category, one_line(item.reason)))
            return False
        cleaned = clean(item, self.plan.encoding)
        if isinstance(cleaned, LeftOut):
            self.left_out.append(cleaned)
            return False
        encoded, groups = cleaned.encoded, cleaned.space_groups
        record_id = stored_id(item.id)
        properties, units = dict(item.properties), dict(item.units)
        joined = self.table.properties(record_id) if self.table else None
        if self.table and joined:
            clashing = sorted(
                name for name in joined if name in properties and joined[name] != properties[name]
            )
            if clashing:
                names = ", ".join(f"{n} ({properties[n]} and {joined[n]})" for n in clashing[:3])
                reason = (
                    f"The source and the property table disagree on {names}: rename the column of the table"
                )
                self.left_out.append(left_out(item, "property conflict", reason))
                return False
            properties.update(joined)
            units.update({name: unit for name, unit in self.table.units.items() if name in joined})
        crystal = encoded.crystal
        values: dict[str, Any] = {
            **crystal_row(crystal),
            "id": record_id,
            "digest": record_digest(record_id, crystal, properties),
            "split": self.plan.split.assign(record_id, crystal, properties),
            "max_displacement": float(encoded.max_displacement),
            "max_strain": float(encoded.max_strain),
            **tolerance_row(groups),
            **{f"provenance.{name}": _text(value) for name, value in asdict(item.provenance).items()},
        }
        if self.plan.encoding.keep_frame:
            values.update(frame_row(encoded))
        for name in encoded.site_properties:
            self.site_rows.setdefault(str(name), []).append(len(self.rows))
        self.rows.append(values)
        self.properties.append(properties)
        for name, unit in units.items():
            self.units.setdefault(name, set()).add(unit)
        if item.provenance.licence:
            self.licences.add(item.provenance.licence)
        if item.provenance.reference:
            self.references.add(item.provenance.reference)
        return True

    def flush(self, *, last: bool) -> None:
        """Write the part: its shard, then its entry in the journal."""
        shard, table = None, None
        if self.rows:
            table = rows_to_table(self.rows, self.properties, frame=self.plan.encoding.keep_frame)
            shard = write_shard(self.folder, shard_file(self.job.number, self.part), table)
        part = Part(
            task=self.job.number,
            part=self.part,
            last=last,
            consumed=self.consumed,
            shard=shard,
            digest_sum=add_digests(0, (row["digest"] for row in self.rows)),
            left_out=tuple(self.left_out),
            kinds=property_kinds(table) if table is not None else {},
            counts=property_counts(table) if table is not None else {},
            units={name: sorted(units) for name, units in self.units.items()},
            splits=dict(Counter(row["split"] for row in self.rows)),
            licences=tuple(sorted(self.licences)),
            references=tuple(sorted(self.references)),
            site_rows=self.site_rows,
        )
        self.folder.write_bytes(part.file, part.to_json().encode())
        self.part += 1
        self._begin()


def stored_id(record_id: str) -> str:
    """The id as text that UTF-8 can hold: file names of other encodings keep their bytes as ``\\udcXX``."""
    return record_id.encode("utf-8", "backslashreplace").decode()


def _text(value: Any) -> str | None:
    return None if value is None else stored_id(str(value))


def property_kinds(table: pa.Table) -> dict[str, str]:
    """Kind of each property column."""
    fields = (field for field in table.schema if field.name.startswith(PROPERTY_PREFIX))
    return {field.name.removeprefix(PROPERTY_PREFIX): kind_of_type(field.type) for field in fields}


def property_counts(table: pa.Table) -> dict[str, int]:
    """Records that have a value, by property."""
    names = [name for name in table.column_names if name.startswith(PROPERTY_PREFIX)]
    return {n.removeprefix(PROPERTY_PREFIX): table.num_rows - table.column(n).null_count for n in names}
