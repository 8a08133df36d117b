"""The family ``validity``: can this structure and this composition be a crystal?

Definitions, equations and pitfalls of every metric: ``docs/validity.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nucleate.evaluation.column import Column
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.validity_checks import (
    COLUMNS,
    HISTOGRAM_COLUMNS,
    JUDGED_COLUMNS,
    check_candidate,
    judged_bonds,
)
from nucleate.evaluation.validity_summary import (
    bond_metrics,
    class_metrics,
    physical_metrics,
    published_metrics,
    reference_statistics,
)

if TYPE_CHECKING:
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.context import Context


@dataclass(frozen=True)
class ValidityFamily:
    """Structural and compositional validity, distances, density, bonds and bond valences."""

    name: str = "validity"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ("min_distance", "min_volume")
    uses_across: tuple[str, ...] = ()
    uses_reference: bool = False
    code: tuple[str, ...] = (
        "nucleate.evaluation.validity_checks",
        "nucleate.evaluation.surroundings",
        "nucleate.evaluation.structure_validity",
        "nucleate.evaluation.composition_validity",
        "nucleate.evaluation.bond_statistics",
        "nucleate.evaluation.bond_valence",
        "nucleate.physics.distances",
        "nucleate.physics.charge",
    )
    chunk: int = 64
    scores_reference: bool = True

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        """The checks that need no reference, and the crystal's own histograms of bonds."""
        return [check_candidate(candidate, context.settings) for candidate in candidates]

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        """How rare each crystal's bonds are among those of the reference."""
        statistics = reference_statistics(context.reference, seed=context.seed, map=context.map)
        histograms = zip(*(table.column(name).to_pylist() for name in HISTOGRAM_COLUMNS))
        rows = (dict(zip(HISTOGRAM_COLUMNS, values)) for values in histograms)
        judged = [judged_bonds(row, statistics) for row in rows]
        return {name: [row[name] for row in judged] for name in JUDGED_COLUMNS}

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        """Shares of crystals that pass each check, and distances of the bonds to the reference's."""
        statistics = reference_statistics(context.reference, seed=context.seed, map=context.map)
        return [
            *published_metrics(table, context.settings),
            *physical_metrics(table),
            *class_metrics(table),
            *bond_metrics(table, context, statistics),
        ]


def family() -> ValidityFamily:
    """The family, for ``nucleate.evaluation.family.load_family``."""
    return ValidityFamily()
