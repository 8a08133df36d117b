"""From the finished jobs of a build to a store: duplicates out, dates into splits, index, lists, manifest."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

import nucleate
from nucleate.data.build_job import BuildPlan, Part, property_counts, shard_file
from nucleate.data.categories import DUPLICATE_ID
from nucleate.data.cleaning import LeftOut
from nucleate.data.digest import content_hash, subtract_digests
from nucleate.data.folder import Folder
from nucleate.data.id_index import IdIndex, build_index, id_hashes, write_index
from nucleate.data.journal import Journal, StoredRows
from nucleate.data.manifest import (
    BUILD_FOLDER,
    MANIFEST_FILE,
    REJECTED_FILE,
    SHARD_FOLDER,
    UNMATCHED_FILE,
    Manifest,
    PropertyColumn,
    Shard,
)
from nucleate.data.property_table import PropertyTable
from nucleate.data.property_values import PROPERTY_PREFIX, widen
from nucleate.data.shard_files import write_shard
from nucleate.data.split import as_day, split_by_time, time_limits
from nucleate.shapes import Int

NAMED = 10  # ids that the manifest and the report name before they refer to the file that has them all

_PLACE = ["id", "provenance.file", "provenance.row"]


@dataclass
class _Totals:
    """What adds up over the parts of a build."""

    shards: list[Shard] = field(default_factory=list)
    digest_sum: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    units: dict[str, set[str]] = field(default_factory=dict)
    splits: Counter[str] = field(default_factory=Counter)
    licences: set[str] = field(default_factory=set)
    references: set[str] = field(default_factory=set)
    sites: Counter[str] = field(default_factory=Counter)
    num_with_sites: int = 0

    def add(self, part: Part, left_out: Iterable[LeftOut]) -> None:
        self.digest_sum += part.digest_sum
        self.reasons.update(line.category for line in left_out)
        for name, kind in part.kinds.items():
            self.kinds.setdefault(name, set()).add(kind)
        for name, units in part.units.items():
            self.units.setdefault(name, set()).update(units)
        self.licences.update(part.licences)
        self.references.update(part.references)

    def add_shard(self, shard: Shard | None, counts: Mapping[str, int], splits: Mapping[str, int]) -> None:
        if shard is not None:
            self.shards.append(shard)
        self.counts.update(counts)
        self.splits.update(splits)

    def add_sites(self, site_rows: Mapping[str, list[int]], dropped: Iterable[int] = ()) -> None:
        """Count the records that have each site property, without the rows that were dropped."""
        rows = {name: set(rows).difference(dropped) for name, rows in site_rows.items()}
        self.sites.update({name: len(mine) for name, mine in rows.items() if mine})
        # Every CIF has labels: a name of a site alone is nothing that a user would miss.
        self.num_with_sites += len(set().union(*(mine for name, mine in rows.items() if name != "label")))

    def properties(self) -> dict[str, PropertyColumn]:
        """Property columns of the store; one without a value is left out."""
        columns = {}
        for name in sorted(self.kinds):
            if self.counts[name]:
                units = tuple(sorted(self.units.get(name, ())))
                unit, seen = (units[0], ()) if len(units) == 1 else (None, units)
                columns[name] = PropertyColumn(
                    widen(self.kinds[name]) or "text", unit, self.counts[name], seen
                )
        return columns


@dataclass(frozen=True)
class _Duplicates:
    """Rows whose id an earlier row has, ascending, and where the record that is kept came from."""

    rows: Int[np.ndarray, "duplicates"]
    first_places: tuple[str, ...]

    def inside(self, stored: StoredRows) -> tuple[list[int], tuple[str, ...]]:
        """Those in one shard, counted from its first row."""
        low, high = np.searchsorted(self.rows, [stored.start, stored.end])
        return (self.rows[low:high] - stored.start).tolist(), self.first_places[low:high]


def assemble(
    folder: Folder, plan: BuildPlan, source: Mapping[str, Any], settings: Mapping[str, Any]
) -> Manifest:
    """The manifest of the store that the finished jobs in ``folder`` make up, written with its lists.

    Shards of the jobs stay as they are until the manifest stands, so that this can be interrupted and
    repeated: one that loses a duplicate, or whose records get their split only now, is written again under
    another name.
    """
    journal = Journal.open(folder)
    index = build_index(journal.ids())
    duplicates = _find_duplicates(journal, index)
    limits = _time_limits(journal, plan)
    totals, start = _Totals(), 0
    with _csv_lines(folder, REJECTED_FILE, ["file", "row", "id", "category", "reason"]) as lines:
        for part in journal.parts():
            left_out = list(part.left_out)
            if part.shard is not None:
                stored = StoredRows(part, part.shard, start)
                start = stored.end
                left_out += _finish_shard(journal, stored, plan, duplicates, limits, totals)
            totals.add(part, left_out)
            lines.writerows([x.file, x.row, x.id, x.category, x.reason] for x in left_out)
    tables = {plan.table.path: _list_unmatched(journal, plan.table.read())} if plan.table is not None else {}
    num_records = sum(shard.num_records for shard in totals.shards)
    split = {**plan.split.to_json(), "first_days": [d if np.isfinite(d) else None for d in limits or ()]}
    manifest = Manifest(
        content_hash=content_hash(totals.digest_sum % 2**128, num_records, split),
        num_records=num_records,
        num_rejected=totals.reasons.total(),
        reasons=dict(sorted(totals.reasons.items())),
        source={**source, "licences": sorted(totals.licences), "references": sorted(totals.references)},
        encoding=plan.encoding.to_json(),
        split=split,
        split_counts=dict(sorted((name, count) for name, count in totals.splits.items() if count)),
        properties=totals.properties(),
        tables=tables,
        shards=tuple(totals.shards),
        settings=settings,
        site_properties={
            "stored": plan.encoding.keep_frame,
            "records": totals.num_with_sites,
            "by_name": dict(sorted(totals.sites.items())),
        },
        nucleate_version=nucleate.__version__,
    )
    write_index(folder, manifest.content_hash, index.without(duplicates.rows))
    folder.write_bytes(MANIFEST_FILE, manifest.to_json().encode())
    return manifest


def tidy(folder: Folder, manifest: Manifest) -> None:
    """Remove what the build no longer needs: its journal, and shards that the manifest does not list."""
    listed = {shard.file for shard in manifest.shards}
    for name in folder.names(SHARD_FOLDER):
        if f"{SHARD_FOLDER}/{name}" not in listed:
            folder.remove(f"{SHARD_FOLDER}/{name}")
    folder.remove_unfinished(SHARD_FOLDER)
    folder.remove_tree(BUILD_FOLDER)


def _finish_shard(
    journal: Journal,
    stored: StoredRows,
    plan: BuildPlan,
    duplicates: _Duplicates,
    limits: tuple[float, float] | None,
    totals: _Totals,
) -> list[LeftOut]:
    """Records of the shard that are left out after all; the shard as it will be goes into the totals."""
    part = stored.part
    out, first_places = duplicates.inside(stored)
    if not out and limits is None:
        totals.add_shard(stored.shard, part.counts, part.splits)
        totals.add_sites(part.site_rows)
        return []
    table = journal.read(stored.shard)
    dropped = table.take(pa.array(out, pa.int64()))
    totals.digest_sum = subtract_digests(totals.digest_sum, dropped.column("digest").to_pylist())
    table = table.take(pa.array(np.setdiff1d(np.arange(table.num_rows), out), pa.int64()))
    if limits is not None:
        splits = [split_by_time(day, limits) for day in _days(table, plan)]
        table = table.set_column(table.column_names.index("split"), "split", pa.array(splits, pa.string()))
    shard = None
    if table.num_rows:
        shard = write_shard(journal.folder, shard_file(part.task, part.part, suffix="-final"), table)
    totals.add_shard(shard, property_counts(table), Counter(table.column("split").to_pylist()))
    totals.add_sites(part.site_rows, out)
    places = dropped.select(_PLACE).to_pylist()
    return [_duplicate(place, first) for place, first in zip(places, first_places, strict=True)]


def _duplicate(place: Mapping[str, str], first: str) -> LeftOut:
    reason = f"The id {place['id']!r} was already used by {first}; the first record is kept"
    return LeftOut(place["provenance.file"], place["provenance.row"], place["id"], DUPLICATE_ID, reason)


def _find_duplicates(journal: Journal, index: IdIndex) -> _Duplicates:
    rows = index.repeated()
    first_place: dict[str, str] = {}
    found: list[tuple[int, str]] = []
    for stored in journal.stored_rows() if len(rows) else ():
        mine = rows[np.searchsorted(rows, stored.start) : np.searchsorted(rows, stored.end)]
        if len(mine):
            places = journal.read(stored.shard, _PLACE).take(pa.array(mine - stored.start)).to_pylist()
            for row, place in zip(mine.tolist(), places, strict=True):
                if place["id"] in first_place:
                    found.append((row, first_place[place["id"]]))
                else:
                    first_place[place["id"]] = f"{place['provenance.file']}, row {place['provenance.row']}"
    return _Duplicates(
        np.array([row for row, _ in found], dtype=np.int64), tuple(first for _, first in found)
    )


def _days(table: pa.Table, plan: BuildPlan) -> list[float]:
    name = f"{PROPERTY_PREFIX}{plan.split.column}"
    if name not in table.column_names:
        return [float("nan")] * table.num_rows
    return [as_day(value) for value in table.column(name).to_pylist()]


def _time_limits(journal: Journal, plan: BuildPlan) -> tuple[float, float] | None:
    if plan.split.known_at_once:
        return None
    columns = ["id", f"{PROPERTY_PREFIX}{plan.split.column}"]
    days = [np.array(_days(journal.read(s.shard, columns), plan)) for s in journal.stored_rows()]
    return time_limits(np.concatenate(days) if days else np.empty(0), plan.split.fractions)


def _list_unmatched(journal: Journal, table: PropertyTable) -> dict[str, Any]:
    """How many ids found no partner on either side, the first by name; ``unmatched.csv`` has all of them."""
    used = np.zeros(len(table.index.hashes), dtype=bool)
    named: list[str] = []
    num_without_row = 0
    left_out_ids: set[str] = set()
    with _csv_lines(journal.folder, UNMATCHED_FILE, ["id", "found in", "missing in"]) as lines:
        for part in journal.parts():
            left_out_ids.update(line.id for line in part.left_out)
            if part.shard is None:
                continue
            ids = journal.read(part.shard, ["id"]).column("id").to_pylist()
            hashes = id_hashes(ids)
            found = table.index.contains(hashes)
            used[np.searchsorted(table.index.hashes, hashes[found])] = True
            missing = [i for i, there in zip(ids, found, strict=True) if not there]
            lines.writerows([i, "source", "property table"] for i in missing)
            num_without_row += len(missing)
            named += missing[: NAMED - len(named)]
        unused = [table.ids[int(row)].as_py() or "" for row in np.sort(table.index.rows[~used])]
        for i in unused:
            lines.writerow([i, "property table", "store (left out)" if i in left_out_ids else "source"])
    return {
        "id_column": table.id_column,
        "records_without_row": num_without_row,
        "rows_without_record": len(unused),
        "rows_of_left_out_records": sum(i in left_out_ids for i in unused),
        "ids_without_row": named,
        "ids_without_record": unused[:NAMED],
    }


@contextmanager
def _csv_lines(folder: Folder, name: str, header: list[str]) -> Iterator[Any]:
    """Writer of a CSV file of the store that appears when it is complete."""
    with (
        folder.writing(name) as path,
        path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        lines = csv.writer(file)
        lines.writerow(header)
        yield lines
