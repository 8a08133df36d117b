"""Match rates of crystal structure prediction by the kind of test structure, as a chart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from nucleate.evaluation.chart import Chart, Series
from nucleate.evaluation.csp_summary import ATOMS, FREE_COORDS
from nucleate.evaluation.statistics import wilson_interval

_SYSTEMS = ("cubic", "hexagonal", "trigonal", "tetragonal", "orthorhombic", "monoclinic", "triclinic")


def match_charts(table: pa.Table) -> list[Chart]:
    """Share of test structures that are matched by atoms, free coordinates and crystal system; one chart or none.

    Each test structure counts once: by its first sample, and by any of its samples where there are several.
    """
    needed = ("csp_target", "csp_match", "csp_sample", "csp_target_atoms", "csp_target_free_coords")
    if not {*needed, "csp_target_system"} <= set(table.column_names):
        return []
    targets = _targets(table.select([*needed, "csp_target_system"]).to_pylist())
    if not targets:
        return []
    strata: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [("all", lambda target: True)]
    strata += [(f"{_range(low, high)} atoms", _between("atoms", low, high)) for low, high in ATOMS]
    strata += [
        (f"{_range(low, high)} free coordinates", _between("free", low, high)) for low, high in FREE_COORDS
    ]
    strata += [(system, _equal("system", system)) for system in _SYSTEMS]
    rows = []
    for label, belongs in strata:
        members = [target for target in targets if belongs(target)]
        if members:
            rows.append((f"{label} (n = {len(members):,})", members))
    kinds = [("first sample", "first")]
    samples = max(target["samples"] for target in targets)
    if samples > 1:
        kinds.append((f"best of {samples}", "any"))
    series = [
        _series(name, [[target[key] for target in members] for _, members in rows]) for name, key in kinds
    ]
    return [
        Chart(
            name="csp_strata",
            title="Crystal structure prediction",
            subtitle=f"share of {len(targets):,} test structures that are matched, with 95 % intervals",
            kind="intervals",
            x_label="match rate (%)",
            y_label="",
            series=tuple(series),
            labels=tuple(label for label, _ in reversed(rows)),
        )
    ]


def _targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per test structure: its kind, and whether its first and any of its samples match."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["csp_target"] is None:
            continue
        target = found.setdefault(
            row["csp_target"],
            {
                "atoms": row["csp_target_atoms"],
                "free": row["csp_target_free_coords"],
                "system": row["csp_target_system"],
                "first": False,
                "any": False,
                "samples": 0,
            },
        )
        match = bool(row["csp_match"])
        target["samples"] += 1
        target["any"] |= match
        if not row["csp_sample"]:
            target["first"] = match
    return list(found.values())


def _between(key: str, low: int, high: int | None) -> Callable[[dict[str, Any]], bool]:
    return lambda target: (
        target[key] is not None and low <= target[key] and (high is None or target[key] <= high)
    )


def _equal(key: str, value: str) -> Callable[[dict[str, Any]], bool]:
    return lambda target: target[key] == value


def _range(low: int, high: int | None) -> str:
    if low == high:
        return str(low)
    return f"{low} or more" if high is None else f"{low} to {high}"


def _series(name: str, flags: list[list[bool]]) -> Series:
    """Shares from the top of the chart downwards."""
    places = [float(len(flags) - 1 - i) for i in range(len(flags))]
    shares = [100 * sum(some) / len(some) for some in flags]
    ends = [wilson_interval(sum(some), len(some)) or (0.0, 1.0) for some in flags]
    return Series(
        name,
        tuple(places),
        tuple(shares),
        tuple(100 * low for low, _ in ends),
        tuple(100 * high for _, high in ends),
    )
