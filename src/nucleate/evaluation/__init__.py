"""How good crystals are, whoever made them: one row per crystal first, averages with intervals after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nucleate.late import late_name

if TYPE_CHECKING:
    from nucleate.evaluation.candidate import Candidate
    from nucleate.evaluation.candidate_store import CandidateStore
    from nucleate.evaluation.column import Column
    from nucleate.evaluation.compare import Comparison, compare_reports
    from nucleate.evaluation.context import Context
    from nucleate.evaluation.family import MetricFamily
    from nucleate.evaluation.metric import Metric
    from nucleate.evaluation.property_targets import PropertyTarget
    from nucleate.evaluation.reading import read_candidates
    from nucleate.evaluation.reference import Reference
    from nucleate.evaluation.report import Report
    from nucleate.evaluation.run import evaluate
    from nucleate.evaluation.settings import Settings

_LATE = {
    "Candidate": "candidate",
    "CandidateStore": "candidate_store",
    "Column": "column",
    "Comparison": "compare",
    "Context": "context",
    "Metric": "metric",
    "MetricFamily": "family",
    "PropertyTarget": "property_targets",
    "Reference": "reference",
    "Report": "report",
    "Settings": "settings",
    "compare_reports": "compare",
    "evaluate": "run",
    "read_candidates": "reading",
}

__all__ = [
    "Candidate",
    "CandidateStore",
    "Column",
    "Comparison",
    "Context",
    "Metric",
    "MetricFamily",
    "PropertyTarget",
    "Reference",
    "Report",
    "Settings",
    "compare_reports",
    "evaluate",
    "read_candidates",
]


def __getattr__(name: str) -> Any:
    """Names of this room, imported when they are first used."""
    return late_name(__name__, _LATE, name)
