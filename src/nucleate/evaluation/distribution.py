"""The family ``distribution``: whether a set as a whole looks like the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nucleate.evaluation.candidate import Candidate
from nucleate.evaluation.column import Column
from nucleate.evaluation.context import Context
from nucleate.evaluation.coverage import coverage
from nucleate.evaluation.distribution_metrics import coverage_metrics, feature_metrics, number_metrics
from nucleate.evaluation.distribution_reference import part_fingerprints
from nucleate.evaluation.diversity_metrics import kind_metrics
from nucleate.evaluation.fingerprints import (
    COMPOSITION_FEATURES,
    STRUCTURE_FEATURES,
    composition_fingerprint,
    count_atoms,
    structure_fingerprint,
)
from nucleate.evaluation.metric import Metric

if TYPE_CHECKING:
    from nucleate.evaluation.candidate_store import CandidateStore

COLUMNS = (
    Column(
        "structure_fingerprint",
        pa.list_(pa.float32(), STRUCTURE_FEATURES),
        "Mean over the sites of CrystalNN's order parameters.",
        public=False,
    ),
    Column(
        "composition_fingerprint",
        pa.list_(pa.float32(), COMPOSITION_FEATURES),
        "Magpie statistics of the composition, standardised as CDVAE published.",
        public=False,
    ),
    Column("elements", pa.list_(pa.uint8()), "Atomic numbers of its elements.", public=False),
    Column(
        "nearest_structure",
        pa.float64(),
        "Distance of its structure fingerprint to the nearest of the held-out sample of the reference.",
    ),
    Column(
        "nearest_composition",
        pa.float64(),
        "Distance of its composition fingerprint to the nearest of the held-out sample of the reference.",
    ),
    Column(
        "near_reference",
        pa.bool_(),
        "Whether both distances are inside the cut-offs of COV-P; false for a crystal without fingerprints.",
    ),
)


@dataclass(frozen=True)
class DistributionFamily:
    """Coverage, Wasserstein and Fréchet distances, and diversity (docs/metrics.md)."""

    name: str = "distribution"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ()
    uses_across: tuple[str, ...] = ("cov_structure_cutoff", "cov_composition_cutoff", "reference_sample")
    uses_reference: bool = False
    code: tuple[str, ...] = (
        "nucleate.evaluation.fingerprints",
        "nucleate.evaluation.coverage",
        "nucleate.evaluation.distribution_reference",
    )
    chunk: int = 16
    # The reference value is that of a training sample of the size of the set, so that both have the same bias.
    scores_reference: bool = False

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        """Fingerprints and elements; nothing for a crystal that could not be read."""
        return [_row(candidate) for candidate in candidates]

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        """Distances to the nearest crystal of the held-out sample of the reference."""
        if context.reference is None or not len(context.reference.held_out):
            return {}
        wanted = context.settings.reference_sample
        reference_s, reference_c = part_fingerprints(context, "held_out", n=wanted)
        structure, composition = table_fingerprints(table)
        found = coverage(
            structure,
            composition,
            reference_structure=reference_s,
            reference_composition=reference_c,
            structure_cutoff=context.settings.cov_structure_cutoff,
            composition_cutoff=context.settings.cov_composition_cutoff,
        )
        return {
            "nearest_structure": found.precision_structure.tolist(),
            "nearest_composition": found.precision_composition.tolist(),
            "near_reference": found.precise.tolist(),
        }

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        """COV-R and COV-P, Wasserstein distances, Fréchet distances, diversity."""
        structure, composition = table_fingerprints(table)
        return [
            *coverage_metrics(table, structure, composition, context=context),
            *number_metrics(table, context),
            *feature_metrics(structure, composition, context),
            *kind_metrics(table, context),
        ]


def family() -> DistributionFamily:
    """The family, for ``nucleate.evaluation.family``."""
    return DistributionFamily()


def _row(candidate: Candidate) -> dict[str, Any]:
    crystal = candidate.crystal if candidate.crystal is not None else candidate.unit_cell
    if crystal is None or candidate.unit_cell is None:
        return {}
    counts = count_atoms(candidate.unit_cell.atomic_numbers)
    row: dict[str, Any] = {"elements": list(counts)}
    for name, vector in (
        ("structure_fingerprint", structure_fingerprint(crystal)),
        ("composition_fingerprint", composition_fingerprint(counts)),
    ):
        if not np.isnan(vector).any():
            row[name] = vector.astype(np.float32)
    return row


def table_fingerprints(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(structure (n, 61), composition (n, 132)) fingerprints of a table of rows, NaN where a row has none."""
    return (
        _matrix(table.column("structure_fingerprint"), STRUCTURE_FEATURES),
        _matrix(table.column("composition_fingerprint"), COMPOSITION_FEATURES),
    )


def _matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    known = column.is_valid().to_numpy()
    matrix = np.full((len(column), width), np.nan)
    if known.any():
        matrix[known] = column.drop_null().combine_chunks().flatten().to_numpy().reshape(-1, width)
    return matrix
