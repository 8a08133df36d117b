"""Two generators under one protocol: difference, interval and p-value of every metric."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.data.folder import LocalFolder
from nucleate.evaluation.differences import (
    Difference,
    difference,
    holm,
    interval_of_difference,
    paired_difference,
)
from nucleate.evaluation.metric import Metric, finite, interval
from nucleate.evaluation.report import Report, write_json
from nucleate.evaluation.statistics import numbers

COMPARISON_FILE = "comparison.json"
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class ComparedMetric:
    """One metric of two sets.

    Attributes:
        name: key of the metric.
        first: of the first set.
        second: of the second set.
        difference: first minus second; None where the protocols differ or a value is missing.
        p_adjusted: p-value adjusted for the number of metrics compared (Holm); None without a test.
        better: ``first`` or ``second`` where the adjusted p-value is below 0.05 and the metric has a better
            side; else empty.
        note: why there is no difference or no test.
    """

    name: str
    first: Metric
    second: Metric
    difference: Difference | None
    p_adjusted: float | None = None
    better: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The comparison as it stands in ``comparison.json``."""
        found = None
        if self.difference is not None:
            found = {
                **asdict(self.difference),
                "value": finite(self.difference.value),
                "ci95": interval(self.difference.ci95),
                "p_value": finite(self.difference.p_value),
                "n": list(self.difference.n),
            }
        return {
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "difference": found,
            "p_adjusted": finite(self.p_adjusted),
            "better": self.better,
            "note": self.note,
        }


@dataclass(frozen=True)
class Comparison:
    """Two reports side by side.

    Attributes:
        first: report on the first set.
        second: report on the second set.
        metrics: every metric both have.
    """

    first: Report
    second: Report
    metrics: Mapping[str, ComparedMetric]

    def to_json(self) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        return {
            "format": "nucleate-comparison",
            "schema_version": 1,
            "first": self.first.about["crystals"],
            "second": self.second.about["crystals"],
            "reference": self.first.about["reference"],
            "settings": self.first.about["settings"],
            "seed": self.first.about["seed"],
            "metrics": {name: compared.to_json() for name, compared in self.metrics.items()},
        }

    def write(self, out: str | os.PathLike[str]) -> list[Path]:
        """``comparison.json`` and drawings of both sets side by side."""
        from nucleate.evaluation.comparison_charts import comparison_charts  # noqa: PLC0415  (as in Report)
        from nucleate.evaluation.drawings import write_drawings  # noqa: PLC0415  (loads matplotlib)

        names = [str(report.about["crystals"]["source"]) for report in (self.first, self.second)]
        charts = comparison_charts(self)
        written = write_drawings(charts, Path(out) / "plots", title=f"{names[0]} against {names[1]}")
        return [write_json(LocalFolder(Path(out)), COMPARISON_FILE, self.to_json()), *written]


def compare_reports(first: Report, second: Report, *, seed: int = 0, resamples: int = 1000) -> Comparison:
    """Every metric that both reports have, compared.

    A metric that is the mean (or another statistic) of one column is tested by permutation: of pairs where both
    sets answer the same questions (``Metric.answers``), of independent samples otherwise. So is a share of
    flags, which is known from its two numbers. For others the
    interval of the difference follows from the two intervals, and there is no test.

    Args:
        first: report on the first set.
        second: report on the second set.
        seed: of resampling and relabelling.
        resamples: how many of each.
    """
    found = {
        name: _compared(name, first, second, seed, resamples)
        for name in first.metrics
        if name in second.metrics
    }
    tested = [n for n, c in found.items() if c.difference is not None and c.difference.p_value is not None]
    raw = [c.difference.p_value for n in tested if (c := found[n]).difference is not None]
    for name, adjusted in zip(tested, holm([p for p in raw if p is not None])):
        found[name] = replace(found[name], p_adjusted=adjusted, better=_better(found[name], adjusted))
    return Comparison(first, second, found)


def _better(compared: ComparedMetric, p_adjusted: float) -> str:
    side, d = compared.first.better, compared.difference
    if not side or d is None or d.value == 0 or p_adjusted >= SIGNIFICANT:
        return ""
    return "first" if (d.value > 0) == (side == "higher") else "second"


def _compared(name: str, a: Report, b: Report, seed: int, resamples: int) -> ComparedMetric:
    first, second = a.metrics[name], b.metrics[name]
    if first.value is None or second.value is None:
        return ComparedMetric(name, first, second, None, note="one of the sets has no value")
    if first.protocol != second.protocol:
        return ComparedMetric(name, first, second, None, note="the protocols differ: not comparable")
    pairs = _pairs(first.answers, second.answers)
    if pairs is not None:
        found = paired_difference(*pairs, seed=seed, resamples=resamples)
        left_out = max(len(first.answers or ()), len(second.answers or ())) - len(pairs[0])
        note = f"on the {len(pairs[0]):,} questions both answer" if left_out else ""
        return ComparedMetric(name, first, second, found, note=note)
    column = first.column
    if column and column in a.table.column_names and column in b.table.column_names:
        ours, theirs = (numbers(t.column(column).to_pylist()) for t in (a.table, b.table))
        if len(ours) and len(theirs):
            found = difference(ours, theirs, statistic=first.statistic, seed=seed, resamples=resamples)
            return ComparedMetric(name, first, second, found)
    if first.successes is not None and second.successes is not None:
        ours, theirs = (np.arange(m.n) < (m.successes or 0) for m in (first, second))
        return ComparedMetric(name, first, second, difference(ours, theirs, seed=seed, resamples=resamples))
    ends = None
    if first.ci95 is not None and second.ci95 is not None:
        ends = interval_of_difference(first.value, second.value, first.ci95, second.ci95)
    found = Difference(
        first.value - second.value,
        ends,
        None,
        (first.n, second.n),
        paired=False,
        method="independent samples; interval from the two intervals (Zou and Donner 2008), no test",
    )
    return ComparedMetric(name, first, second, found, note="no test: it is not a statistic of one column")


def _pairs(
    ours: Mapping[Hashable, float] | None, theirs: Mapping[Hashable, float] | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Answers of both sets to the questions both answer, in one order; None where there are fewer than two."""
    if ours is None or theirs is None:
        return None
    both = [key for key in ours if key in theirs and not (np.isnan(ours[key]) or np.isnan(theirs[key]))]
    if len(both) < 2:
        return None
    return np.array([ours[key] for key in both], float), np.array([theirs[key] for key in both], float)
