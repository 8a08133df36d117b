"""Averages of stability: shares of stable and metastable crystals, S.U.N., failed relaxations, energies.

Definitions, equations and pitfalls: ``docs/energetics.md``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from nucleate.evaluation.metric import Metric, not_measured
from nucleate.evaluation.statistics import mean_metric, numbers, proportion, small_sample_note
from nucleate.evaluation.wasserstein import expected_noise, wasserstein_distance, wasserstein_interval

if TYPE_CHECKING:
    from nucleate.evaluation.context import Context

KNOWN, UNKNOWN, FAILED, UNREADABLE = "known", "unknown chemistry", "relaxation failed", "not encoded"
"""Values of the column ``stability_status``."""


def stability_metrics(table: pa.Table, context: Context, protocol: str) -> list[Metric]:
    """The averages of the family's columns.

    Args:
        table: one row per crystal.
        context: what the evaluation is about.
        protocol: what energies and hull are.
    """
    counted = "crystals that could not be read, encoded or relaxed count as not stable; unknown chemistry is left out"
    status = np.array(table.column("stability_status").to_pylist(), dtype=object)
    above = np.array(
        [math.nan if v is None else v for v in table.column("energy_above_hull").to_pylist()], dtype=float
    )
    unknown = status == UNKNOWN
    metrics = [
        proportion(
            "relaxation_converged",
            table.column("relaxed").to_pylist(),
            protocol=f"{protocol}; crystals that could not be read or encoded count against the set, those with an "
            "element the potential has no reference for are left out",
            column="relaxed",
        ),
        proportion(
            "stability_unknown",
            unknown.tolist(),
            protocol="an element without a reference, or no compound in any subsystem of the crystal's elements",
            better="lower",
        ),
        mean_metric(
            "hull_coverage",
            table.column("hull_coverage").to_pylist(),
            protocol="share of a crystal's subsystems of two or more elements with entries in the hull",
            unit="share",
            better="higher",
            seed=context.seed,
            resamples=context.settings.resamples,
            column="hull_coverage",
        ),
        mean_metric(
            "energy_above_hull",
            above,
            protocol=f"median over crystals whose energy is known; {protocol}",
            unit="eV/atom",
            better="lower",
            seed=context.seed,
            resamples=context.settings.resamples,
            column="energy_above_hull",
            statistic=np.median,
        ),
        mean_metric(
            "rmsd_to_relaxed",
            table.column("rmsd_to_relaxed").to_pylist(),
            protocol=f"atoms one to one, without common translation and without the change of the cell; {protocol}",
            unit="Å",
            better="lower",
            seed=context.seed,
            resamples=context.settings.resamples,
            column="rmsd_to_relaxed",
        ),
    ]
    left_out = int(unknown.sum())
    unjudged = f"{left_out:,} of {len(status):,} crystals are of unknown chemistry" if left_out else ""
    sun = _unique_and_novel(table)
    symmetric = np.array([(g or 0) > 1 for g in table.column("relaxed_space_group").to_pylist()])
    for threshold in context.settings.hull_thresholds:
        stable = above <= threshold + 1e-9
        metrics.append(
            proportion(
                f"stable_{threshold:g}",
                _flags(stable, unknown),
                protocol=f"energy above hull <= {threshold:g} eV/atom; {protocol}; {counted}",
                note=unjudged,
            )
        )
        for name, mask, word in (
            ("sun", np.ones_like(symmetric), "stable, unique and novel"),
            ("ssun", symmetric, "symmetric (relaxed group above P1 at 0.01 Å), stable, unique and novel"),
        ):
            text = f"{word}: energy above hull <= {threshold:g} eV/atom; {protocol}; {counted}"
            if sun is None:
                note = "needs uniqueness and novelty: run the metrics 'novelty' with a reference as well"
                metrics.append(
                    Metric(
                        f"{name}_{threshold:g}", None, 0, None, text, unit="share", better="higher", note=note
                    )
                )
            else:
                flags = _flags(stable & sun & mask, unknown)
                metrics.append(proportion(f"{name}_{threshold:g}", flags, protocol=text, note=unjudged))
    return [*metrics, *_energy_distance(table, context, protocol), *_dft_metrics(table, context)]


def _energy_distance(table: pa.Table, context: Context, protocol: str) -> list[Metric]:
    """``w_formation_energy``: distance of the relaxed formation energies from those of the held-out sample."""
    held_out = context.held_out_rows
    if held_out is None or "formation_energy" not in held_out.column_names:
        return []
    ours, theirs = (numbers(t.column("formation_energy").to_pylist()) for t in (table, held_out))
    if not len(ours) or not len(theirs):
        note = "a formation energy is known of no crystal of the set, or of the held-out sample"
        return [not_measured("w_formation_energy", note, unit="eV/atom", better="lower")]
    missing = table.num_rows - len(ours)
    notes = (
        f"{missing:,} crystals have no energy and are left out" if missing else "",
        f"a perfect set of this size has {expected_noise(theirs, len(ours)):.3g} on average",
        small_sample_note(len(ours)),
    )
    return [
        Metric(
            "w_formation_energy",
            wasserstein_distance(ours, theirs),
            len(ours),
            wasserstein_interval(
                ours,
                theirs,
                rng=context.rng("bootstrap", "w_formation_energy"),
                resamples=context.settings.resamples,
            ),
            "first Wasserstein distance of formation energies per atom from those of the "
            f"{len(theirs):,} held-out crystals that have one, above the elements of the same potential; {protocol}; "
            "centred bootstrap interval",
            unit="eV/atom",
            better="lower",
            note="; ".join(filter(None, notes)),
            column="formation_energy",
            statistic=lambda values: wasserstein_distance(np.asarray(values, dtype=np.float64), theirs),
        )
    ]


def _flags(values: np.ndarray, unknown: np.ndarray) -> list[bool | None]:
    return [None if u else bool(v) for v, u in zip(values, unknown)]


def _unique_and_novel(table: pa.Table) -> np.ndarray | None:
    """Which crystals are unique and novel; None where that was not found out."""
    if not {"unique", "novel"} <= set(table.column_names):
        return None
    unique, novel = (table.column(name).to_pylist() for name in ("unique", "novel"))
    if all(value is None for value in novel):
        return None
    return np.array([bool(u) and bool(n) for u, n in zip(unique, novel)])


def _dft_metrics(table: pa.Table, context: Context) -> list[Metric]:
    """Stable shares by the DFT hull energies that came along, apart from everything computed here."""
    given = table.column("dft_energy_above_hull").to_pylist()
    if all(value is None for value in given):
        return []
    return [
        proportion(
            f"dft_stable_{threshold:g}",
            [None if value is None else value <= threshold + 1e-9 for value in given],
            protocol=f"energy above hull as given with the crystal <= {threshold:g} eV/atom, whatever hull that is; "
            "crystals without it are left out",
        )
        for threshold in context.settings.hull_thresholds
    ]
