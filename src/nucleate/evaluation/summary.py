"""From scores to a report: metrics with their ceilings beside them, warnings, and what was done."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

import pyarrow as pa

import nucleate
from nucleate.errors import NucleateError
from nucleate.evaluation.column import Column
from nucleate.evaluation.efficiency import sample_efficiency
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.reading import ReadingReport
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.report import Report
from nucleate.evaluation.scoring import Score
from nucleate.evaluation.settings import Settings
from nucleate.evaluation.statistics import FEW

FORMAT = "nucleate-evaluation"
SCHEMA_VERSION = 1
_LIBRARIES = ("numpy", "scipy", "pyarrow", "pymatgen-core", "moyopy", "matminer", "smact", "chgnet")


@cache
def summary_schema() -> dict[str, Any]:
    """The JSON schema of ``summary.json``, which comes with the package."""
    return json.loads(
        files("nucleate.evaluation").joinpath("summary.schema.json").read_text(encoding="utf-8")
    )


def make_report(
    reading: ReadingReport,
    ours: Score,
    theirs: Score | None,
    *,
    source: str,
    names: Sequence[str],
    reference: Reference | None,
    settings: Settings,
    seed: int,
    seconds: float,
    generation_seconds: float | None,
) -> Report:
    """The report of an evaluation.

    Args:
        reading: what became of the input.
        ours: the score of the crystals.
        theirs: the score of the held-out sample; None without a reference.
        source: what was evaluated, in the user's words.
        names: families that were asked for.
        reference: what the crystals were compared with.
        settings: thresholds and tolerances.
        seed: of everything random.
        seconds: time the call took.
        generation_seconds: time the crystals took to make, None where unknown.

    Raises:
        NucleateError: two families give a metric of the same key.
    """
    ceilings = {m.name: m for metrics in (theirs.metrics if theirs else {}).values() for m in metrics}
    metrics: dict[str, Metric] = {}
    families: dict[str, tuple[str, ...]] = {}
    for family, found in ours.metrics.items():
        for metric in found:
            if metric.name in metrics or metric.name == "about":
                raise NucleateError(f"Two families of metrics give {metric.name!r}: rename one of them")
            metrics[metric.name] = _with_ceiling(metric, ceilings.get(metric.name))
        families[family] = tuple(m.name for m in found)
    public = _public(ours.table, ours.columns)
    curves = sample_efficiency(ours.table, generation_seconds)
    num = len(reading.candidates)
    about = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "crystals": {
            "source": source,
            "num": num,
            "num_unreadable": reading.num_unreadable,
            "num_refused": reading.num_refused,
            "num_missing": reading.num_missing,
            "ignored": [asdict(item) for item in reading.ignored],
            "digest": reading.candidates.digest,
        },
        "reference": None if reference is None else _reference(reference, theirs),
        "families": {
            name: {
                "metrics": list(families.get(name, ())),
                "problem": ours.problems.get(name, ""),
                "reference_problem": (theirs.problems if theirs else {}).get(name, ""),
            }
            for name in names
        },
        "warnings": _warnings(reading, metrics, ours, theirs),
        "settings": settings.to_json(),
        "seed": seed,
        "seconds": round(seconds, 3),
        "versions": _versions(),
        "sample_efficiency": curves,
    }
    return Report(
        table=public,
        metrics=metrics,
        families=families,
        problems=dict(ours.problems),
        reference_problems=dict(theirs.problems) if theirs else {},
        columns=tuple(ours.columns),
        reference_table=None if theirs is None else _public(theirs.table, theirs.columns),
        about=about,
    )


def _with_ceiling(metric: Metric, ceiling: Metric | None) -> Metric:
    if ceiling is None:
        return metric
    return replace(metric, reference=ceiling.value, reference_n=ceiling.n, reference_ci95=ceiling.ci95)


def _public(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    hidden = {column.name for column in columns if not column.public}
    return table.select([name for name in table.column_names if name not in hidden])


def _reference(reference: Reference, theirs: Score | None) -> dict[str, Any]:
    return {
        "store": reference.store.location,
        "content_hash": reference.content_hash,
        "num": len(reference.store),
        "num_train": len(reference.train),
        "held_out": reference.held_out_rule,
        "num_held_out": len(reference.held_out),
        "num_scored": theirs.table.num_rows if theirs else 0,
    }


def _warnings(
    reading: ReadingReport, metrics: dict[str, Metric], ours: Score, theirs: Score | None
) -> list[str]:
    num = len(reading.candidates)
    found = []
    if bad := reading.num_unreadable + reading.num_refused:
        found.append(
            f"{bad:,} of {num:,} crystals could not be read ({reading.num_unreadable:,}) or encoded "
            f"({reading.num_refused:,}): they count against the generator; the column problem says why."
        )
    if reading.num_missing:
        found.append(
            f"Of {reading.num_missing:,} test structures that were asked for no crystal came: each is a row that "
            "counts against the generator."
        )
    if reading.ignored:
        named = ", ".join(item.file for item in reading.ignored[:3])
        more = f" and {len(reading.ignored) - 3:,} more" if len(reading.ignored) > 3 else ""
        found.append(f"Files without crystals were passed over: {named}{more}.")
    if num < FEW:
        what = "crystal" if num == 1 else "crystals"
        found.append(
            f"Only {num:,} {what}: with fewer than {FEW} a share is uncertain by about ±10 points; papers use "
            "1,000 to 10,000."
        )
    few = [m.name for m in metrics.values() if 0 < m.n < FEW <= num]
    if few:
        found.append(f"Fewer than {FEW} crystals behind {', '.join(few)}.")
    scored = theirs.table.num_rows if theirs else 0
    if theirs is not None and scored < FEW:
        found.append(
            f"The held-out sample of the reference has only {scored:,} crystals: ceilings are rough."
        )
    found += [f"{name} did not run: {problem}" for name, problem in ours.problems.items()]
    if theirs is not None:
        found += [
            f"{name} has no held-out score: {problem}"
            for name, problem in theirs.problems.items()
            if name not in ours.problems
        ]
    return found


def _versions() -> dict[str, str]:
    found = {"nucleate": nucleate.__version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
