"""The averages of diversity: spread of the fingerprints, and kinds of elements, groups and prototypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from nucleate.crystal import space_group
from nucleate.evaluation.context import Context
from nucleate.evaluation.distribution_reference import (
    MOST_NUMBERS,
    NO_REFERENCE,
    Numbers,
    ceiling_size,
    element_presence,
    part_numbers,
)
from nucleate.evaluation.diversity import (
    diversity,
    entropy_deviation,
    gaussian_vendi_score,
    mean_pairwise_distance,
)
from nucleate.evaluation.metric import Metric, not_measured
from nucleate.evaluation.statistics import normal_interval, small_sample_note, wilson_interval

MOST_PAIRS = 2000
"""Most crystals whose pairwise distances are taken."""

Measured = tuple[float, tuple[float, float] | None]


# ---- fingerprints ------------------------------------------------------------------------------------------


def spread_metrics(
    name: str, own: np.ndarray, train: np.ndarray | None, *, cutoff: float, context: Context
) -> list[Metric]:
    """``NAME_diversity`` (mean distance of pairs) and ``vendi_NAME`` of a fingerprint.

    Args:
        name: of the fingerprint.
        own: rows of the set.
        train: rows of a training sample of the reference; None without one.
        cutoff: cut-off of coverage, the width of the similarity.
        context: what the evaluation is about.
    """

    def sample(rows: np.ndarray) -> np.ndarray:
        if len(rows) <= MOST_PAIRS:
            return rows
        chosen = context.rng("pairs", name, len(rows)).choice(len(rows), MOST_PAIRS, replace=False)
        return rows[np.sort(chosen)]

    mine = sample(own)
    theirs = None if train is None else sample(train)[: max(len(mine), 1)]
    size = f"of {len(mine):,} crystals" if len(mine) < len(own) else "of all crystals"
    measures: tuple[tuple[str, Callable[[np.ndarray], Measured], str], ...] = (
        (
            f"{name}_diversity",
            _pairs,
            f"mean distance of pairs {size} in the {name} fingerprint (CDVAE); jackknife interval",
        ),
        (
            f"vendi_{name}",
            lambda rows: _vendi(rows, cutoff),
            f"Vendi score {size}, similarity exp(-d²/2w²) of the {name} fingerprint with w = {cutoff:g}, the cut-off "
            "of coverage; grows with the size of the set; interval by the delta method",
        ),
    )
    metrics = []
    for key, measure, protocol in measures:
        value, ends = measure(mine) if len(mine) > 1 else (None, None)
        ceiling, ceiling_ends = measure(theirs) if theirs is not None and len(theirs) > 1 else (None, None)
        metrics.append(
            Metric(
                key,
                value,
                len(mine),
                ends,
                f"{protocol}; reference value: a training sample",
                better="higher",
                reference=ceiling,
                reference_n=0 if theirs is None else len(theirs),
                reference_ci95=ceiling_ends,
                note=small_sample_note(len(own)),
            )
        )
    return metrics


def _pairs(rows: np.ndarray) -> Measured:
    mean, deviation = mean_pairwise_distance(rows)
    return mean, normal_interval(mean, deviation, low=0.0)


def _vendi(rows: np.ndarray, width: float) -> Measured:
    found = gaussian_vendi_score(rows, width=width, largest=MOST_PAIRS)
    return found.value, _of_logarithm(found.value, found.deviation, len(rows))


def _of_logarithm(value: float, deviation: float, n: int) -> tuple[float, float] | None:
    """Interval of an effective number of n things from the deviation of its logarithm."""
    ends = normal_interval(float(np.log(value)), deviation)
    return None if ends is None else (max(1.0, float(np.exp(ends[0]))), min(float(n), float(np.exp(ends[1]))))


# ---- kinds: elements, groups, prototypes -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Kinds:
    """Kinds that crystals have: ``kinds[i]`` is one of the crystal ``owners[i]``."""

    kinds: Sequence[int | str]
    owners: Sequence[int]

    @staticmethod
    def single(kinds: Sequence[int | str]) -> _Kinds:
        """One kind per crystal."""
        return _Kinds(kinds, range(len(kinds)))

    @staticmethod
    def elements(present: np.ndarray) -> _Kinds:
        """The elements of each row of a table of presence, column Z - 1."""
        rows, columns = np.nonzero(present)
        return _Kinds((columns + 1).tolist(), rows.tolist())


def kind_metrics(table: pa.Table, context: Context) -> list[Metric]:
    """``effective_elements``, ``element_coverage`` and the same of space groups and prototypes."""
    has_reference = context.reference is not None and len(context.reference.held_out) > 0
    target = part_numbers(context, "held_out") if has_reference else None
    train = (
        part_numbers(context, "train", n=ceiling_size(table.num_rows, MOST_NUMBERS))
        if has_reference
        else None
    )
    groups = [_unmirrored(n) for n in table.column("space_group_number").drop_null().to_pylist()]
    prototypes = table.column("prototype_key").drop_null().to_pylist()
    quantities: tuple[tuple[str, str, _Kinds, Callable[[Numbers], _Kinds]], ...] = (
        ("elements", "element", _Kinds.elements(element_presence(table.column("elements"))), _elements),
        ("space_groups", "space_group", _Kinds.single(groups), _groups),
        ("prototypes", "prototype", _Kinds.single(prototypes), _prototypes),
    )
    metrics = []
    for name, word, own, of in quantities:
        wanted = None if target is None else set(of(target).kinds)
        theirs = None if train is None else of(train)
        train_n = len(train) if train is not None else 0
        metrics += _kinds(name, word, own, wanted, theirs, n=table.num_rows, train_n=train_n)
    return metrics


def _elements(numbers: Numbers) -> _Kinds:
    return _Kinds.elements(numbers.elements)


def _groups(numbers: Numbers) -> _Kinds:
    return _Kinds.single([_unmirrored(g) for g in numbers.space_group_number.tolist()])


def _prototypes(numbers: Numbers) -> _Kinds:
    return _Kinds.single(numbers.prototype_key.tolist())


@cache
def _unmirrored(number: int) -> int:
    """The lower number of an enantiomorphic pair, the group itself otherwise: hands are not counted apart."""
    normalizer = space_group(number).normalizer
    return min(number, normalizer.mirror_partner) if normalizer.mirror is not None else number


def _kinds(
    name: str,
    word: str,
    own: _Kinds,
    wanted: set[int | str] | None,
    theirs: _Kinds | None,
    *,
    n: int,
    train_n: int,
) -> list[Metric]:
    found = diversity(own.kinds, reference=wanted)
    ceiling = None if theirs is None else diversity(theirs.kinds, reference=wanted)
    few, plural = small_sample_note(n), name.replace("_", " ")
    counted = f"{found.distinct:,} occur, at least {found.unseen:,.0f} more would in a larger set"
    effective = Metric(
        f"effective_{name}",
        found.effective if found.n else None,
        n,
        _effective_interval(own, found.effective),
        f"exp of the Shannon entropy of the {plural} (Miller-Madow), the number of equally frequent ones; grows with "
        "the size of the set; reference value: a training sample; interval by the delta method over crystals",
        reference=ceiling.effective if ceiling else None,
        reference_n=train_n,
        reference_ci95=None
        if theirs is None or ceiling is None
        else _effective_interval(theirs, ceiling.effective),
        note="; ".join(filter(None, [counted, few])),
    )
    if wanted is None or found.coverage is None:
        return [effective, not_measured(f"{word}_coverage", NO_REFERENCE, unit="share", better="higher")]
    reached = Metric(
        f"{word}_coverage",
        found.coverage,
        n,
        _coverage_interval(found.coverage, len(wanted)),
        f"share of the {len(wanted):,} {plural} of the held-out part of the reference that occur; grows with the size "
        f"of the set; reference value: a training sample; Wilson interval over the {plural}",
        unit="share",
        better="higher",
        reference=ceiling.coverage if ceiling else None,
        reference_n=train_n,
        reference_ci95=_coverage_interval(ceiling.coverage if ceiling else None, len(wanted)),
        note=few,
    )
    return [effective, reached]


def _effective_interval(found: _Kinds, effective: float) -> tuple[float, float] | None:
    if not len(found.kinds):
        return None
    deviation = entropy_deviation(found.kinds, owners=found.owners)
    return _of_logarithm(effective, deviation, len(found.kinds))


def _coverage_interval(share: float | None, wanted: int) -> tuple[float, float] | None:
    return None if share is None else wilson_interval(round(share * wanted), wanted)
