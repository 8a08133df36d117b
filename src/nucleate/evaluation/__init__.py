"""How good crystals are, whoever made them: one row per crystal first, averages with intervals after."""

from __future__ import annotations

import importlib
from typing import Any

_LATE = {
    "Candidate": "candidate",
    "CandidateStore": "candidate_store",
    "Context": "context",
    "Metric": "metric",
    "MetricFamily": "family",
    "Reference": "reference",
    "Settings": "settings",
}

__all__ = sorted(_LATE)


def __getattr__(name: str) -> Any:
    """Names of this room, imported when they are first used."""
    if name in _LATE:
        return getattr(importlib.import_module(f"nucleate.evaluation.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
