"""The averages of the family ``distribution``: what each is, of which sample, with the reference value beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pyarrow as pa

from nucleate.crystal import space_group
from nucleate.data.property_values import as_numbers
from nucleate.evaluation.context import Context
from nucleate.evaluation.coverage import coverage
from nucleate.evaluation.distribution_reference import (
    MOST_NUMBERS,
    Numbers,
    element_presence,
    numeric_properties,
    part_fingerprints,
    part_numbers,
)
from nucleate.evaluation.diversity import diversity, gaussian_vendi_score, mean_pairwise_distance
from nucleate.evaluation.frechet import frechet_with_bias
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.statistics import small_sample_note, wilson_interval
from nucleate.evaluation.wasserstein import expected_noise, wasserstein_distance, wasserstein_interval

NO_REFERENCE = "needs a reference (--reference STORE)"
MOST_PAIRS = 2000
"""Most crystals whose pairwise distances are taken."""
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
        return [_missing(name, "share", "higher") for name in names]
    settings = context.settings
    cutoffs = {
        "structure_cutoff": settings.cov_structure_cutoff,
        "composition_cutoff": settings.cov_composition_cutoff,
    }
    target_s, target_c = part_fingerprints(context, "held_out", n=settings.reference_sample)
    train_s, train_c = part_fingerprints(
        context, "train", n=_ceiling_size(len(table), settings.reference_sample)
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
        return [_missing(f"w_{q.name}", q.unit, "lower") for q in _QUANTITIES]
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
    train = part_numbers(context, "train", n=_ceiling_size(table.num_rows, MOST_NUMBERS), properties=shared)
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
        return _missing(name, quantity.unit, "lower", note="the held-out part of the reference has no values")
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
            context, "train", n=_ceiling_size(len(structure), settings.reference_sample)
        )
    metrics = []
    for place, (name, rows, cutoff) in enumerate(
        (
            ("structure", structure, settings.cov_structure_cutoff),
            ("composition", composition, settings.cov_composition_cutoff),
        )
    ):
        own = rows[~np.isnan(rows).any(axis=1)]
        target, train = (_clean(samples[k][place]) if has_reference else None for k in ("target", "train"))
        metrics += _frechet(name, own, target, train, context=context)
        metrics += _spread(name, own, train, cutoff=cutoff, context=context)
    return metrics


def _frechet(
    name: str, own: np.ndarray, target: np.ndarray | None, train: np.ndarray | None, *, context: Context
) -> list[Metric]:
    keys = (f"frechet_{name}", f"frechet_{name}_extrapolated")
    if target is None or train is None:
        return [_missing(key, "", "lower") for key in keys]
    if min(len(own), len(target)) < FEWEST_FEATURES:
        note = f"needs {FEWEST_FEATURES} crystals with fingerprints on both sides"
        return [_missing(key, "", "lower", note=note) for key in keys]
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
    values = (
        (found.value, ceiling.value if ceiling else None),
        (found.unbiased, ceiling.unbiased if ceiling else None),
    )
    protocols = (shared, f"{shared}, extrapolated to samples without end")
    return [
        Metric(
            key,
            value,
            found.n,
            None,
            protocol,
            better="lower",
            reference=reference,
            reference_n=len(train),
            note="; ".join(filter(None, [note, small_sample_note(found.n)])),
        )
        for key, (value, reference), protocol, note in zip(keys, values, protocols, notes)
    ]


def _spread(
    name: str, own: np.ndarray, train: np.ndarray | None, *, cutoff: float, context: Context
) -> list[Metric]:
    def sample(rows: np.ndarray) -> np.ndarray:
        if len(rows) <= MOST_PAIRS:
            return rows
        chosen = context.rng("pairs", name, len(rows)).choice(len(rows), MOST_PAIRS, replace=False)
        return rows[np.sort(chosen)]

    mine = sample(own)
    theirs = None if train is None else sample(train)[: max(len(mine), 1)]
    few = small_sample_note(len(own))
    size = f"of {len(mine):,} crystals" if len(mine) < len(own) else "of all crystals"
    measures: tuple[tuple[str, Callable[[np.ndarray], float], str], ...] = (
        (
            f"{name}_diversity",
            mean_pairwise_distance,
            f"mean distance of pairs {size} in the {name} fingerprint (CDVAE)",
        ),
        (
            f"vendi_{name}",
            partial(gaussian_vendi_score, width=cutoff, largest=MOST_PAIRS),
            f"Vendi score {size}, similarity exp(-d²/2w²) of the {name} fingerprint with w = {cutoff:g}, the cut-off "
            "of coverage; grows with the size of the set",
        ),
    )
    return [
        Metric(
            key,
            measure(mine) if len(mine) > 1 else None,
            len(mine),
            None,
            f"{protocol}; reference value: a training sample",
            better="higher",
            reference=measure(theirs) if theirs is not None and len(theirs) > 1 else None,
            reference_n=0 if theirs is None else len(theirs),
            note=few,
        )
        for key, measure, protocol in measures
    ]


# ---- kinds: elements, groups, prototypes -------------------------------------------------------------------


def kind_metrics(table: pa.Table, context: Context) -> list[Metric]:
    """``effective_elements``, ``element_coverage`` and the same of space groups and prototypes."""
    has_reference = context.reference is not None and len(context.reference.held_out) > 0
    target = part_numbers(context, "held_out") if has_reference else None
    train = (
        part_numbers(context, "train", n=_ceiling_size(table.num_rows, MOST_NUMBERS))
        if has_reference
        else None
    )
    encoded = table.column("prototype_key").drop_null().to_pylist()
    groups = [_unmirrored(n) for n in table.column("space_group_number").drop_null().to_pylist()]
    metrics = []
    for name, word, own, of in (
        ("elements", "element", _elements_of(element_presence(table.column("elements"))), _elements),
        (
            "space_groups",
            "space_group",
            groups,
            lambda n: [_unmirrored(g) for g in n.space_group_number.tolist()],
        ),
        ("prototypes", "prototype", encoded, lambda n: n.prototype_key.tolist()),
    ):
        wanted = None if target is None else set(of(target))
        theirs = None if train is None else of(train)
        metrics += _kinds(
            name, word, own, wanted, theirs, n=table.num_rows, train_n=len(train) if train else 0
        )
    return metrics


def _kinds(
    name: str,
    word: str,
    own: Sequence[object],
    wanted: set[object] | None,
    theirs: Sequence[object] | None,
    *,
    n: int,
    train_n: int,
) -> list[Metric]:
    found = diversity(own, reference=wanted)
    ceiling = None if theirs is None else diversity(theirs, reference=wanted)
    few = small_sample_note(n)
    effective = Metric(
        f"effective_{name}",
        found.effective if found.n else None,
        n,
        None,
        f"exp of the Shannon entropy of the {name.replace('_', ' ')} (Miller-Madow), the number of equally frequent "
        "ones; grows with the size of the set; reference value: a training sample",
        better="",
        reference=ceiling.effective if ceiling else None,
        reference_n=train_n,
        note="; ".join(
            filter(
                None,
                [f"{found.distinct:,} occur, at least {found.unseen:,.0f} more would in a larger set", few],
            )
        ),
    )
    if wanted is None or found.coverage is None:
        return [effective, _missing(f"{word}_coverage", "share", "higher")]
    reached = Metric(
        f"{word}_coverage",
        found.coverage,
        n,
        None,
        f"share of the {len(wanted):,} {name.replace('_', ' ')} of the held-out part of the reference that occur; "
        "grows with the size of the set; reference value: a training sample",
        unit="share",
        better="higher",
        reference=ceiling.coverage if ceiling else None,
        reference_n=train_n,
        note=few,
    )
    return [effective, reached]


@cache
def _unmirrored(number: int) -> int:
    """The lower number of an enantiomorphic pair, the group itself otherwise: hands are not counted apart."""
    normalizer = space_group(number).normalizer
    return min(number, normalizer.mirror_partner) if normalizer.mirror is not None else number


def _elements(numbers: Numbers) -> list[int]:
    return _elements_of(numbers.elements)


def _elements_of(present: np.ndarray) -> list[int]:
    """One entry per element of each crystal."""
    return (np.nonzero(present)[1] + 1).tolist()


# ---- shared ------------------------------------------------------------------------------------------------


def _ceiling_size(n: int, most: int) -> int:
    """Size of the training sample beside a set of n: the same, so that both have the same bias."""
    return max(1, min(n, most))


def _missing(name: str, unit: str, better: str, *, note: str = NO_REFERENCE) -> Metric:
    return Metric(name, None, 0, None, "not measured", unit=unit, better=better, note=note)


def _finite(values: np.ndarray) -> np.ndarray:
    floats = np.asarray(values, dtype=np.float64)
    return floats[np.isfinite(floats)]


def _clean(rows: np.ndarray) -> np.ndarray:
    return rows[~np.isnan(rows).any(axis=1)]


def _is_numeric(table: pa.Table, column: str) -> bool:
    if column not in table.column_names:
        return False
    kind = table.schema.field(column).type
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)
