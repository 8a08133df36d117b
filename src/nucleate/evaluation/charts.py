"""What the drawings of a report show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from nucleate.evaluation.chart import HELD_OUT, OURS, Chart, Series, share_points
from nucleate.evaluation.csp_charts import match_charts
from nucleate.evaluation.metric import Metric

if TYPE_CHECKING:
    from nucleate.evaluation.report import Report

HULL_COLUMN = "energy_above_hull"
HULL_LIMITS = (-0.1, 0.5)


def charts_of(report: Report) -> list[Chart]:
    """The drawings of everything that was measured; a family that did not run has none."""
    found: list[Chart] = []
    for family, keys in report.families.items():
        found += _shares(family, [report.metrics[key] for key in keys])
    if "symmetry" in report.families or "distribution" in report.families:
        found += _space_groups(report)
    if "distribution" in report.families:
        found += _histogram(report, "density", "Density", "density (g/cm³)", _linear_edges)
        found += _histogram(
            report, "num_elements", "Elements per crystal", "different elements", _whole_edges
        )
        found += _histogram(
            report, "num_atoms_primitive", "Atoms per crystal", "atoms per primitive cell", _whole_edges
        )
    if "stability" in report.families:
        found += _hull(report)
    if "csp" in report.families:
        found += match_charts(report.table)
    found += _efficiency(report)
    return found


def _shares(family: str, metrics: Sequence[Metric]) -> list[Chart]:
    """Shares of a family with their intervals, the held-out sample beside them."""
    shown = [m for m in metrics if m.unit == "share" and m.value is not None]
    if not shown:
        return []
    places = [float(len(shown) - 1 - i) for i in range(len(shown))]

    both = [
        share_points(OURS, places, [(m.value, m.ci95) for m in shown]),
        share_points(HELD_OUT, places, [(m.reference, m.reference_ci95) for m in shown]),
    ]
    sizes = sorted({m.n for m in shown})
    n = f"n = {sizes[0]:,}" if len(sizes) == 1 else f"n = {sizes[0]:,} to {sizes[-1]:,}"
    return [
        Chart(
            name=f"{family}_shares",
            title=family.capitalize(),
            subtitle=f"share of crystals with 95 % intervals, {n}",
            kind="intervals",
            x_label="share (%)",
            y_label="",
            series=tuple(s for s in both if s.x),
            labels=tuple(m.name.replace("_", " ") for m in reversed(shown)),
        )
    ]


def _numbers(table: pa.Table | None, column: str) -> np.ndarray:
    if table is None or column not in table.column_names:
        return np.empty(0)
    values = np.array([np.nan if v is None else v for v in table.column(column).to_pylist()], dtype=float)
    return values[np.isfinite(values)]


def _sets(report: Report, column: str) -> list[tuple[str, np.ndarray]]:
    """Name and values of the set and of the held-out sample, where there are any."""
    tables = ((OURS, report.table), (HELD_OUT, report.reference_table))
    return [(name, values) for name, table in tables if len(values := _numbers(table, column))]


def _sizes(sets: Sequence[tuple[str, np.ndarray]]) -> str:
    return ", ".join(f"{name} n = {len(values):,}" for name, values in sets)


def _space_groups(report: Report) -> list[Chart]:
    sets = _sets(report, "space_group_number")
    if not sets:
        return []
    series = []
    for name, values in sets:
        shares = 100 * np.bincount(values.astype(int), minlength=231)[1:231] / len(values)
        series.append(Series(name, tuple(map(float, range(1, 231))), tuple(shares.tolist())))
    return [
        Chart(
            name="space_groups",
            title="Space groups",
            subtitle=f"found at 0.01 Å; {_sizes(sets)}",
            kind="mirrored",
            x_label="space group number",
            y_label="share of crystals (%)",
            series=tuple(series),
        )
    ]


def _linear_edges(values: np.ndarray) -> np.ndarray:
    low, high = np.quantile(values, [0.001, 0.999])
    bins = int(np.clip(2 * len(values) ** (1 / 3), 8, 60))  # Rice's rule: no finer than the sample allows
    return np.linspace(low, high if high > low else low + 1, bins + 1)


def _whole_edges(values: np.ndarray) -> np.ndarray:
    return np.arange(0.5, max(3, int(np.quantile(values, 0.995))) + 1)


def _histogram(
    report: Report, column: str, title: str, label: str, edges_of: Callable[[np.ndarray], np.ndarray]
) -> list[Chart]:
    sets = _sets(report, column)
    if not sets:
        return []
    edges = edges_of(np.concatenate([values for _, values in sets]))
    series, beyond = [], []
    for name, values in sets:
        counts = np.histogram(values, edges)[0]
        series.append(Series(name, tuple(edges.tolist()), tuple((100 * counts / len(values)).tolist())))
        if outside := len(values) - int(counts.sum()):
            beyond.append(f"{outside:,} of {name} outside")
    return [
        Chart(
            name=column,
            title=title,
            subtitle="; ".join([_sizes(sets), *beyond]),
            kind="histogram",
            x_label=label,
            y_label="share of crystals (%)",
            series=tuple(series),
        )
    ]


def _hull(report: Report) -> list[Chart]:
    """Share of all crystals at or below each energy above the hull: what failed or is unknown never enters."""
    series, known = [], []
    grid = np.linspace(*HULL_LIMITS, 241)
    for name, table in ((OURS, report.table), (HELD_OUT, report.reference_table)):
        values = _numbers(table, HULL_COLUMN)
        if table is None or not len(values):
            continue
        shares = 100 * np.searchsorted(np.sort(values), grid, side="right") / table.num_rows
        series.append(Series(name, tuple(grid.tolist()), tuple(shares.tolist())))
        known.append(f"{name}: energies for {len(values):,} of {table.num_rows:,}")
    if not series:
        return []
    return [
        Chart(
            name="energy_above_hull",
            title="Energy above the hull, cumulative",
            subtitle="; ".join(known),
            kind="lines",
            x_label="energy above hull (eV/atom)",
            y_label="share of all crystals at or below (%)",
            series=tuple(series),
        )
    ]


def _efficiency(report: Report) -> list[Chart]:
    """Different hits per sample drawn, which falls where a generator repeats itself, and hits against seconds."""
    content = report.about["sample_efficiency"]
    curves, samples = content["curves"], np.array(content["samples"], dtype=float)
    if not curves or len(samples) < 2:
        return []
    names = {key: key.replace("_", " + ") for key in curves}
    how = "expected over all orders of the samples; equal crystals count once (but in valid)"
    found = [
        Chart(
            name="sample_efficiency",
            title="Sample efficiency",
            subtitle=how,
            kind="lines",
            x_label="samples drawn",
            y_label="different crystals per 100 samples",
            series=tuple(
                Series(names[key], tuple(samples), tuple(100 * np.array(values) / samples))
                for key, values in curves.items()
            ),
            logarithmic=True,
        )
    ]
    if content["seconds_per_sample"]:
        seconds = samples * content["seconds_per_sample"]
        found.append(
            Chart(
                name="compute_efficiency",
                title="Quality against compute",
                subtitle=how,
                kind="lines",
                x_label="seconds of generation",
                y_label="different crystals",
                series=tuple(
                    Series(names[key], tuple(seconds), tuple(values)) for key, values in curves.items()
                ),
            )
        )
    return found
