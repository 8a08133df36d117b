"""Averages of the checks over a set of crystals, and its bonds against those of a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nucleate.evaluation.bond_distance import histogram_distance
from nucleate.evaluation.bond_statistics import (
    ANGLE_BINS,
    LENGTH_STEP,
    BondStatistics,
    build_statistics,
    shipped_statistics,
)
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.statistics import mean_metric, proportion
from nucleate.evaluation.structure_validity import MAX_ELONGATION, MAX_VOLUME_SPREADS, MIN_LATTICE_VECTOR
from nucleate.evaluation.validity_checks import CHECKS

if TYPE_CHECKING:
    from nucleate.evaluation.context import Context
    from nucleate.evaluation.reference import Reference
    from nucleate.evaluation.settings import Settings

STATISTICS_SAMPLE = 50_000
"""Most crystals of a reference whose bonds are counted; a larger one is sampled."""


def reference_statistics(
    reference: Reference | None,
    *,
    seed: int = 0,
    map: Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]] = map,
) -> BondStatistics:
    """Bonds of the training part of a reference (counted once, then cached), or the shipped ones where there is none.

    Args:
        reference: what the set is compared with.
        seed: of the sample of a reference with more than 50,000 crystals.
        map: ``Context.map``.
    """
    if reference is None:
        return shipped_statistics()
    store = reference.train
    rows = np.arange(len(store))
    if len(rows) > STATISTICS_SAMPLE:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), STATISTICS_SAMPLE, replace=False))
        store = store.select(rows)

    def build() -> dict[str, np.ndarray]:
        cells = (crystal.unit_cell("primitive") for crystal in store.iter_crystals())
        source = f"{len(rows):,} crystals of the reference's training part"
        return build_statistics(cells, source=source, map=map).to_arrays()

    arrays = reference.cached(f"bond_statistics v1 sample {STATISTICS_SAMPLE} seed {seed}", build)
    return BondStatistics.from_arrays(arrays)


_UNREAD = "crystals that cannot be read count as failures"


def published_metrics(table: pa.Table, settings: Settings) -> list[Metric]:
    """Structural and compositional validity as in the literature, and both together."""
    structural, compositional = (
        table.column(name).to_pylist() for name in ("structurally_valid", "compositionally_valid")
    )
    structure = (
        f"shortest distance of different sites at least {settings.min_distance:g} Å and volume at least "
        f"{settings.min_volume:g} Å³ (CDVAE); {_UNREAD}"
    )
    composition = (
        "SMACT 2.2.1 rule with the alloy shortcut and the Pauling test, as in CDVAE, DiffCSP and FlowMM; "
        f"{_UNREAD}"
    )
    both = [a and b for a, b in zip(structural, compositional)]
    return [
        proportion("structural_validity", structural, protocol=structure, column="structurally_valid"),
        proportion(
            "compositional_validity", compositional, protocol=composition, column="compositionally_valid"
        ),
        proportion("validity", both, protocol=f"both: {structure}; {composition}"),
    ]


def physical_metrics(table: pa.Table) -> list[Metric]:
    """Shares of crystals that pass each physical check, and all of them."""
    protocols = {
        "pair_distance_validity": (
            "pair_distances_ok",
            "no two atoms, own images included, nearer than real ones of their elements",
        ),
        "density_validity": ("density_ok", "density between 0.5 and 25 g/cm³"),
        "volume_validity": (
            "volume_ok",
            f"volume per atom within {MAX_VOLUME_SPREADS:g} standard deviations of that of the composition",
        ),
        "cell_shape_validity": (
            "cell_shape_ok",
            f"shortest lattice vector at least {MIN_LATTICE_VECTOR:g} Å, reduced cell at most "
            f"{MAX_ELONGATION:g} times as long as wide",
        ),
        "charge_validity": (
            "charge_ok",
            "one element, metals only, or oxidation states (mixed valence allowed) that sum to zero",
        ),
    }
    metrics = [
        proportion(name, table.column(column).to_pylist(), protocol=f"{protocol}; {_UNREAD}", column=column)
        for name, (column, protocol) in protocols.items()
    ]
    flags = zip(*(table.column(name).to_pylist() for name in CHECKS))
    everything = [all(row) for row in flags]
    protocol = f"all of {', '.join(CHECKS)}; {_UNREAD}"
    return [*metrics, proportion("physical_validity", everything, protocol=protocol)]


def class_metrics(table: pa.Table) -> list[Metric]:
    """Shares of elements, alloys, neutral and unbalanced compositions."""
    classes = table.column("charge_class").to_pylist()
    protocol = "share of all crystals whose composition is of this class (nucleate.physics.charge)"
    return [
        proportion(f"share_{kind}", [c == kind for c in classes], protocol=protocol, better="")
        for kind in ("element", "alloy", "single_valence", "mixed_valence", "unbalanced")
    ]


def bond_metrics(table: pa.Table, context: Context, statistics: BondStatistics) -> list[Metric]:
    """How usual bonds, coordination numbers and angles are, bond valences, and distances of their histograms."""
    settings, against = context.settings, f"against {statistics.source}"
    shares = {
        "rare_bonds": f"mean share of bonds whose two-sided tail probability is below 1 % {against}",
        "rare_coordination": "mean share of atoms with a coordination number that below 1 % of their element "
        f"have {against}",
        "rare_angles": f"mean share of bond angles among the smallest 1 % of their element {against}",
    }
    metrics = [
        mean_metric(
            name,
            table.column(name).to_pylist(),
            protocol=protocol,
            unit="share",
            better="lower",
            seed=context.seed,
            resamples=settings.resamples,
            column=name,
        )
        for name, protocol in shares.items()
    ]
    metrics.append(
        mean_metric(
            "instability_index",
            table.column("instability_index").to_pylist(),
            protocol="median over charge-balanced compounds with known parameters (O'Keeffe and Brese 1991)",
            unit="v.u.",
            better="lower",
            seed=context.seed,
            resamples=settings.resamples,
            column="instability_index",
            statistic=np.median,
        )
    )
    elements = np.arange(len(statistics.coordination))
    compared = (
        ("w_bond_length", "bond_histogram", statistics.pairs, statistics.lengths, LENGTH_STEP, "Å"),
        ("w_coordination", "coordination_histogram", elements, statistics.coordination, 1.0, ""),
        ("w_bond_angle", "angle_histogram", elements, statistics.angles, 180 / ANGLE_BINS, "°"),
    )
    for name, column, classes, histograms, step, unit in compared:
        crystals = [
            np.array(values or [], dtype=np.int64).reshape(-1, 3)
            for values in table.column(column).to_pylist()
        ]
        found = histogram_distance(
            crystals,
            classes,
            histograms,
            step=step,
            seed=context.seed,
            resamples=min(settings.resamples, 200),
        )
        metrics.append(
            Metric(
                name=name,
                value=found.value,
                n=found.num_crystals,
                ci95=found.ci95,
                protocol="mean over element pairs (elements) of the first Wasserstein distance of histograms, "
                f"weighted by crystals, {against}; interval of 1.96 bootstrap standard deviations; small sets are "
                "further away by chance, so compare with a reference sample of equal size",
                unit=unit,
                better="lower",
                note="" if found.value is None else f"{found.covered:.1%} of the votes could be compared",
            )
        )
    return metrics
