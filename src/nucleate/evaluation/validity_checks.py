"""Every check of one crystal: what the rows of the family ``validity`` and ``nucleate validate`` say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nucleate.crystal.species import element_symbol
from nucleate.errors import InvalidStructureError
from nucleate.evaluation.bond_statistics import BondCounts, BondStatistics, bond_counts, judge_bonds
from nucleate.evaluation.bond_valence import instability_index
from nucleate.evaluation.column import Column
from nucleate.evaluation.composition_validity import charge_balance, smact_verdict
from nucleate.evaluation.structure_validity import (
    MAX_ELONGATION,
    MAX_VOLUME_SPREADS,
    MIN_LATTICE_VECTOR,
    cell_shape,
    density_check,
    is_structurally_valid,
    nearest_pair,
    volume_spreads,
)
from nucleate.evaluation.surroundings import Surroundings, surroundings

if TYPE_CHECKING:
    from nucleate.crystal.unit_cell import UnitCell
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.settings import Settings

CHECKS = (
    "structurally_valid",
    "pair_distances_ok",
    "density_ok",
    "volume_ok",
    "cell_shape_ok",
    "charge_ok",
)
"""Flags that a physically reasonable crystal has; ``nucleate validate`` fails one that lacks any."""

_HISTOGRAM = pa.list_(pa.int32())

COLUMNS = (
    Column("structurally_valid", pa.bool_(), "Distances of different sites and volume as CDVAE asks."),
    Column("compositionally_valid", pa.bool_(), "Passes the SMACT rule of CDVAE and its successors."),
    Column("smact_reason", pa.string(), "What decided the SMACT rule."),
    Column(
        "charge_class", pa.string(), "element, alloy, single_valence, mixed_valence, unbalanced or unknown."
    ),
    Column("oxidation_states", pa.string(), "The most plausible oxidation states that sum to zero."),
    Column("charge_ok", pa.bool_(), "Element, alloy, or some oxidation states sum to zero."),
    Column(
        "min_distance", pa.float64(), "Shortest distance of two atoms, an atom's own images included.", "Å"
    ),
    Column("min_distance_elements", pa.string(), "Elements of that pair."),
    Column(
        "min_distance_ratio",
        pa.float64(),
        "Smallest distance over the least that real crystals have for its elements.",
    ),
    Column("min_ratio_elements", pa.string(), "Elements of that pair."),
    Column("pair_distances_ok", pa.bool_(), "No pair of atoms is nearer than real ones of its elements."),
    Column("density_ok", pa.bool_(), "The density is between 0.5 and 25 g/cm³."),
    Column(
        "volume_spreads",
        pa.float64(),
        "Deviation of ln(volume per atom) from what the composition lets expect, in standard deviations.",
    ),
    Column("volume_ok", pa.bool_(), f"The volume is within {MAX_VOLUME_SPREADS:g} standard deviations."),
    Column("shortest_vector", pa.float64(), "Shortest lattice vector.", "Å"),
    Column("elongation", pa.float64(), "Longest over shortest vector of the reduced cell."),
    Column(
        "cell_shape_ok",
        pa.bool_(),
        f"Shortest lattice vector at least {MIN_LATTICE_VECTOR:g} Å, elongation at most {MAX_ELONGATION:g}.",
    ),
    Column("coordination_mean", pa.float64(), "Mean coordination number (Brunner's reciprocal gap)."),
    Column("num_isolated", pa.int32(), "Atoms without any neighbour within 2.6 (V/N)^(1/3)."),
    Column("min_bond_angle", pa.float64(), "Smallest angle between two bonds of an atom.", "°"),
    Column("instability_index", pa.float64(), "Global instability index of the bond valences.", "v.u."),
    Column("rare_bonds", pa.float64(), "Share of bonds whose length is rare (1 %) for its elements."),
    Column("rarest_bond", pa.string(), "The bond with the smallest tail probability."),
    Column("rarest_bond_tail", pa.float64(), "That probability, two-sided, among real crystals."),
    Column(
        "rare_coordination", pa.float64(), "Share of atoms with a coordination number rare for their element."
    ),
    Column(
        "rare_angles", pa.float64(), "Share of bond angles that are rare (1 %) by smallness at their element."
    ),
    Column("validity_problems", pa.string(), "Each failed check in words; empty where all pass."),
    Column("bond_histogram", _HISTOGRAM, "(pair, bin, count) of bond lengths.", public=False),
    Column("coordination_histogram", _HISTOGRAM, "(element, number, count) of atoms.", public=False),
    Column("angle_histogram", _HISTOGRAM, "(element, degree, count) of bond angles.", public=False),
)

JUDGED_COLUMNS = ("rare_bonds", "rarest_bond", "rarest_bond_tail", "rare_coordination", "rare_angles")
"""Columns that compare bonds with those of real crystals."""

HISTOGRAM_COLUMNS = ("bond_histogram", "coordination_histogram", "angle_histogram")
"""Columns that hold the fields of a crystal's ``BondCounts``, flattened."""


def check_candidate(candidate: Candidate, settings: Settings) -> dict[str, Any]:
    """Every check of one crystal that needs no reference, by column.

    Of a candidate that could not be read every flag is False and every number missing. One that was read but
    could not be encoded is judged by its cell.
    """
    cell = candidate.unit_cell
    if cell is None or not cell.num_atoms:
        return _failed(candidate.problem or "there are no atoms")
    try:
        return _checked(cell, surroundings(cell), settings)
    except InvalidStructureError as error:
        return {**_failed(str(error)), **_composition(cell)}


def _failed(problem: str) -> dict[str, Any]:
    flags = {c.name: False for c in COLUMNS if c.type == pa.bool_()}
    return {**flags, "validity_problems": problem}


def _counts(cell: UnitCell) -> dict[int, int]:
    return dict(sorted(Counter(cell.atomic_numbers.tolist()).items()))


def _composition(cell: UnitCell) -> dict[str, Any]:
    counts = _counts(cell)
    verdict, balance = smact_verdict(counts), charge_balance(counts)
    return {
        "compositionally_valid": verdict.valid,
        "smact_reason": verdict.reason,
        "charge_class": balance.kind,
        "oxidation_states": balance.states,
        "charge_ok": balance.ok,
    }


def _checked(cell: UnitCell, around: Surroundings, settings: Settings) -> dict[str, Any]:
    counts = _counts(cell)
    shortest, tightest = nearest_pair(around), nearest_pair(around, by_ratio=True)
    density, shape = density_check(counts, cell.volume), cell_shape(cell.lattice)
    spreads = volume_spreads(counts, cell.volume)
    composition = _composition(cell)
    histograms = bond_counts(around)
    _, angles = around.bond_angles()
    valid = is_structurally_valid(
        cell, around, min_distance=settings.min_distance, min_volume=settings.min_volume
    )
    problems = {
        "structurally_valid": "" if valid else _published_reason(cell, around, settings),
        "pair_distances_ok": ""
        if tightest.ratio >= 1
        else f"{tightest.elements} at {tightest.distance:.3f} Å, real ones keep at least "
        f"{tightest.least:.3f} Å",
        "density_ok": density.reason.rstrip("."),
        "volume_ok": ""
        if math.isnan(spreads) or abs(spreads) <= MAX_VOLUME_SPREADS
        else f"the volume per atom is {spreads:+.1f} standard deviations from what the composition lets expect",
        "cell_shape_ok": shape.reason,
        "charge_ok": ""
        if composition["charge_ok"]
        else f"no oxidation states of {_formula(counts)} sum to zero",
    }
    return {
        **{name: not reason for name, reason in problems.items()},
        **composition,
        "min_distance": shortest.distance,
        "min_distance_elements": shortest.elements,
        "min_distance_ratio": _finite(tightest.ratio),
        "min_ratio_elements": tightest.elements,
        "volume_spreads": _finite(spreads),
        "shortest_vector": shape.shortest,
        "elongation": shape.elongation,
        "coordination_mean": float(around.coordination.mean()),
        "num_isolated": int((around.coordination == 0).sum()),
        "min_bond_angle": float(angles.min()) if len(angles) else None,
        "instability_index": _finite(instability_index(around, charge_balance(counts).mean_states)),
        "validity_problems": "; ".join(filter(None, problems.values())),
        "bond_histogram": histograms.bonds.ravel().tolist(),
        "coordination_histogram": histograms.coordination.ravel().tolist(),
        "angle_histogram": histograms.angles.ravel().tolist(),
    }


def _published_reason(cell: UnitCell, around: Surroundings, settings: Settings) -> str:
    if cell.volume < settings.min_volume:
        return f"the cell has {cell.volume:.3g} Å³, less than {settings.min_volume:g} Å³"
    nearest = nearest_pair(around, own_images=False)
    return f"two sites ({nearest.elements}) are {nearest.distance:.3g} Å apart, less than {settings.min_distance:g} Å"


def _formula(counts: Mapping[int, int]) -> str:
    return "".join(f"{element_symbol(z)}{n if n > 1 else ''}" for z, n in counts.items())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def judged_bonds(row: Mapping[str, Any], statistics: BondStatistics) -> dict[str, Any]:
    """The columns that compare a crystal's bonds with real ones, from its row of ``check_candidate``."""
    if row.get("bond_histogram") is None:
        return dict.fromkeys(JUDGED_COLUMNS)
    judgement = judge_bonds(_bond_counts(row), statistics)
    return {
        "rare_bonds": _finite(judgement.rare_bonds),
        "rarest_bond": judgement.rarest_bond,
        "rarest_bond_tail": _finite(judgement.smallest_tail),
        "rare_coordination": _finite(judgement.rare_coordination),
        "rare_angles": _finite(judgement.rare_angles),
    }


def _bond_counts(row: Mapping[str, Any]) -> BondCounts:
    return BondCounts(*(np.array(row[name], dtype=np.int64).reshape(-1, 3) for name in HISTOGRAM_COLUMNS))
