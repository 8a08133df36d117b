"""A small family of metrics to test the framework with: nearest distances, first of a bucket, mean density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from nucleate.errors import NucleateError
from nucleate.evaluation.candidate import Candidate
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.column import Column
from nucleate.evaluation.context import Context
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.statistics import mean_metric, numbers, proportion

CALLS: list[int] = []
"""Number of candidates of each chunk that was computed in this process."""

FAIL_AT: list[str] = []
"""Ids of candidates at which the family fails."""


def nearest(candidate: Candidate) -> float | None:
    """Shortest distance between two sites of the cell and its neighbours, Å."""
    cell = candidate.unit_cell
    if cell is None:
        return None
    shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T
    images = (cell.frac_coords[None] + shifts[:, None]).reshape(-1, 3) @ cell.lattice
    distances = cdist(cell.cart_coords, images)
    return float(np.sort(distances, axis=None)[cell.num_atoms])


class NearestFamily:
    """See the module."""

    name = "nearest"
    columns = (
        Column("nearest", pa.float64(), "Shortest distance.", "Å"),
        Column("far_enough", pa.bool_(), "Whether it is at least min_distance."),
        Column("is_first", pa.bool_(), "Whether no earlier crystal has its bucket."),
        Column("secret", pa.list_(pa.float32()), "A fingerprint nobody needs to see.", public=False),
    )
    uses = ("min_distance",)
    uses_across: tuple[str, ...] = ()
    uses_reference = False
    code = ()
    chunk = 5
    scores_reference = True

    def rows(self, candidates: Sequence[Candidate], context: Context) -> list[dict[str, Any]]:
        CALLS.append(len(candidates))
        found = []
        for candidate in candidates:
            if candidate.id in FAIL_AT:
                raise NucleateError(f"{candidate.id} cannot be scored")
            distance = nearest(candidate)
            enough = distance is not None and distance >= context.settings.min_distance
            found.append({"nearest": distance, "far_enough": enough, "secret": [1.0, 2.0]})
        return found

    def across(
        self, candidates: CandidateStore, table: pa.Table, context: Context
    ) -> Mapping[str, Sequence[Any]]:
        seen: set[str] = set()
        first = []
        for key in table.column("bucket_key").to_pylist():
            first.append(key is not None and key not in seen)
            seen.add(key)
        return {"is_first": first}

    def summary(self, table: pa.Table, context: Context) -> list[Metric]:
        protocol = (
            f"nearest distance at least {context.settings.min_distance} Å; unreadable crystals count as not"
        )
        metrics = [
            proportion(
                "far_enough", table.column("far_enough").to_pylist(), protocol=protocol, column="far_enough"
            ),
            proportion(
                "first", table.column("is_first").to_pylist(), protocol="one per bucket", column="is_first"
            ),
            mean_metric(
                "mean_density",
                table.column("density").to_pylist(),
                protocol="all",
                unit="g/cm³",
                column="density",
            ),
        ]
        if context.reference is not None:
            part = context.reference.held_out if context.subject == "crystals" else context.reference.train
            theirs = [crystal.density for crystal in part.iter_crystals()]

            def distance(values: np.ndarray) -> float:
                return float(wasserstein_distance(values, theirs))

            own = numbers(table.column("density").to_pylist())
            metrics.append(
                Metric(
                    "w_density",
                    distance(own),
                    len(own),
                    None,
                    "earth mover",
                    column="density",
                    statistic=distance,
                )
            )
        return metrics


def family() -> NearestFamily:
    """The family."""
    return NearestFamily()
