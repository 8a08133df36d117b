"""Energies of predicted crystals beside those of the test structures they are predictions of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nucleate.evaluation.candidate import make_candidate
from nucleate.evaluation.column import Column
from nucleate.evaluation.context import Context
from nucleate.evaluation.family import load_family
from nucleate.evaluation.own_formats import store_cell
from nucleate.evaluation.reference import Reference

if TYPE_CHECKING:
    from nucleate.evaluation.candidate import Candidate

ENERGY_COLUMNS = (
    Column(
        "csp_energy_difference",
        pa.float64(),
        "Energy of the prediction minus the test structure's.",
        "eV/atom",
    ),
    Column("csp_energy_above_hull", pa.float64(), "The prediction's, from the same source.", "eV/atom"),
    Column("csp_target_energy_above_hull", pa.float64(), "The test structure's.", "eV/atom"),
    Column("csp_energy_source", pa.string(), "Where both come from: 'given' or the name of the potential."),
)
_QUANTITIES = ("energy_per_atom", "energy_above_hull")


def energy_columns(table: pa.Table, context: Context) -> dict[str, Sequence[Any]]:
    """The energy columns of the family; empty where no prediction has an energy.

    Two sources, never mixed within a row:

    - given: ``energy_per_atom`` with ``target_energy_per_atom``, and ``energy_above_hull`` with
      ``target_energy_above_hull``, that came along with the predictions;
    - where the metrics ``stability`` ran: the energies of the relaxed predictions, and the test structures
      relaxed in the same way with the same potential and placed against the same hull.
    """
    given = _given(table)
    if given is not None:
        own, true, source = *given, "given"
    elif "energy_per_atom" in table.column_names and table.column("energy_per_atom").drop_null():
        own = [_values(table, name) for name in _QUANTITIES]
        true = _computed(table, context)
        source = context.settings.potential
    else:
        return {}
    has_target = [row is not None for row in table.column("csp_target_row").to_pylist()]
    difference = [
        a - b if asked and a is not None and b is not None else None
        for asked, a, b in zip(has_target, own[0], true[0])
    ]
    # A prediction without an energy keeps that of its test structure: what was stable is then lost.
    known = [d is not None or b is not None for d, b in zip(difference, true[1])]
    return {
        "csp_energy_difference": difference,
        "csp_energy_above_hull": [a if asked else None for asked, a in zip(has_target, own[1])],
        "csp_target_energy_above_hull": [b if asked else None for asked, b in zip(has_target, true[1])],
        "csp_energy_source": [source if k and asked else None for k, asked in zip(known, has_target)],
    }


def _values(table: pa.Table, name: str) -> list[float | None]:
    if name not in table.column_names:
        return [None] * table.num_rows
    return [None if v is None else float(v) for v in table.column(name).to_pylist()]


def _given(table: pa.Table) -> tuple[list[list[float | None]], list[list[float | None]]] | None:
    names = [name for q in _QUANTITIES for name in (f"given.{q}", f"given.target_{q}")]
    numeric = [
        n
        for n in names
        if n in table.column_names
        and (pa.types.is_floating(t := table.schema.field(n).type) or pa.types.is_integer(t))
    ]
    pairs = [q for q in _QUANTITIES if {f"given.{q}", f"given.target_{q}"} <= set(numeric)]
    if not pairs:
        return None
    missing: list[float | None] = [None] * table.num_rows
    own = [_values(table, f"given.{q}") if q in pairs else missing for q in _QUANTITIES]
    true = [_values(table, f"given.target_{q}") if q in pairs else missing for q in _QUANTITIES]
    return own, true


def _computed(table: pa.Table, context: Context) -> list[list[float | None]]:
    """Energy per atom and above the hull of each row's test structure, by the family ``stability``."""
    target_rows = table.column("csp_target_row").to_pylist()
    wanted = sorted({row for row in target_rows if row is not None})
    chunk = load_family("stability").chunk
    chunks = [wanted[first : first + chunk] for first in range(0, len(wanted), chunk)]
    # Without its callbacks a context can travel to another process.
    plain = Context(context.reference, context.settings, context.seed, context.cache, context.subject)
    found: dict[int, dict[str, Any]] = {}
    for rows, results in zip(chunks, context.map(partial(_stability, plain), chunks)):
        found.update(zip(rows, results))
        context.report_progress(len(found), len(wanted), "energies of the test structures")
    return [[None if row is None else found[row].get(name) for row in target_rows] for name in _QUANTITIES]


def _stability(context: Context, rows: Sequence[int]) -> list[dict[str, Any]]:
    return load_family("stability").rows([_candidate(context.reference, row) for row in rows], context)


def _candidate(reference: Reference | None, row: int) -> Candidate:
    if reference is None:
        raise ValueError("test structures are records of a reference")
    store = reference.store.whole()
    return make_candidate(row, store_cell(store, row), id=store[row].id, file=store.location)
