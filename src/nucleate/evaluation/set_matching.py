"""Each crystal of a set compared with the others and with a reference, bucket by bucket, streaming.

A bucket holds the crystals of one reduced formula; those of another are different by StructureMatcher's own rule,
so nothing is lost. Inside it cells are reduced once, sorted by their number of sites (again a rule of
StructureMatcher) and compared. Crystals without a partner of their formula are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from nucleate.crystal import space_group
from nucleate.data.arrays import CrystalArrays
from nucleate.data.store import Store
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.context import map_here
from nucleate.evaluation.formula_index import NO_FORMULA, rows_by_key
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.packed_cells import PackedCells, reduced, reduced_crystals
from nucleate.evaluation.reduced_cell import ReducedCell
from nucleate.shapes import Bool, Int

NONE = -1
_CELLS = ["is_encoded", "space_group_number", "cell.lattice", "cell.atomic_numbers", "cell.frac_coords"]
_CELLS_PER_JOB = 512
_COMPARISONS_PER_JOB = 1000
_RECORDS_PER_BLOCK = 200_000  # crystals whose reduced cells are in memory together, about 100 MB

Mapper = Callable[[Callable, Iterable], Iterator]


@dataclass(frozen=True, eq=False)
class SetMatches:
    """What came of comparing a set with itself and with a reference; rows are those of the set.

    Attributes:
        representative: row of the first crystal that stands for this one, its own row where none does before it;
            ``NONE`` for rows without a formula.
        mirrored: whether the crystal is the mirror image of its representative rather than a copy of it.
        reference_row: row (in the store) of a record that it matches; ``NONE`` where there is none.
        reference_mirrored: whether it is the mirror image of that record.
        num_reference: records of the reference with the same reduced formula.
    """

    representative: Int[np.ndarray, "rows"]
    mirrored: Bool[np.ndarray, "rows"]
    reference_row: Int[np.ndarray, "rows"]
    reference_mirrored: Bool[np.ndarray, "rows"]
    num_reference: Int[np.ndarray, "rows"]

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Cells:
    """Reduced cells with the rows they belong to and the groups they were given in."""

    rows: Int[np.ndarray, "cells"]
    groups: Int[np.ndarray, "cells"]
    packed: PackedCells

    def take(self, indices: Int[np.ndarray, "chosen"]) -> Cells:
        """Some of them."""
        return Cells(self.rows[indices], self.groups[indices], self.packed.take(indices))

    @classmethod
    def joined(cls, parts: Sequence[Cells]) -> Cells:
        """All of them, by ascending row."""
        empty = np.zeros(0, dtype=np.int64)
        rows = np.concatenate([empty, *(part.rows for part in parts)])
        groups = np.concatenate([empty, *(part.groups for part in parts)])
        whole = cls(rows, groups, PackedCells.joined([part.packed for part in parts]))
        return whole.take(np.argsort(rows, kind="stable"))


def representatives(cells: Sequence[ReducedCell], matcher: Matcher) -> Int[np.ndarray, "cells"]:
    """Place of the cell that stands for each cell.

    Cells are taken in order; each joins the first representative that it matches (``fits(representative,
    cell)``), else it becomes one. That is the rule of pymatgen's ``StructureMatcher.group_structures``. Matching
    is not transitive, so another order can give other groups, and two members of a group need not match each
    other; linking everything that matches (connected components) would give fewer groups.
    """
    first: list[int] = []
    found = np.arange(len(cells))
    for i, cell in enumerate(cells):
        joined = next((k for k in first if matcher.fits(cells[k], cell)), None)
        if joined is None:
            first.append(i)
        else:
            found[i] = joined
    return found


def matched_reference(
    cell: ReducedCell, references: Sequence[ReducedCell], order: Iterable[int], matcher: Matcher
) -> int:
    """Place of the first reference in ``order`` that the cell matches (``fits(cell, reference)``), else ``NONE``."""
    return next((k for k in order if matcher.fits(cell, references[k])), NONE)


def match_set(
    candidates: CandidateStore,
    keys: Int[np.ndarray, "rows"],
    matcher: Matcher,
    *,
    reference: Store | None = None,
    reference_keys: Int[np.ndarray, "records"] | None = None,
    map: Mapper = map_here,
    kept: Callable[[int, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SetMatches:
    """Every crystal of a set compared with those before it and with all records of a reference.

    The work is cut into blocks of whole formulas with at most 200,000 crystals of set and reference (more only
    where one formula has more); per block both are streamed once, and only crystals that share their formula
    with another are kept, as reduced cells. The set is compared in the cells it was given in, the reference in
    the primitive cells of its stored crystals.

    Args:
        candidates: the set.
        keys: formula key of each row of the set (``formula_keys``).
        matcher: tolerances.
        reference: records to compare with; a selection counts as that selection.
        reference_keys: formula key of every record of the whole store.
        map: runs a function over items, results in order, perhaps in parallel.
        kept: ``kept(number, build)`` gives the arrays of a finished block or builds them.
        on_progress: told (rows done, rows); in a block half of its rows count when their cells are reduced.
    """
    n = len(keys)
    result = SetMatches(
        np.where(keys == NO_FORMULA, NONE, np.arange(n)),
        np.zeros(n, dtype=bool),
        np.full(n, NONE, dtype=np.int64),
        np.zeros(n, dtype=bool),
        np.zeros(n, dtype=np.int64),
    )
    own = rows_by_key(keys)
    theirs: dict[int, np.ndarray] = {}
    if reference is not None and reference_keys is not None:
        records = reference.rows
        shared = records[np.isin(reference_keys[records], np.fromiter(own, dtype=np.int64, count=len(own)))]
        theirs = {key: shared[places] for key, places in rows_by_key(reference_keys[shared]).items()}
    for key, rows in theirs.items():
        result.num_reference[own[key]] = len(rows)
    blocks = _blocks([key for key in own if len(own[key]) > 1 or key in theirs], own, theirs)
    done = n - sum(len(own[key]) for block in blocks for key in block)
    for number, block in enumerate(blocks):
        tell = _nothing if on_progress is None else partial(_tell, on_progress, done, n)
        build = partial(_match_block, candidates, block, own, theirs, matcher, reference, map, tell)
        arrays = build() if kept is None else kept(number, build)
        rows = arrays["rows"]
        for name, values in result.arrays().items():
            if name in arrays:
                values[rows] = arrays[name]
        done += len(rows)
    if on_progress is not None:
        on_progress(n, n)
    return result


def _nothing(more: float) -> None:
    """Nobody is watching."""


def _tell(on_progress: Callable[[int, int], None], done: int, total: int, more: float) -> None:
    on_progress(done + int(more), total)


def _blocks(
    keys: Iterable[int], own: dict[int, np.ndarray], theirs: dict[int, np.ndarray]
) -> list[list[int]]:
    """Formulas in blocks of at most ``_RECORDS_PER_BLOCK`` crystals, at least one formula each."""
    blocks: list[list[int]] = [[]]
    size = 0
    for key in keys:
        more = len(own[key]) + len(theirs.get(key, ()))
        if blocks[-1] and size + more > _RECORDS_PER_BLOCK:
            blocks.append([])
            size = 0
        blocks[-1].append(key)
        size += more
    return blocks if blocks[0] else []


def _match_block(
    candidates: CandidateStore,
    block: Sequence[int],
    own: dict[int, np.ndarray],
    theirs: dict[int, np.ndarray],
    matcher: Matcher,
    reference: Store | None,
    map: Mapper,
    tell: Callable[[float], None],
) -> dict[str, np.ndarray]:
    """Arrays of ``SetMatches`` for the rows of a block, and the rows; ``tell`` hears how many rows are done."""
    empty = np.zeros(0, dtype=np.int64)
    rows = np.sort(np.concatenate([empty, *(own[key] for key in block)]))
    records = np.sort(np.concatenate([empty, *(theirs[key] for key in block if key in theirs)]))
    half = len(rows) / 2
    share = half / max(1, len(rows) + len(records))
    parts, known_parts = [], []
    for part in map(_reduced_given, _given_cells(candidates, rows)):
        parts.append(part)
        tell(share * sum(len(p.rows) for p in parts))
    if reference is not None and len(records):
        for part in map(_reduced_stored, _stored_crystals(reference, records)):
            known_parts.append(part)
            tell(share * (len(rows) + sum(len(p.rows) for p in known_parts)))
    cells, known = Cells.joined(parts), Cells.joined(known_parts)
    compared = np.zeros(len(rows), dtype=bool)
    found = {
        "rows": rows,
        "representative": rows.copy(),
        "mirrored": np.zeros(len(rows), dtype=bool),
        "reference_row": np.full(len(rows), NONE, dtype=np.int64),
        "reference_mirrored": np.zeros(len(rows), dtype=bool),
    }
    tasks = _tasks(_buckets(block, own, theirs, cells, known))
    for task in map(partial(_compare, matcher), tasks):
        for with_reference, members, partners, mirrored in task:
            at = np.searchsorted(rows, members)
            names = (
                ("reference_row", "reference_mirrored") if with_reference else ("representative", "mirrored")
            )
            found[names[0]][at], found[names[1]][at] = partners, mirrored
            compared[at] = True
        tell(half + compared.sum() / 2)
    return found


def _given_cells(candidates: CandidateStore, rows: Int[np.ndarray, "rows"]) -> Iterator[Cells]:
    """The cells of these rows as they were given, some hundred at a time."""
    for start, table in candidates.iter_columns(_CELLS):
        low, high = np.searchsorted(rows, [start, start + table.num_rows])
        if high > low:
            yield _cells_of_table(table.take(pa.array(rows[low:high] - start)), rows[low:high])


def _cells_of_table(table: pa.Table, rows: Int[np.ndarray, "rows"]) -> Cells:
    lists = {name: table.column(name).combine_chunks() for name in _CELLS[2:]}
    flat = {name: column.flatten().to_numpy(zero_copy_only=False) for name, column in lists.items()}
    counts = np.diff(lists["cell.atomic_numbers"].offsets.to_numpy())
    packed = PackedCells(
        flat["cell.lattice"].reshape(-1, 3, 3),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        flat["cell.frac_coords"].reshape(-1, 3),
        flat["cell.atomic_numbers"].astype(np.int16),
    )
    groups = table.column("space_group_number").to_numpy().astype(np.int64)
    return Cells(rows, groups, packed)


def _stored_crystals(reference: Store, records: Int[np.ndarray, "records"]) -> Iterator[CrystalArrays]:
    """Arrays of these records of a store, some hundred at a time."""
    for arrays in reference.whole().select(records).iter_arrays():
        for first in range(0, len(arrays), _CELLS_PER_JOB):
            yield _slice(arrays, first, min(first + _CELLS_PER_JOB, len(arrays)))


def _slice(arrays: CrystalArrays, first: int, end: int) -> CrystalArrays:
    orbits = slice(int(arrays.orbit_offsets[first]), int(arrays.orbit_offsets[end]))
    params = slice(int(arrays.lattice_offsets[first]), int(arrays.lattice_offsets[end]))
    return CrystalArrays(
        space_group_number=arrays.space_group_number[first:end],
        lattice_params=arrays.lattice_params[params],
        lattice_offsets=arrays.lattice_offsets[first : end + 1] - params.start,
        wyckoff_indices=arrays.wyckoff_indices[orbits],
        atomic_numbers=arrays.atomic_numbers[orbits],
        free_coords=arrays.free_coords[orbits],
        orbit_offsets=arrays.orbit_offsets[first : end + 1] - orbits.start,
        num_atoms_primitive=arrays.num_atoms_primitive[first:end],
        rows=arrays.rows[first:end],
    )


def _reduced_given(cells: Cells) -> Cells:
    return Cells(cells.rows, cells.groups, reduced(cells.packed))


def _reduced_stored(arrays: CrystalArrays) -> Cells:
    return Cells(arrays.rows, arrays.space_group_number, reduced_crystals(arrays))


@dataclass(frozen=True, eq=False)
class _Bucket:
    """Cells of one formula and number of sites: to be compared among themselves, or with ``reference``."""

    cells: Cells
    reference: Cells | None

    @property
    def comparisons(self) -> int:
        """How many there are at most."""
        n = len(self.cells.rows)
        return n * (n - 1) // 2 if self.reference is None else n * len(self.reference.rows)


def _buckets(
    block: Sequence[int],
    own: dict[int, np.ndarray],
    theirs: dict[int, np.ndarray],
    cells: Cells,
    known: Cells,
) -> Iterator[_Bucket]:
    sites, known_sites = cells.packed.num_sites, known.packed.num_sites
    for key in block:
        mine = np.searchsorted(cells.rows, own[key])
        others = np.searchsorted(known.rows, theirs[key]) if key in theirs else np.zeros(0, dtype=np.int64)
        for count in np.unique(sites[mine]).tolist():
            if not count:
                continue
            members = cells.take(mine[sites[mine] == count])
            if len(members.rows) > 1:
                yield _Bucket(members, None)
            partners = others[known_sites[others] == count]
            if len(partners):
                reference = known.take(partners)
                step = max(1, _COMPARISONS_PER_JOB // len(partners))
                for first in range(0, len(members.rows), step):
                    chosen = np.arange(first, min(first + step, len(members.rows)))
                    yield _Bucket(members.take(chosen), reference)


def _tasks(buckets: Iterable[_Bucket]) -> Iterator[list[_Bucket]]:
    """Buckets in lists of about equal work."""
    waiting: list[_Bucket] = []
    work = 0
    for bucket in buckets:
        waiting.append(bucket)
        work += bucket.comparisons
        if work >= _COMPARISONS_PER_JOB:
            yield waiting
            waiting, work = [], 0
    if waiting:
        yield waiting


def _compare(
    matcher: Matcher, buckets: Sequence[_Bucket]
) -> list[tuple[bool, np.ndarray, np.ndarray, np.ndarray]]:
    """Per bucket: whether it was with the reference, its rows, their partners, and which are mirror images."""
    results = []
    for bucket in buckets:
        cells = bucket.cells.packed.reduced_cells()
        if bucket.reference is None:
            others, rows = cells, bucket.cells.rows
            places = representatives(cells, matcher)
        else:
            others, rows = bucket.reference.packed.reduced_cells(), bucket.reference.rows
            # A record of the same group is the likeliest partner: most matches are found at the first try.
            places = np.array(
                [
                    matched_reference(
                        cell,
                        others,
                        np.argsort(bucket.reference.groups != group, kind="stable").tolist(),
                        matcher,
                    )
                    for cell, group in zip(cells, bucket.cells.groups)
                ]
            )
        partners = np.where(places == NONE, NONE, rows[places])
        # A crystal whose group has improper operations is its own mirror image.
        mirrored = np.array(
            [
                place != NONE
                and others[place] is not cell
                and space_group(int(group)).is_sohncke
                and matcher.is_mirror_image(others[place], cell)
                for cell, group, place in zip(cells, bucket.cells.groups, places.tolist())
            ]
        )
        results.append((bucket.reference is not None, bucket.cells.rows, partners, mirrored))
    return results
