"""The family ``csp``: how well predicted crystals reproduce the test structures they are predictions of.

Definitions, equations and pitfalls: ``docs/matching.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nucleate.evaluation.column import Column
from nucleate.evaluation.csp_energies import ENERGY_COLUMNS, energy_columns
from nucleate.evaluation.csp_errors import pair_errors
from nucleate.evaluation.csp_recall import best_of_all, sample_numbers
from nucleate.evaluation.csp_summary import csp_metrics
from nucleate.evaluation.csp_targets import Target, Targets, is_valid
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.reduced_cell import reduce_cell

if TYPE_CHECKING:
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.context import Context
    from nucleate.evaluation.reference import Reference
    from nucleate.evaluation.settings import Settings

COLUMNS = (
    Column("csp_target", pa.string(), "Id of the test structure it is a prediction of."),
    Column("csp_target_row", pa.int64(), "Row of that record in the reference."),
    Column("csp_target_atoms", pa.int32(), "Atoms in the primitive cell of the test structure."),
    Column("csp_target_group", pa.int16(), "Its space group."),
    Column("csp_target_system", pa.string(), "Its crystal system."),
    Column("csp_target_free_coords", pa.int32(), "Its free coordinates."),
    Column(
        "csp_sample",
        pa.int32(),
        "Which sample of its test structure it is, from 0, in the order of the input.",
    ),
    Column("csp_same_formula", pa.bool_(), "Whether it has the reduced formula of the test structure."),
    Column("csp_same_group", pa.bool_(), "Whether it has the space group of the test structure."),
    Column("csp_match", pa.bool_(), "Whether it matches the test structure."),
    Column("csp_rms", pa.float64(), "Root mean square displacement of a match, in units of (V/N)^(1/3)."),
    Column(
        "csp_valid", pa.bool_(), "Whether it and the test structure are valid as published evaluations ask."
    ),
    Column("csp_coordinates_mse", pa.float64(), "Mean squared displacement of the sites of a match.", "Å²"),
    Column("csp_bonds_mse", pa.float64(), "Mean squared error of the bond lengths of a match.", "Å²"),
    Column("csp_lengths_mse", pa.float64(), "Mean squared error of a, b, c of a match.", "Å²"),
    Column("csp_angles_mse", pa.float64(), "Mean squared error of the cell's angles of a match.", "°²"),
    Column("csp_volume_ratio", pa.float64(), "Volume of a match over that of the test structure."),
    Column(
        "csp_recall_rms",
        pa.float64(),
        "On the first row of each test structure: smallest displacement of any crystal of the set that matches it.",
    ),
    *ENERGY_COLUMNS,
)


@dataclass(frozen=True)
class CspFamily:
    """Match rate, displacement, recall and errors of crystal structure prediction."""

    name: str = "csp"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ("csp_ltol", "csp_stol", "csp_angle_tol", "min_distance", "min_volume")
    uses_across: tuple[str, ...] = ("samples",)
    uses_reference: bool = True
    code: tuple[str, ...] = (
        "nucleate.evaluation.csp_targets",
        "nucleate.evaluation.csp_errors",
        "nucleate.evaluation.csp_recall",
        "nucleate.evaluation.csp_energies",
        "nucleate.evaluation.matcher",
        "nucleate.evaluation.reduced_cell",
        "nucleate.evaluation.surroundings",
        "nucleate.evaluation.structure_validity",
        "nucleate.evaluation.composition_validity",
    )
    chunk: int = 64
    scores_reference: bool = False

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        """Each prediction against its own test structure; crystals that name none have empty rows."""
        if context.reference is None:
            return [{} for _ in candidates]
        targets = _targets(context.reference, context.settings)
        return [
            _row(candidate, targets.of(candidate.id, candidate.given), context.settings)
            for candidate in candidates
        ]

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        """Sample numbers, the recall of every test structure by the whole set, and energies where there are any."""
        if context.reference is None or not table.column("csp_target").drop_null():
            return {}
        numbers = sample_numbers(table.column("csp_target_row").to_pylist())
        return {
            "csp_sample": numbers,
            "csp_recall_rms": best_of_all(candidates, table, numbers, context),
            **energy_columns(table, context),
        }

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        """Match rates and errors over all test structures named by the set, over valid ones, and by their kind."""
        return csp_metrics(table, context)


_TARGETS: dict[tuple[object, ...], Targets] = {}


def _targets(reference: Reference, settings: Settings) -> Targets:
    """The targets of this process: those of one chunk serve the next."""
    limits = {"min_distance": settings.min_distance, "min_volume": settings.min_volume}
    key = (reference.content_hash, reference.store.location, *limits.values())
    if key not in _TARGETS:
        _TARGETS.clear()
        _TARGETS[key] = Targets(reference, **limits)
    return _TARGETS[key]


def csp_matcher(settings: Settings) -> Matcher:
    """The matcher of crystal structure prediction with these settings."""
    return Matcher(settings.csp_ltol, settings.csp_stol, settings.csp_angle_tol)


def _row(candidate: Candidate, target: Target | None, settings: Settings) -> dict[str, Any]:
    if target is None:
        return {}
    row: dict[str, Any] = {
        "csp_target": target.id,
        "csp_target_row": target.row,
        "csp_target_atoms": target.crystal.num_atoms_primitive,
        "csp_target_group": target.crystal.space_group_number,
        "csp_target_system": target.crystal.group.crystal_system,
        "csp_target_free_coords": target.crystal.num_free_coords,
        "csp_same_formula": False,
        "csp_same_group": False,
        "csp_match": False,
        "csp_valid": False,
    }
    crystal, cell = candidate.crystal, candidate.unit_cell
    if crystal is None or cell is None:
        return row
    limits = {"min_distance": settings.min_distance, "min_volume": settings.min_volume}
    row["csp_same_group"] = crystal.space_group_number == target.crystal.space_group_number
    row["csp_valid"] = target.valid and is_valid(cell, **limits)
    row["csp_same_formula"] = crystal.formula == target.crystal.formula
    if not row["csp_same_formula"]:
        return row
    reduced = reduce_cell(cell)
    match = csp_matcher(settings).best_match(reduced, target.reduced)
    if match is None:
        return row
    errors = asdict(pair_errors(reduced, target.reduced, match))
    row["csp_volume_ratio"] = errors.pop("volume_ratio")
    row.update({f"csp_{name}_mse": value for name, value in errors.items()})
    return {**row, "csp_match": True, "csp_rms": match.rms}


def family() -> CspFamily:
    """The family, for ``nucleate.evaluation.family.load_family``."""
    return CspFamily()
