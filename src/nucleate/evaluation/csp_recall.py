"""How much of a test set a set of predictions recovers, whichever prediction was meant for whom."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.own_formats import store_cell
from nucleate.evaluation.packed_cells import PackedCells, reduced
from nucleate.evaluation.reduced_cell import ReducedCell
from nucleate.evaluation.reference import Reference

if TYPE_CHECKING:
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.context import Context

Rows = dict[int, list[int]]


def sample_numbers(target_rows: Sequence[int | None]) -> list[int | None]:
    """Which sample of its test structure each row is, from 0 in the order of the rows; None without one."""
    seen: dict[int, int] = defaultdict(int)
    numbers: list[int | None] = []
    for row in target_rows:
        numbers.append(None if row is None else seen[row])
        if row is not None:
            seen[row] += 1
    return numbers


def best_rms(
    predictions: Sequence[ReducedCell], targets: Sequence[ReducedCell], matcher: Matcher
) -> list[float | None]:
    """For each test structure the smallest rms displacement of any prediction that matches it, else None.

    The inner minimum of METRe and cRMSE (Martirossyan et al., "All that structure matches does not glitter",
    arXiv:2509.12178, 2025). With generated crystals g_i, references r_j and d(g, r) StructureMatcher's rms
    displacement, infinite where there is no match,

        METRe = 1/N_ref  sum_j  [ min_i d(g_i, r_j) < infinity ]          match everyone to reference
        cRMSE = 1/N_ref  sum_j  min( min_i d(g_i, r_j), stol )            an unmatched reference counts stol

    The match rate pairs g_j with r_j instead, and so counts a set of polymorphs of one formula as missed when the
    right ones come in another order, or as found when one of them is drawn again and again.
    """
    results: list[float | None] = []
    for target in targets:
        found = (matcher.best_match(prediction, target) for prediction in predictions)
        values = [match.rms for match in found if match is not None]
        results.append(min(values) if values else None)
    return results


def best_of_all(
    candidates: CandidateStore, table: pa.Table, numbers: Sequence[int | None], context: Context
) -> list[float | None]:
    """``best_rms`` of every test structure over the first k samples of all of them, on its first row.

    Only crystals of its reduced formula can match. Where a formula has one test structure, its own samples are all
    there are and their matches are known; the others are compared with all predictions of the formula.
    """
    settings = context.settings
    rows_of: Rows = defaultdict(list)
    target_rows, rms = table.column("csp_target_row").to_pylist(), table.column("csp_rms").to_pylist()
    for row, (target, number) in enumerate(zip(target_rows, numbers)):
        if target is not None and number is not None and number < settings.samples:
            rows_of[target].append(row)
    formula_of = _formulas(context.reference, list(rows_of)) if context.reference is not None else {}
    targets_of: dict[str, list[int]] = defaultdict(list)
    for target in rows_of:
        targets_of[formula_of[target]].append(target)
    predicted: dict[str, list[int]] = defaultdict(list)
    formulas = table.column("formula").to_pylist()
    encoded = table.column("is_encoded").to_pylist()
    for rows in rows_of.values():
        for row in rows:
            if encoded[row] and formulas[row] in targets_of:
                predicted[formulas[row]].append(row)

    result: list[float | None] = [None] * len(target_rows)
    shared = []
    for formula, targets in targets_of.items():
        own = {row for target in targets for row in rows_of[target]}
        if len(targets) > 1 or not own.issuperset(predicted[formula]):
            shared.append(formula)
            continue
        values = [
            rms[row] for row in rows_of[targets[0]] if rms[row] is not None and not math.isnan(rms[row])
        ]
        result[rows_of[targets[0]][0]] = min(values) if values else None
    work = partial(_compare, Matcher(settings.csp_ltol, settings.csp_stol, settings.csp_angle_tol))
    tasks = (_cells(candidates, context.reference, predicted[f], targets_of[f]) for f in shared)
    for formula, values in zip(shared, context.map(work, tasks)):
        for target, value in zip(targets_of[formula], values):
            result[rows_of[target][0]] = value
    return result


def _formulas(reference: Reference, rows: Sequence[int]) -> dict[int, str]:
    """Reduced formula of each row of the reference's store."""
    wanted = np.unique(np.array(rows, dtype=np.int64))
    batches = reference.store.whole().select(wanted).iter_batches(["formula"])
    return dict(zip(wanted.tolist(), (text for batch in batches for text in batch.column(0).to_pylist())))


def _cells(
    candidates: CandidateStore, reference: Reference | None, rows: Sequence[int], targets: Sequence[int]
) -> tuple[PackedCells, PackedCells]:
    given = [candidates[row].unit_cell for row in rows]
    store = None if reference is None else reference.store.whole()
    true = [] if store is None else [store_cell(store, row) for row in targets]
    return PackedCells.of([cell for cell in given if cell is not None]), PackedCells.of(true)


def _compare(matcher: Matcher, cells: tuple[PackedCells, PackedCells]) -> list[float | None]:
    predictions, targets = (reduced(pack).reduced_cells() for pack in cells)
    return best_rms(predictions, targets, matcher)
