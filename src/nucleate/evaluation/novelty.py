"""The family ``novelty``: which crystals of a set are different from each other and from those known.

Definitions, equations and pitfalls: ``docs/matching.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nucleate.evaluation.column import Column
from nucleate.evaluation.formula_index import crystal_keys, reference_keys
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.set_matching import NONE, SetMatches, match_set
from nucleate.evaluation.source_digest import source_digest
from nucleate.evaluation.statistics import proportion

if TYPE_CHECKING:
    from nucleate.data.store import Store
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.context import Context

COLUMNS = (
    Column("unique", pa.bool_(), "Whether it matches no crystal before it that stands for others."),
    Column("duplicate_of", pa.int64(), "Row of the crystal that stands for it; null where it is unique."),
    Column("duplicate_is_mirror", pa.bool_(), "Whether it is the mirror image of the crystal it duplicates."),
    Column(
        "num_copies", pa.int64(), "Crystals of the set that its representative stands for, itself included."
    ),
    Column("novel", pa.bool_(), "Whether it matches no record of the reference."),
    Column("reference_id", pa.string(), "A record of the reference that it matches; null where it is novel."),
    Column("reference_is_mirror", pa.bool_(), "Whether it is the mirror image of that record."),
    Column("novel_formula", pa.bool_(), "Whether the reference has no record of its reduced formula."),
    Column("unique_and_novel", pa.bool_(), "Whether it is both unique and novel."),
)
_CODE = (
    "nucleate.evaluation.set_matching",
    "nucleate.evaluation.packed_cells",
    "nucleate.evaluation.formula_index",
    "nucleate.evaluation.matcher",
    "nucleate.evaluation.reduced_cell",
)


@dataclass(frozen=True)
class NoveltyFamily:
    """Uniqueness inside the set and novelty against the reference."""

    name: str = "novelty"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ()
    uses_across: tuple[str, ...] = ("ltol", "stol", "angle_tol")
    uses_reference: bool = False
    code: tuple[str, ...] = _CODE
    chunk: int = 256
    scores_reference: bool = True

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        """Nothing: one crystal alone is neither unique nor novel."""
        return [{} for _ in candidates]

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        """All columns. A crystal that could not be encoded is neither unique nor novel."""
        known = reference_records(context)
        keys = crystal_keys(table)
        settings = context.settings
        matches = match_set(
            candidates,
            keys,
            Matcher(settings.ltol, settings.stol, settings.angle_tol),
            reference=known,
            reference_keys=None if context.reference is None else reference_keys(context.reference),
            map=context.map,
            kept=_kept_blocks(candidates, context),
            on_progress=lambda done, total: context.report_progress(done, total, "comparing crystals"),
        )
        return match_columns(matches, known)

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        """Shares of unique, novel, and unique and novel crystals, of the formula alone, and of mirror images."""
        return novelty_metrics(table, context)


def reference_records(context: Context) -> Store | None:
    """What novelty is measured against: the whole reference, for its own held-out sample its training part."""
    if context.reference is None:
        return None
    return context.reference.train if context.subject == "held_out" else context.reference.store


def _kept_blocks(
    candidates: CandidateStore, context: Context
) -> Callable[[int, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]:
    """Finished blocks are kept in the folder of the run, so that a stopped comparison goes on."""
    known = context.reference.content_hash if context.reference is not None else "alone"
    state = [
        candidates.digest,
        known,
        context.subject,
        context.settings.digest(NoveltyFamily().uses_across),
        *(source_digest(module) for module in _CODE),
    ]

    def kept(number: int, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return context.cached("matching-" + "-".join([str(number), *state]), build)

    return kept


def match_columns(matches: SetMatches, reference: Store | None) -> dict[str, Sequence[Any]]:
    """The columns of the family, from what the comparison found."""
    representative, rows = matches.representative, np.arange(len(matches.representative))
    encoded = representative != NONE
    unique = representative == rows
    copies = np.bincount(representative[encoded], minlength=len(rows))
    duplicate = encoded & ~unique
    columns: dict[str, Sequence[Any]] = {
        "unique": unique.tolist(),
        "duplicate_of": _where(duplicate, representative),
        "duplicate_is_mirror": _where(duplicate, matches.mirrored),
        "num_copies": _where(encoded, copies[np.maximum(representative, 0)]),
    }
    if reference is None:
        return columns
    matched = matches.reference_row != NONE
    novel = encoded & ~matched
    columns.update(
        novel=novel.tolist(),
        reference_id=_ids(reference, matches.reference_row),
        reference_is_mirror=_where(matched, matches.reference_mirrored),
        novel_formula=(encoded & (matches.num_reference == 0)).tolist(),
        unique_and_novel=(unique & novel).tolist(),
    )
    return columns


def _where(mask: np.ndarray, values: np.ndarray) -> list[Any]:
    return [v if m else None for m, v in zip(mask.tolist(), values.tolist())]


def _ids(reference: Store, rows: np.ndarray) -> list[str | None]:
    """Id of each row of the store, None for ``NONE``."""
    wanted = np.unique(rows[rows != NONE])
    ids: dict[int, str] = {}
    if len(wanted):
        names = (b.column(0).to_pylist() for b in reference.whole().select(wanted).iter_batches(["id"]))
        ids = dict(zip(wanted.tolist(), (name for batch in names for name in batch)))
    return [ids.get(row) for row in rows.tolist()]


def novelty_metrics(table: pa.Table, context: Context) -> list[Metric]:
    """The averages of the family's columns."""
    settings = context.settings
    criterion = matcher_protocol(settings.ltol, settings.stol, settings.angle_tol)
    counted = "crystals that could not be read or encoded count against the set"
    metrics = [
        proportion(
            "uniqueness",
            table.column("unique").to_pylist(),
            protocol=f"first of each group, in the order of the input ({criterion}); {counted}",
            column="unique",
        ),
        proportion(
            "mirror_duplicates",
            pc.fill_null(table.column("duplicate_is_mirror"), False).to_pylist(),
            protocol=f"share of all crystals that duplicate only as the mirror image ({criterion})",
            better="",
            column="duplicate_is_mirror",
        ),
    ]
    known = reference_records(context)
    if known is None:
        absent = "no reference was named"
        return [
            *metrics,
            *(Metric(name, None, 0, None, protocol=criterion, unit="share", note=absent) for name in _NOVEL),
        ]
    against = f"{len(known):,} records of {known.location}"
    if context.subject == "held_out":
        against = f"the {against} that are not held out"
    for name, (column, what) in _NOVEL.items():
        metrics.append(
            proportion(
                name,
                table.column(column).to_pylist(),
                protocol=f"{what} {against} ({criterion}); {counted}",
                column=column,
            )
        )
    return metrics


_NOVEL = {
    "novelty": ("novel", "matches none of"),
    "novel_formula": ("novel_formula", "reduced formula in none of"),
    "unique_and_novel": ("unique_and_novel", "first of its group and matches none of"),
}


def matcher_protocol(ltol: float, stol: float, angle_tol: float) -> str:
    """The tolerances, as they stand in protocols."""
    return (
        f"StructureMatcher's criterion, ltol {ltol:g}, stol {stol:g}, angle {angle_tol:g}°, "
        "primitive cells of equal volume, mirror images match"
    )


def family() -> NoveltyFamily:
    """The family, for ``nucleate.evaluation.family.load_family``."""
    return NoveltyFamily()
