"""Averages of crystal structure prediction: by test structure, not by crystal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nucleate.evaluation.metric import Metric
from nucleate.evaluation.novelty import matcher_protocol
from nucleate.evaluation.statistics import mean_metric, proportion

if TYPE_CHECKING:
    from nucleate.evaluation.context import Context

NO_TARGETS = (
    "no crystal names a test structure of the reference: give a column target_id, or ids such as mp-1234_0 for "
    "samples of mp-1234"
)
ATOMS = ((1, 5), (6, 10), (11, 20), (21, 52), (53, None))
FREE_COORDS = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, None))
ENOUGH = 20  # test structures of a space group that has a rate of its own
ERRORS = {
    "csp_coordinates_mse": ("Å²", "squared displacement of paired sites"),
    "csp_bonds_mse": ("Å²", "squared error of the lengths of the test structure's bonds (Brunner)"),
    "csp_lengths_mse": ("Å²", "squared error of a, b, c in the matched basis, not rescaled"),
    "csp_angles_mse": ("°²", "squared error of alpha, beta, gamma in the matched basis"),
}


@dataclass(frozen=True, eq=False)
class TargetScore:
    """A test structure and what its samples came to.

    Attributes:
        row: of the test structure in the reference.
        atoms, group, system, free_coords: of the test structure.
        rms: of each sample in order, NaN where it does not match.
        valid: whether each sample and the test structure are valid.
        recall: smallest rms of any prediction of the set, NaN without one.
    """

    row: int
    atoms: int
    group: int
    system: str
    free_coords: int
    rms: np.ndarray
    valid: np.ndarray
    recall: float

    def best(self, samples: int) -> float:
        """Smallest rms of the first ``samples`` samples, NaN where none of them matches."""
        chosen = self.rms[:samples]
        return float(np.nanmin(chosen)) if (~np.isnan(chosen)).any() else float("nan")


def target_scores(table: pa.Table) -> list[TargetScore]:
    """The test structures that the rows name, in the order in which they are first named."""
    names = ("atoms", "group", "system", "free_coords")
    columns = {name: table.column(f"csp_target_{name}").to_pylist() for name in names}
    rms, valid = table.column("csp_rms").to_pylist(), table.column("csp_valid").to_pylist()
    recall = table.column("csp_recall_rms").to_pylist()
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, target in enumerate(table.column("csp_target_row").to_pylist()):
        if target is not None:
            rows_of[target].append(row)
    return [
        TargetScore(
            row=target,
            **{name: columns[name][rows[0]] for name in names},
            rms=np.array([np.nan if rms[row] is None else rms[row] for row in rows]),
            valid=np.array([bool(valid[row]) for row in rows]),
            recall=np.nan if recall[rows[0]] is None else recall[rows[0]],
        )
        for target, rows in rows_of.items()
    ]


def csp_metrics(table: pa.Table, context: Context) -> list[Metric]:
    """All averages of the family; ``match_rate`` and its kin with the reason where nothing can be measured."""
    settings = context.settings
    criterion = matcher_protocol(settings.csp_ltol, settings.csp_stol, settings.csp_angle_tol)
    found = [] if context.reference is None else target_scores(table)
    if not found:
        note = "no reference was named" if context.reference is None else NO_TARGETS
        names = ("match_rate", "match_rmse", "match_rmse_all", "metre", "crmse")
        return [Metric(name, None, 0, None, protocol=criterion, note=note) for name in names]
    asked = f"test structures named by the set; {criterion}"
    metrics = [
        *_one_and_many(found, settings.samples, settings.csp_stol, asked, settings.resamples, context.seed),
        *_recall(found, settings.samples, settings.csp_stol, asked, settings.resamples, context.seed),
        *_by_kind(found, asked),
        *_errors(table, asked, settings.resamples, context.seed),
        *_energies(table, asked, context),
    ]
    unasked = unasked_note(found, context)
    return [replace(m, note="; ".join(filter(None, [unasked, m.note]))) for m in metrics]


def unasked_note(found: Sequence[TargetScore], context: Context) -> str:
    """How many held-out records no row of the set names: of a whole test set they are missing predictions."""
    if context.reference is None:
        return ""
    held_out = context.reference.held_out.rows
    named = int(np.isin(held_out, [t.row for t in found]).sum())
    if named in (0, len(held_out)):
        return ""  # predictions of other records, or of all
    return (
        f"{named:,} of {len(held_out):,} held-out records are named, the others are not counted: say with --targets "
        "what was asked for"
    )


def _one_and_many(
    found: Sequence[TargetScore], k: int, stol: float, asked: str, resamples: int, seed: int
) -> list[Metric]:
    first = np.array([t.best(1) for t in found])
    valid = np.array([t.best(1) if t.valid[0] else np.nan for t in found])
    trials = [not np.isnan(rms) for t in found for rms in t.rms]
    counted = "crystals that could not be read or encoded count as not matched"
    rules: dict[str, tuple[np.ndarray, str]] = {
        "": (first, f"first sample of each; {asked}; {counted}"),
        "_valid": (valid, f"first sample of each, matched only if both are valid (CDVAE's checks); {asked}"),
    }
    if k > 1:
        few = sum(len(t.rms) < k for t in found)
        have = f", {few:,} of them with fewer samples" if few else ""
        best = np.array([t.best(k) for t in found])
        rules[f"_best_of_{k}"] = best, f"best of the first {k} samples of each{have}; {asked}; {counted}"
    metrics = []
    for suffix, (rms, protocol) in rules.items():
        matched = ~np.isnan(rms)
        filled = np.where(matched, rms, stol)
        metrics += [
            proportion(f"match_rate{suffix}", matched, protocol=protocol, answers=_by_target(found, matched)),
            mean_metric(
                f"match_rmse{suffix}",
                rms[matched],
                protocol=f"mean over matched test structures of the rms displacement, in (V/N)^(1/3); {protocol}",
                better="lower",
                seed=seed,
                resamples=resamples,
                answers=_by_target(found, rms),
            ),
            mean_metric(
                f"match_rmse_all{suffix}",
                filled,
                protocol=f"mean over all test structures, {stol:g} where unmatched; {protocol}",
                better="lower",
                seed=seed,
                resamples=resamples,
                answers=_by_target(found, filled),
            ),
        ]
    per_trial = proportion(
        "match_rate_per_sample", trials, protocol=f"share of all samples that match; {asked}"
    )
    return [*metrics, per_trial]


def _recall(
    found: Sequence[TargetScore], k: int, stol: float, asked: str, resamples: int, seed: int
) -> list[Metric]:
    rms = np.array([t.recall for t in found])
    matched = ~np.isnan(rms)
    everyone = (
        f"any prediction of the set, first {k} samples of each test structure (arXiv:2509.12178); {asked}"
    )
    filled = np.where(matched, np.minimum(rms, stol), stol)
    return [
        proportion(
            "metre",
            matched,
            protocol=f"share of test structures matched by {everyone}",
            answers=_by_target(found, matched),
        ),
        mean_metric(
            "crmse",
            filled,
            protocol=f"mean over test structures of the smallest rms of {everyone}; {stol:g} where unmatched",
            better="lower",
            seed=seed,
            resamples=resamples,
            answers=_by_target(found, filled),
        ),
    ]


def _by_target(found: Sequence[TargetScore], values: np.ndarray) -> dict[Hashable, float]:
    """The value of each test structure, for comparing two sets test structure by test structure."""
    return {target.row: float(value) for target, value in zip(found, values)}


def _by_kind(found: Sequence[TargetScore], asked: str) -> list[Metric]:
    groups: dict[str, list[TargetScore]] = {}
    for low, high in ATOMS:
        groups[f"atoms_{low}_{high or 'more'}"] = [t for t in found if _inside(t.atoms, low, high)]
    for system in sorted({t.system for t in found}):
        groups[system] = [t for t in found if t.system == system]
    numbers = Counter(t.group for t in found)
    for number in sorted(n for n, count in numbers.items() if count >= ENOUGH):
        groups[f"group_{number}"] = [t for t in found if t.group == number]
    for low, high in FREE_COORDS:
        name = f"free_{low}" if high == low else f"free_{low}_{high or 'more'}"
        groups[name] = [t for t in found if _inside(t.free_coords, low, high)]
    return [
        proportion(
            f"match_rate_{name}",
            [not np.isnan(t.best(1)) for t in members],
            protocol=f"first sample of each; {asked}",
        )
        for name, members in groups.items()
        if members
    ]


def _inside(value: int, low: int, high: int | None) -> bool:
    return low <= value and (high is None or value <= high)


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def _first_samples(table: pa.Table) -> np.ndarray:
    return _numbers(table.column("csp_sample").to_pylist()) == 0


def _errors(table: pa.Table, asked: str, resamples: int, seed: int) -> list[Metric]:
    first = _first_samples(table)
    metrics = []
    for name, (unit, what) in ERRORS.items():
        values = _numbers(table.column(name).to_pylist())
        metrics.append(
            mean_metric(
                name,
                values[first & ~np.isnan(values)],
                protocol=f"mean {what}, over first samples that match; {asked}",
                unit=unit,
                better="lower",
                resamples=resamples,
                seed=seed,
            )
        )
    return metrics


def _energies(table: pa.Table, asked: str, context: Context) -> list[Metric]:
    difference = _numbers(table.column("csp_energy_difference").to_pylist())
    own = _numbers(table.column("csp_energy_above_hull").to_pylist())
    true = _numbers(table.column("csp_target_energy_above_hull").to_pylist())
    first = _first_samples(table)
    sources = sorted({s for s in table.column("csp_energy_source").to_pylist() if s})
    origin = f"energies: {', '.join(sources)}; first samples; {asked}"
    metrics = []
    chosen = difference[first & ~np.isnan(difference)]
    if len(chosen):
        metrics += [
            mean_metric(
                "csp_energy_difference",
                chosen,
                protocol=f"mean of prediction minus test structure; {origin}",
                unit="eV/atom",
                better="lower",
                resamples=context.settings.resamples,
                seed=context.seed,
            ),
            mean_metric(
                "csp_energy_error",
                np.abs(chosen),
                protocol=f"mean absolute difference; {origin}",
                unit="eV/atom",
                better="lower",
                resamples=context.settings.resamples,
                seed=context.seed,
            ),
        ]
    known = first & ~np.isnan(true)
    for threshold in context.settings.hull_thresholds if known.any() else ():
        stable = known & (true <= threshold + 1e-9)
        metrics.append(
            proportion(
                f"csp_stability_loss_{threshold:g}",
                ~(own[stable] <= threshold + 1e-9),  # also where there is no energy
                protocol=f"share of test structures within {threshold:g} eV/atom of the hull whose prediction is not, "
                f"or has no energy (not encoded, relaxation failed); {origin}",
                better="lower",
            )
        )
    return metrics
