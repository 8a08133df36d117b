"""The averages of the family ``distribution``: what each is, of which sample, with the reference value beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from nucleate.data.property_values import as_numbers
from nucleate.evaluation.context import Context
from nucleate.evaluation.coverage import coverage
from nucleate.evaluation.distribution_reference import (
    MOST_NUMBERS,
    NO_REFERENCE,
    Numbers,
    ceiling_size,
    clean_rows,
    numeric_properties,
    part_fingerprints,
    part_numbers,
)
from nucleate.evaluation.diversity_metrics import spread_metrics
from nucleate.evaluation.frechet import frechet_with_bias
from nucleate.evaluation.metric import Metric, not_measured
from nucleate.evaluation.statistics import normal_interval, small_sample_note, wilson_interval
from nucleate.evaluation.wasserstein import expected_noise, wasserstein_distance, wasserstein_interval

FEW_OF_A_SOURCE = 50
"""Held-out crystals that a source needs to be compared with on its own."""
FEWEST_FEATURES = 8

GIVEN = "given."


# ---- coverage ----------------------------------------------------------------------------------------------


def coverage_metrics(
    table: pa.Table, structure: np.ndarray, composition: np.ndarray, *, context: Context
) -> list[Metric]:
    """``cov_recall`` and ``cov_precision``, with those of a training sample as the reference value."""
    names = ("cov_recall", "cov_precision")
    if context.reference is None or not len(context.reference.held_out):
        return [not_measured(name, NO_REFERENCE, unit="share", better="higher") for name in names]
    settings = context.settings
    cutoffs = {
        "structure_cutoff": settings.cov_structure_cutoff,
        "composition_cutoff": settings.cov_composition_cutoff,
    }
    target_s, target_c = part_fingerprints(context, "held_out", n=settings.reference_sample)
    train_s, train_c = part_fingerprints(
        context, "train", n=ceiling_size(len(table), settings.reference_sample)
    )
    found, ceiling = (
        coverage(s, c, reference_structure=target_s, reference_composition=target_c, **cutoffs)
        for s, c in ((structure, composition), (train_s, train_c))
    )
    shared = (
        f"CrystalNN ops and Magpie fingerprints as in CDVAE, cut-offs {settings.cov_structure_cutoff:g} and "
        f"{settings.cov_composition_cutoff:g}, against {len(target_s):,} crystals of the "
        f"{context.reference.held_out_rule}"
    )
    without = int(np.isnan(structure).any(axis=1).sum())
    note = f"{without:,} crystals have no fingerprint and count as far away" if without else ""
    few = small_sample_note(len(table))
    recall = Metric(
        "cov_recall",
        found.recall,
        len(found.covered),
        wilson_interval(int(found.covered.sum()), len(found.covered)),
        f"share of the reference sample that the set reaches; {shared}; grows with the size of the set, here "
        f"{len(table):,}; Wilson interval over the reference sample",
        unit="share",
        better="higher",
        reference=ceiling.recall,
        reference_n=len(train_s),
        reference_ci95=wilson_interval(int(ceiling.covered.sum()), len(ceiling.covered)),
        note=few,
    )
    precision = Metric(
        "cov_precision",
        found.precision if len(table) else None,
        len(found.precise),
        wilson_interval(int(found.precise.sum()), len(found.precise)),
        f"share of the set near the reference sample; {shared}; crystals without fingerprint count as far away; "
        "Wilson interval",
        unit="share",
        better="higher",
        reference=ceiling.precision,
        reference_n=len(train_s),
        reference_ci95=wilson_interval(int(ceiling.precise.sum()), len(ceiling.precise)),
        note="; ".join(filter(None, [note, few])),
        column="near_reference",
    )
    return [recall, precision]


# ---- Wasserstein distances ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Quantity:
    """A number that is compared: its name after ``w_``, its column, its unit, and where the reference has it."""

    name: str
    column: str
    unit: str
    of: Callable[[Numbers], np.ndarray]


_QUANTITIES = (
    _Quantity("density", "density", "g/cm³", lambda numbers: numbers.density),
    _Quantity("num_elements", "num_elements", "", lambda numbers: numbers.num_elements),
    _Quantity("num_atoms", "num_atoms_primitive", "", lambda numbers: numbers.num_atoms_primitive),
)


def number_metrics(table: pa.Table, context: Context) -> list[Metric]:
    """``w_density``, ``w_num_elements``, ``w_num_atoms`` and ``w_NAME`` of every number both sides state.

    Each once against the whole held-out part, once over valid crystals only where the validity of the crystals is
    known (``..._valid``, as published), and once against each source of a reference that has several (``...@SOURCE``).
    """
    if context.reference is None or not len(context.reference.held_out):
        return [not_measured(f"w_{q.name}", NO_REFERENCE, unit=q.unit, better="lower") for q in _QUANTITIES]
    known = numeric_properties(context.reference)
    shared = [n for n in known if _is_numeric(table, GIVEN + n)]
    quantities = [
        *_QUANTITIES,
        *(
            _Quantity(
                n,
                GIVEN + n,
                context.reference.store.manifest.properties[n].unit or "",
                lambda numbers, n=n: numbers.properties[n],  # type: ignore[misc]
            )
            for n in shared
        ),
    ]
    target = part_numbers(context, "held_out", properties=shared)
    train = part_numbers(context, "train", n=ceiling_size(table.num_rows, MOST_NUMBERS), properties=shared)
    metrics = []
    for quantity in quantities:
        values = as_numbers(table.column(quantity.column))
        compare = partial(_distance, quantity, context=context)
        metrics.append(compare(values, target, train))
        if (valid := _valid(table)) is not None:
            metrics.append(compare(np.where(valid, values, np.nan), target, train, suffix="_valid"))
        if len(target.sources) > 1:
            for source in target.sources:
                mine, theirs = target.of_source(source), train.of_source(source)
                if len(mine) >= FEW_OF_A_SOURCE and len(theirs):
                    metrics.append(compare(values, mine, theirs, suffix=f"@{source}"))
    return metrics


def _distance(
    quantity: _Quantity,
    values: np.ndarray,
    target: Numbers,
    train: Numbers,
    *,
    context: Context,
    suffix: str = "",
) -> Metric:
    name = f"w_{quantity.name}{suffix}"
    sample, wanted, ceiling = (_finite(v) for v in (values, quantity.of(target), quantity.of(train)))
    if not len(wanted):
        return not_measured(
            name, "the held-out part of the reference has no values", unit=quantity.unit, better="lower"
        )
    kind = {"": "", "_valid": ", crystals of valid structure and composition only"}.get(
        suffix, f", the part from {suffix[1:]} only"
    )
    assert context.reference is not None
    protocol = (
        f"first Wasserstein distance of {quantity.column.removeprefix(GIVEN)}{kind}, against {len(wanted):,} "
        f"crystals of the {context.reference.held_out_rule}; reference value: a training sample; centred bootstrap "
        "interval"
    )
    statistic = partial(_distance_to, reference=wanted)
    missing = len(values) - len(sample) if suffix != "_valid" else 0
    notes = [f"{missing:,} crystals have no value and are left out" if missing else ""]
    if len(sample):
        notes.append(f"a perfect set of this size has {expected_noise(wanted, len(sample)):.3g} on average")
    notes.append(small_sample_note(len(sample)))
    return Metric(
        name,
        statistic(sample) if len(sample) else None,
        len(sample),
        _interval(sample, wanted, context, name),
        protocol,
        unit=quantity.unit,
        better="lower",
        reference=statistic(ceiling) if len(ceiling) else None,
        reference_n=len(ceiling),
        reference_ci95=_interval(ceiling, wanted, context, name),
        note="; ".join(filter(None, notes)),
        column=quantity.column if suffix != "_valid" else "",
        statistic=statistic,
    )


def _distance_to(values: np.ndarray, *, reference: np.ndarray) -> float:
    return wasserstein_distance(np.asarray(values, dtype=np.float64), reference)


def _interval(
    sample: np.ndarray, wanted: np.ndarray, context: Context, name: str
) -> tuple[float, float] | None:
    if not len(sample):
        return None
    return wasserstein_interval(
        sample, wanted, rng=context.rng("bootstrap", name), resamples=context.settings.resamples
    )


def _valid(table: pa.Table) -> np.ndarray | None:
    """Whether each crystal has valid structure and composition, where that was judged before."""
    names = ("structurally_valid", "compositionally_valid")
    if any(name not in table.column_names for name in names):
        return None
    return np.all([as_numbers(table.column(name)) == 1 for name in names], axis=0)


# ---- features ----------------------------------------------------------------------------------------------


def feature_metrics(structure: np.ndarray, composition: np.ndarray, context: Context) -> list[Metric]:
    """Fréchet distances with their extrapolation, mean pairwise distances and Vendi scores of both fingerprints."""
    settings = context.settings
    has_reference = context.reference is not None and len(context.reference.held_out) > 0
    samples: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if has_reference:
        samples["target"] = part_fingerprints(context, "held_out", n=settings.reference_sample)
        samples["train"] = part_fingerprints(
            context, "train", n=ceiling_size(len(structure), settings.reference_sample)
        )
    metrics = []
    for place, (name, rows, cutoff) in enumerate(
        (
            ("structure", structure, settings.cov_structure_cutoff),
            ("composition", composition, settings.cov_composition_cutoff),
        )
    ):
        own = rows[~np.isnan(rows).any(axis=1)]
        target, train = (
            clean_rows(samples[k][place]) if has_reference else None for k in ("target", "train")
        )
        metrics += _frechet(name, own, target, train, context=context)
        metrics += spread_metrics(name, own, train, cutoff=cutoff, context=context)
    return metrics


def _frechet(
    name: str, own: np.ndarray, target: np.ndarray | None, train: np.ndarray | None, *, context: Context
) -> list[Metric]:
    keys = (f"frechet_{name}", f"frechet_{name}_extrapolated")
    if target is None or train is None:
        return [not_measured(key, NO_REFERENCE, better="lower") for key in keys]
    if min(len(own), len(target)) < FEWEST_FEATURES:
        note = f"needs {FEWEST_FEATURES} crystals with fingerprints on both sides"
        return [not_measured(key, note, better="lower") for key in keys]
    found = frechet_with_bias(own, target, rng=context.rng("frechet", name))
    ceiling = (
        frechet_with_bias(train, target, rng=context.rng("frechet train", name))
        if len(train) >= FEWEST_FEATURES
        else None
    )
    assert context.reference is not None
    shared = (
        f"squared Fréchet distance of the {found.num_features} numbers of the {name} fingerprint, against {found.m:,} "
        f"crystals of the {context.reference.held_out_rule}"
    )
    notes = (
        f"biased upwards by about {max(found.bias, 0):.3g} at these sizes; a perfect set of this size has "
        f"{found.split_half:.3g} (halves of the reference)",
        "intercept against 1/size (Chong and Forsyth 2020); may fall below 0 by noise",
    )
    protocols = (shared, f"{shared}, extrapolated to samples without end")
    ours = ((found.value, found.deviation), (found.unbiased, found.unbiased_deviation))
    theirs = (
        ((ceiling.value, ceiling.deviation), (ceiling.unbiased, ceiling.unbiased_deviation))
        if ceiling
        else (None, None)
    )
    lowest = (0.0, -np.inf)  # an extrapolated distance may be negative
    return [
        Metric(
            key,
            mine[0],
            found.n,
            normal_interval(*mine, low=low),
            f"{protocol}; reference value: a training sample; interval of 1.96 bootstrap standard deviations",
            better="lower",
            reference=yours[0] if yours else None,
            reference_n=len(train),
            reference_ci95=normal_interval(*yours, low=low) if yours else None,
            note="; ".join(filter(None, [note, small_sample_note(found.n)])),
        )
        for key, mine, yours, low, protocol, note in zip(keys, ours, theirs, lowest, protocols, notes)
    ]


# ---- shared ------------------------------------------------------------------------------------------------


def _finite(values: np.ndarray) -> np.ndarray:
    floats = np.asarray(values, dtype=np.float64)
    return floats[np.isfinite(floats)]


def _is_numeric(table: pa.Table, column: str) -> bool:
    if column not in table.column_names:
        return False
    kind = table.schema.field(column).type
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)
